/** Headless Chromium, with tabs that trust one broker. */

import { createHash, X509Certificate } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { chromium } from 'playwright-core'

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'

/** Why tests with Chromium are skipped; false if they run. With CI=true they always do. */
export const isMissing =
  !existsSync(executablePath) && process.env.CI !== 'true' ? 'chromium is not installed' : false

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/**
 * Starts Chromium for as long as the test `t`; gives a function that opens a tab. What goes wrong
 * there is in the tab's `faults`; `onLine` gets what it writes to its console.
 */
export async function startChromium(t, broker, options = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'com-broker-chromium-'))
  const context = await chromium.launchPersistentContext(directory, {
    executablePath,
    headless: true,
    handleSIGTERM: false,
    args: [...FLAGS, `--ignore-certificate-errors-spki-list=${keyHash(broker)}`],
    ...options,
  })
  t.after(async () => {
    await context.close()
    rmSync(directory, { recursive: true, force: true })
  })
  context.setDefaultTimeout(15_000)
  return async (url, onLine = () => {}) => {
    const tab = await context.newPage()
    tab.faults = []
    tab.on('pageerror', (error) => tab.faults.push(String(error)))
    tab.on('console', (message) => {
      if (message.type() === 'error') tab.faults.push(message.text())
      onLine(message.text())
    })
    tab.on('request', (request) => {
      const { protocol, host } = new URL(request.url())
      if (protocol !== 'data:' && host !== new URL(url).host) tab.faults.push(request.url())
    })
    await tab.goto(url)
    return tab
  }
}

/** The key that Chromium trusts: that of the broker's certificate, and no other. */
function keyHash(broker) {
  const certificate = readFileSync(join(broker.directory, 'certs/server.pem'))
  const key = new X509Certificate(certificate).publicKey
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('base64')
}
