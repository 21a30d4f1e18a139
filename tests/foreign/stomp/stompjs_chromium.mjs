// @stomp/stompjs in headless Chromium. Usage: stompjs_chromium.mjs 1.2 ws|wss
//
// The page and the library come from a little server of our own. Chromium is told which key to
// trust for wss, that of the broker's certificate and no other.

import { X509Certificate, createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const modules = process.env.BROKER_NODE_MODULES
const require = createRequire(`${modules}/`)
const { chromium } = require('playwright-core')

const [, transport] = process.argv.slice(2)
const { BROKER_PORT, BROKER_CA, BROKER_LOGIN, BROKER_KEYS } = process.env

const page = `<!doctype html><meta charset="utf-8"><title>STOMP</title>
<script src="/stomp.umd.js"></script>
<script type="module">
  import { runChecks } from '/checks.mjs'
  import { stompjs } from '/stompjs.mjs'
  const adapter = stompjs(StompJs.Client, '${transport}://localhost:${BROKER_PORT}/')
  await runChecks(adapter, { login: '${BROKER_LOGIN}', keys: '${BROKER_KEYS}', print: report })
  finish()
</script>`
const files = {
  '/': ['text/html', page],
  '/checks.mjs': ['text/javascript', readFileSync(new URL('checks.mjs', import.meta.url))],
  '/stompjs.mjs': ['text/javascript', readFileSync(new URL('stompjs.mjs', import.meta.url))],
  '/stomp.umd.js': ['text/javascript', readFileSync(`${modules}/@stomp/stompjs/bundles/stomp.umd.js`)],
}
const server = createServer((request, response) => {
  const [type, content] = files[request.url] ?? ['text/plain', 'nothing here']
  response.setHeader('content-type', `${type}; charset=utf-8`).end(content)
})
await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))

const flags = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync']
if (transport === 'wss') flags.push(`--ignore-certificate-errors-spki-list=${keyHash()}`)

/** The hash of the key of the certificate that the broker shows. */
function keyHash() {
  const certificate = new X509Certificate(readFileSync(BROKER_CA.replace(/ca\.pem$/, 'server.pem')))
  const key = certificate.publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(key).digest('base64')
}

const directory = mkdtempSync(join(tmpdir(), 'com-broker-chromium-'))
let context
try {
  context = await chromium.launchPersistentContext(directory, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: flags })
  const about = JSON.parse(readFileSync(`${modules}/@stomp/stompjs/package.json`))
  console.log('version', `${about.version} in Chromium ${context.browser()?.version() ?? ''}`.trim())
  const tab = await context.newPage()
  let finish
  const finished = new Promise((resolve, reject) => {
    finish = resolve
    tab.on('pageerror', reject)
    tab.on('crash', () => reject(new Error('the page crashed')))
  })
  await tab.exposeFunction('report', line => console.log(line))
  await tab.exposeFunction('finish', finish)
  await tab.goto(`http://127.0.0.1:${server.address().port}/`)
  await finished
} finally {
  await context?.close()
  server.close()
  rmSync(directory, { recursive: true, force: true })
}
process.exit()
