// Headless Chromium with one page, served by a little server of our own.

import { X509Certificate, createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export const modules = process.env.BROKER_NODE_MODULES
const require = createRequire(`${modules}/`)

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync']

/**
 * Opens a page. `files` are contents by path; `onLine` gets what the page writes to its console;
 * `act` gets the version of Chromium and a promise that rejects when the page fails.
 */
export async function withPage({ files, onLine }, act) {
  const server = createServer((request, response) => {
    const path = request.url
    const type = path.endsWith('js') ? 'text/javascript' : 'text/html'
    response.statusCode = files[path] === undefined ? 404 : 200
    response.setHeader('content-type', `${type}; charset=utf-8`).end(files[path] ?? '')
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const directory = mkdtempSync(join(tmpdir(), 'com-broker-chromium-'))
  let context
  try {
    context = await require('playwright-core').chromium.launchPersistentContext(directory, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true,
      handleSIGTERM: false, args: [...FLAGS, `--ignore-certificate-errors-spki-list=${keyHash()}`] })
    const tab = await context.newPage()
    const failed = new Promise((_, reject) => {
      tab.on('pageerror', reject)
      tab.on('crash', () => reject(new Error('the page crashed')))
    })
    tab.on('console', message => onLine(message.text()))
    await tab.goto(`http://127.0.0.1:${server.address().port}/`)
    await act(context.browser()?.version() ?? '', failed)
  } finally {
    await context?.close()
    server.close()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** The key that Chromium trusts for wss: that of the broker's certificate, and no other. */
function keyHash() {
  const path = process.env.BROKER_CA.replace(/ca\.pem$/, 'server.pem')
  const key = new X509Certificate(readFileSync(path)).publicKey
  return createHash('sha256').update(key.export({ type: 'spki', format: 'der' })).digest('base64')
}
