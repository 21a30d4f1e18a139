/** The package as others get it: from a clone or packed, in an empty project, used as README.md says. */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import vm from 'node:vm'

import { Broker, PROFILE_KEYS } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'
import { Mailbox, within } from './support/waiting.mjs'

const run = promisify(execFile)
const root = resolve(import.meta.dirname, '..')
const about = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const tsc = join(root, 'node_modules/typescript/bin/tsc')

/** The examples of README.md in a language. */
const examples = (language) =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(
    ([, text]) => text,
  )

/** What an example prints, as its comments say, sorted: the order is not always the same. */
const promised = (example) =>
  [...example.matchAll(/console\.log\(.*\)+ \/\/ (.*)$/gm)]
    .flatMap(([, text]) => text.split(', then '))
    .sort()

let directory
/** A project that installed the folder of a clone, as README.md says. */
let project
/** A project that installed the tarball. */
let unpacked
let packed
let broker

before(async () => {
  broker = new Broker('')
  await broker.start()
  directory = mkdtempSync(join(tmpdir(), 'com-broker-package-'))
  project = makeProject('project')
  unpacked = makeProject('unpacked')

  // What a clone has: neither installed packages nor types.
  const clone = join(directory, 'com-broker/clients/javascript')
  const isCloned = (path) => !/^(node_modules|types)($|\/)/.test(relative(root, path))
  cpSync(root, clone, { recursive: true, filter: isCloned })
  const [install] = examples('sh')
  assert.equal(install, 'npm install ../com-broker/clients/javascript ws\n')
  const env = { ...process.env, ...QUIET }
  await run('sh', ['-ec', install], { cwd: project, env })
  assert.ok(lstatSync(join(project, 'node_modules', about.name)).isSymbolicLink())
  cpSync(join(broker.directory, 'certs'), join(project, 'certs'), { recursive: true })

  const packing = ['pack', '--json', '--pack-destination', directory]
  packed = readPacked((await run('npm', packing, { cwd: root })).stdout)
  const tarball = join(directory, packed.filename)
  const ws = `ws@${about.devDependencies.ws}`
  await run('npm', ['install', tarball, ws], { cwd: unpacked, env })
})
after(async () => {
  await broker?.remove()
  if (directory) rmSync(directory, { recursive: true, force: true })
})

const QUIET = {
  npm_config_audit: 'false',
  npm_config_fund: 'false',
  npm_config_prefer_offline: 'true',
}

function makeProject(name) {
  const made = join(directory, name)
  mkdirSync(made)
  writeFileSync(join(made, 'package.json'), '{ "private": true, "type": "module" }')
  return made
}

