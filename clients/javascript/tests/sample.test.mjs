/** The sample page, served by the broker, in headless Chromium. */

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'

import { Broker } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'

/** Where pictures go, for people to look at. */
const pictures = resolve(import.meta.dirname, '../../../target/clients/javascript')
mkdirSync(pictures, { recursive: true })

async function logIn(tab, name, profile = 'Agent') {
  await tab.getByLabel('Name', { exact: true }).fill(name)
  await tab.getByLabel(profile, { exact: true }).check()
  await tab.getByRole('button', { name: 'Log in' }).click()
}

async function send(tab, to, text) {
  await tab.getByLabel('To', { exact: true }).fill(to)
  await tab.getByLabel('Message', { exact: true }).fill(text)
  await tab.getByRole('button', { name: 'Send', exact: true }).click()
}

for (const scheme of ['http', 'https']) {
  test(`people use the page over ${scheme}`, { skip: isMissing }, async (t) => {
    const broker = await Broker.start(t)
    const openTab = await startChromium(t, broker, { viewport: { width: 1180, height: 1080 } })
    const page = `${scheme}://localhost:${broker.port}/`
    const ana = await openTab(page)
    if (scheme === 'http') await ana.screenshot({ path: `${pictures}/login.png`, fullPage: true })
    await logIn(ana, 'ana')
    await ana.getByText('/agent/ana', { exact: true }).waitFor()
    await ana.getByText('Agent, connection').waitFor()
    assert.equal(await ana.getByRole('status').textContent(), 'Connected')

    const sue = await openTab(page)
    await logIn(sue, 'sue', 'Super agent')
    await sue.getByText('/agent/sue', { exact: true }).waitFor()
    await sue.getByLabel('Topic or address').fill('/agent/a.*')
    await sue.getByLabel('Regular expression').check()
    await sue.getByRole('button', { name: 'Subscribe' }).click()
    await sue.getByRole('list', { name: 'Subscriptions' }).getByText('/agent/a.*').waitFor()

    const bob = await openTab(page)
    await logIn(bob, 'bob', 'Service')
    await bob.getByText('/service/bob', { exact: true }).waitFor()
    await send(bob, '/agent/ana', '¿Qué tal, señora? ☎\n<b>not bold</b>')
    for (const tab of [ana, sue]) {
      const messages = tab.getByRole('log', { name: 'Incoming messages' })
      await messages.getByText('¿Qué tal, señora? ☎').waitFor()
      await messages.getByText('<b>not bold</b>').waitFor()
    }
    await bob.getByRole('log', { name: 'Log' }).getByText('send to /agent/ana: OK').waitFor()
    await ana.getByRole('button', { name: 'Answer' }).click()
    assert.equal(await ana.getByLabel('To', { exact: true }).inputValue(), '/service/bob')
    await ana.keyboard.type('Muy bien')
    await ana.keyboard.press('Control+Enter')
    await bob.getByText('Muy bien').waitFor()

    await send(bob, '/agent/nobody', 'x')
    await bob.getByText(/nobody is at the destination .*NO_SUCH_DESTINATION/).waitFor()
    await ana.getByLabel('Topic or address').fill('/agent/sue')
    await ana.getByRole('button', { name: 'Subscribe' }).click()
    await ana.getByText(/subscribe to \/agent\/sue: .*PROF_NO_RIGHTS/).waitFor()
    await send(bob, '/agent/ana', '{"order": 4711, "state": "on its way"}')
    await sue.getByText('4711').waitFor()
    if (scheme === 'http') {
      await sue.screenshot({ path: `${pictures}/page.png`, fullPage: true })
      await bob.emulateMedia({ colorScheme: 'dark' })
      await bob.screenshot({ path: `${pictures}/dark.png`, fullPage: true })
      await ana.setViewportSize({ width: 390, height: 844 })
      await ana.screenshot({ path: `${pictures}/phone.png`, fullPage: true })
      const width = await ana.evaluate(() => document.documentElement.scrollWidth)
      assert.equal(width, 390, 'nothing sticks out on a phone')
    }
    await sue.getByRole('button', { name: 'Unsubscribe from all' }).click()
    await sue.getByText('unsubscribe: OK').waitFor()
    assert.equal(await sue.getByRole('list', { name: 'Subscriptions' }).textContent(), '')

    const other = await openTab(page)
    await logIn(other, 'ana')
    await other.getByText('/agent/ana', { exact: true }).waitFor()
    await ana
      .getByRole('alert')
      .getByText(/a newer connection/)
      .waitFor()
    await other.getByRole('button', { name: 'Log out' }).click()
    await other.getByRole('heading', { name: 'Log in' }).waitFor()
    assert.equal(await other.getByRole('status').textContent(), 'Not connected')
    assert.equal(await other.getByRole('alert').isVisible(), false)

    await other.getByText('Broker and keys').click()
    await other.getByLabel('Key of the profile').fill('wrong')
    await other.getByRole('button', { name: 'Log in' }).click()
    await other.getByRole('alert').getByText(/key/).waitFor()
    await other.getByLabel('Address of the broker').fill('nonsense://x')
    await other.getByRole('button', { name: 'Log in' }).click()
    await other
      .getByRole('alert')
      .getByText(/nonsense/)
      .waitFor()
    const stopped = broker.stop()
    await bob.getByRole('alert').getByText(/shut/).waitFor()
    await stopped
    for (const tab of [ana, sue, bob, other]) assert.deepEqual(tab.faults, [])
  })
}
