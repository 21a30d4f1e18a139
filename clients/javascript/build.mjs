/** Builds the types and the classic script. With --check it only compares the latter. */

import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

import { build } from 'esbuild'

const root = import.meta.dirname
const script = join(root, 'dist/com-broker.js')
const { version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

const { outputFiles } = await build({
  entryPoints: [join(root, 'src/script.js')],
  outfile: script,
  bundle: true,
  minify: true,
  format: 'iife',
  target: 'es2022',
  banner: { js: `/*! com-broker ${version}, for pages without modules. ${license} licensed. */` },
  charset: 'utf8',
  write: !process.argv.includes('--check'),
})

if (process.argv.includes('--check')) {
  if (readFileSync(script, 'utf8') !== outputFiles[0].text) {
    console.error('dist/com-broker.js is not what the sources make: npm run build')
    process.exitCode = 1
  }
} else {
  rmSync(join(root, 'types'), { recursive: true, force: true })
  const require = createRequire(import.meta.url)
  const tsc = join(dirname(require.resolve('typescript/package.json')), 'bin/tsc')
  execFileSync(process.execPath, [tsc, '--project', root], { stdio: 'inherit' })
}