/** The answer of `npm pack --json`, after the output of the build; its form depends on npm's version. */
function readPacked(output) {
  const answer = JSON.parse(output.slice(output.search(/^[[{]/m)))
  return Array.isArray(answer) ? answer[0] : (answer[about.name] ?? answer)
}

/** An example with the port of this test's broker. */
const here = (example) => example.replaceAll(':6661/', `:${broker.port}/`)

async function runModule(name, text, ...more) {
  writeFileSync(join(project, name), text)
  const { stdout } = await run(process.execPath, [name, ...more], { cwd: project, timeout: 20_000 })
  return stdout.trimEnd().split('\n')
}

test('the tarball holds what is needed, and nothing else', () => {
  const names = packed.files.map(({ path }) => path)
  for (const name of [
    'README.md',
    'CHANGELOG.md',
    'LICENSE',
    'global.d.ts',
    'dist/com-broker.js',
    'samples/index.html',
    'src/index.js',
    'types/index.d.ts',
    'types/node.d.ts',
  ]) {
    assert.ok(names.includes(name), `${name} is missing`)
  }
  const strays = names.filter((name) => !/^(src|types|dist|samples)\/|^[A-Zgp][^/]*$/.test(name))
  assert.deepEqual(strays, [])
  assert.ok(packed.unpackedSize < 270_000, `${packed.unpackedSize} bytes`)
})

test('what the metadata refers to is there', () => {
  const installed = join(unpacked, 'node_modules', about.name)
  const paths = JSON.stringify([about.exports, about.types, about.browser, about.unpkg])
  for (const [, path] of paths.matchAll(/"(\.\/[^"]+\.[jt]s)"/g)) {
    if (!path.endsWith('/com-broker.js') || path.includes('dist')) {
      assert.ok(readFileSync(join(installed, path)).length > 0, path)
    }
  }
})

test('the classic script is what the sources make', async () => {
  await run(process.execPath, ['build.mjs', '--check'], { cwd: root })
  const installed = join(unpacked, 'node_modules', about.name, 'dist/com-broker.js')
  assert.ok(readFileSync(installed, 'utf8').startsWith(`/*! com-broker ${about.version}, `))
})

for (const example of examples('js')) {
  const name = example.match(/login: '(\w+)'/)[1]
  const number = examples('js').indexOf(example)
  test(`example ${number + 1} of README.md, with ${name}`, async () => {
    const printed = await runModule(`example-${number}.js`, here(example))
    assert.deepEqual(printed.sort(), promised(example))
  })
}

test('in a linked folder ws is found from where the program is', async () => {
  const text = `
    import { Client } from '${about.name}'
    delete globalThis.WebSocket
    const keys = { applicationKey: 'my_app_secret_key', profileKey: '${PROFILE_KEYS.agent}' }
    const client = new Client({ url: 'ws://127.0.0.1:${broker.port}/', login: 'far', ...keys })
    console.log((await client.connect()).address)
    await client.close()`
  writeFileSync(join(project, 'far.mjs'), text)
  for (const [words, cwd] of [
    [['far.mjs'], project],
    [[join(project, 'far.mjs')], directory],
    [['--input-type=module', '--eval', text], project],
  ]) {
    const { stdout } = await run(process.execPath, words, { cwd, timeout: 20_000 })
    assert.equal(stdout, '/agent/far\n')
  }
})

test('the load generator runs as README.md says', async () => {
  const [, example] = examples('sh')
  const [program, ...words] = here(example).trim().split(' ')
  assert.equal(program, 'node')
  const installed = join(unpacked, 'node_modules', about.name)
  const { stdout } = await run(process.execPath, words, { cwd: installed, timeout: 30_000 })
  assert.match(stdout, /^[1-9]\d* messages in 2 s: [1-9]\d* a second\n$/)
})

test('the page of README.md runs', { skip: isMissing }, async (t) => {
  const [example] = examples('html')
  const files = {
    '/': `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">${here(example)}`,
    '/com-broker.js': readFileSync(join(root, 'dist/com-broker.js')),
  }
  const server = createServer(({ url }, response) => {
    response.setHeader('content-type', url === '/' ? 'text/html' : 'text/javascript')
    response.end(files[url])
  }).listen(0, '127.0.0.1')
  t.after(() => server.close())
  const openTab = await startChromium(t, broker)
  const printed = new Mailbox()
  const url = `http://127.0.0.1:${server.address().port}/`
  const tab = await openTab(url, printed.put)
  const lines = []
  for (const _ of promised(example)) lines.push(await printed.take('a line'))
  assert.deepEqual(lines.sort(), promised(example))
  assert.deepEqual(tab.faults, [])
})

test('the classic script leaves what a page set before it, and takes what is set after it', async () => {
  const source = readFileSync(
    join(unpacked, 'node_modules', about.name, 'dist/com-broker.js'),
    'utf8',
  )
  const { WebSocket } = await import('ws')
  const page = (before) => {
    const names = { WebSocket, TextEncoder, TextDecoder, EventTarget, CustomEvent, crypto }
    const context = vm.createContext({
      ...names,
      console,
      setTimeout,
      clearTimeout,
      queueMicrotask,
    })
    vm.runInContext(before, context)
    vm.runInContext(source, context)
    return context
  }
  const outcome = async (context, after) => {
    const box = new Mailbox()
    context.put = box.put
    vm.runInContext(
      `${after}
      const client = new COM_BROKER_Client('x', 'ws://127.0.0.1:${broker.port}/')
      const end = (what) => { put(what); client.diconnectToServer() }
      client.linkEvents(() => end('open'), null, (error, { code }) => end(code))
      client.connect('page', '${PROFILE_KEYS.agent}')`,
      context,
    )
    return within('the outcome', box.take())
  }
  assert.equal(await outcome(page(''), ''), 'open')
  for (const declare of ['', 'var ', 'let ', 'const ']) {
    const wrong = `${declare}CFG_STOMP_SECRET_KEY = 'wrong'`
    assert.equal(await outcome(page(wrong), ''), 'INVALID_APP_KEY', `before: ${wrong}`)
    assert.equal(await outcome(page(''), wrong), 'INVALID_APP_KEY', `after: ${wrong}`)
  }
})

test('without a WebSocket the error says what to do', async () => {
  const text = `
    import { Client } from '${about.name}'
    delete globalThis.WebSocket
    const options = { url: 'ws://x/', login: 'x', applicationKey: 'x', profileKey: 'x' }
    await new Client(options).connect().catch(({ message }) => console.log(message))`
  const directory = mkdtempSync(join(tmpdir(), 'com-broker-bare-'))
  try {
    writeFileSync(join(directory, 'bare.mjs'), text)
    const installed = join(unpacked, 'node_modules', about.name)
    cpSync(installed, join(directory, 'node_modules', about.name), { recursive: true })
    const { stdout } = await run(process.execPath, ['bare.mjs'], { cwd: directory })
    assert.match(stdout, /install the package ws/)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

for (const resolution of ['nodenext', 'bundler']) {
  test(`the types hold what they promise, with module resolution ${resolution}`, async () => {
    cpSync(join(root, 'tests/types.ts'), join(unpacked, 'types.ts'))
    for (const name of ['@types', 'undici-types']) {
      const from = join(root, 'node_modules', name)
      cpSync(from, join(unpacked, 'node_modules', name), { recursive: true })
    }
    const module = resolution === 'nodenext' ? 'nodenext' : 'esnext'
    const compilerOptions = {
      strict: true,
      noEmit: true,
      target: 'es2022',
      lib: ['es2022', 'dom', 'dom.iterable'],
      module,
      moduleResolution: resolution,
      types: ['node'],
    }
    const config = { compilerOptions, include: ['types.ts'] }
    writeFileSync(join(unpacked, 'tsconfig.json'), JSON.stringify(config))
    try {
      await run(process.execPath, [tsc, '--project', unpacked], { cwd: unpacked })
    } catch (error) {
      assert.fail(error.stdout)
    }
  })
}
