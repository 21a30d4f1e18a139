/** The sample page, served by the broker, in headless Chromium. */

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { resolve } from 'node:path'
import { test } from 'node:test'

import { Broker } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'

/** Where the pictures go that people may look at. */
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

async function subscribe(tab, what) {
  await tab.getByLabel('Topic, queue or address').fill(what)
  await tab.getByRole('button', { name: 'Subscribe', exact: true }).click()
}

const outcome = (tab, form) => tab.locator(`#${form}-outcome`)

for (const scheme of ['http', 'https']) {
  test(`people use the page over ${scheme}`, { skip: isMissing }, async (t) => {
    const broker = await Broker.start(t)
    const openTab = await startChromium(t, broker, { viewport: { width: 1280, height: 900 } })
    const page = `${scheme}://localhost:${broker.port}/`
    const ana = await openTab(page)
    if (scheme === 'http') await ana.screenshot({ path: `${pictures}/login.png`, fullPage: true })
    await logIn(ana, 'ana')
    await ana.getByText('/agent/ana', { exact: true }).waitFor()
    await ana.getByText('Agent. Give this address to others').waitFor()
    assert.equal(await ana.getByRole('status').textContent(), 'Connected')

    const sue = await openTab(page)
    await logIn(sue, 'sue', 'Super agent')
    await sue.getByText('/agent/sue', { exact: true }).waitFor()
    await sue.getByLabel('Regular expression').check()
    await subscribe(sue, '/agent/a.*')
    const subscriptions = sue.getByRole('list', { name: 'Subscriptions' })
    await subscriptions.getByText('/agent/a.*').waitFor()
    await sue.getByLabel('Regular expression').uncheck()
    await subscribe(sue, '/topic/news')
    await subscriptions.getByText('/topic/news').waitFor()

    const bob = await openTab(page)
    await logIn(bob, 'bob', 'Service')
    await bob.getByText('/service/bob', { exact: true }).waitFor()
    await send(bob, '/agent/ana', '¿Qué tal, señora? ☎\n<b>not bold</b>')
    for (const tab of [ana, sue]) {
      const messages = tab.getByRole('log', { name: 'Incoming messages' })
      await messages.getByText('¿Qué tal, señora? ☎').waitFor()
      await messages.getByText('<b>not bold</b>').waitFor()
    }
    await sue.getByText('copy, was for /agent/ana', { exact: true }).waitFor()
    assert.equal(await ana.getByText('copy, was for').count(), 0)
    await outcome(bob, 'send').getByText('Delivered to 2 clients, copies included.').waitFor()
    assert.equal(await bob.getByLabel('Message', { exact: true }).inputValue(), '')
    await send(bob, '/topic/news', 'sunny')
    await sue.getByText('on /topic/news', { exact: true }).waitFor()
    await ana.getByRole('button', { name: 'Answer' }).click()
    assert.equal(await ana.getByLabel('To', { exact: true }).inputValue(), '/service/bob')
    await ana.keyboard.type('Muy bien')
    await ana.keyboard.press('Control+Enter')
    await bob.getByText('Muy bien').waitFor()
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
      const top = async (id) => (await ana.locator(id).boundingBox()).y
      assert.ok((await top('#inbox')) < (await top('#send')), 'messages stand above the forms')
    }

    await sue.getByRole('button', { name: 'Unsubscribe from /topic/news' }).click()
    await sue.getByText('unsubscribe from /topic/news: OK').waitFor()
    assert.equal(await subscriptions.getByRole('listitem').count(), 1)
    await send(bob, '/topic/news', 'rain')
    await outcome(bob, 'send')
      .getByText(/^Nobody got it: nobody listens to/)
      .waitFor()
    await subscribe(sue, '/topic/more')
    await sue.getByRole('button', { name: 'Unsubscribe from all' }).click()
    await sue.getByText('unsubscribe from /topic/more: OK').waitFor()
    assert.equal(await subscriptions.textContent(), '')

    const other = await openTab(page)
    await logIn(other, 'ana')
    await other.getByText('/agent/ana', { exact: true }).waitFor()
    await ana
      .getByRole('alert')
      .getByText(/newer connection/)
      .waitFor()
    await other.getByRole('button', { name: 'Log out' }).click()
    await other.getByRole('heading', { name: 'Log in' }).waitFor()
    assert.equal(await other.getByRole('status').textContent(), 'Not connected')
    assert.equal(await other.getByRole('alert').filter({ visible: true }).count(), 0)
    await broker.stop()
    await bob.getByRole('alert').getByText(/shut/).waitFor()
    assert.equal(await bob.getByRole('status').textContent(), 'Reconnecting…')
    await broker.start()
    await bob.getByText('Connected', { exact: true }).waitFor()
    assert.equal(await bob.locator('#notice').isVisible(), false)
    for (const tab of [ana, sue, bob, other]) assert.deepEqual(faultsOf(tab), [])
  })
}

/** Faults of a page, except that the broker is away. */
const faultsOf = (tab) => tab.faults.filter((fault) => !fault.includes('ERR_CONNECTION_REFUSED'))

test('what fails is told where it was asked for', { skip: isMissing }, async (t) => {
  const broker = await Broker.start(t)
  const openTab = await startChromium(t, broker)
  const tab = await openTab(`http://localhost:${broker.port}/`)
  const alert = tab.getByRole('alert')
  await tab.getByText('Broker and keys').click()
  await tab.getByLabel('Key of the profile').fill('wrong')
  await tab.getByRole('button', { name: 'Log in' }).click()
  await alert.getByText(/^The profile key .*wrong.*INVALID_PROFILE_KEY/).waitFor()
  await tab.getByLabel('Address of the broker').fill('nonsense://x')
  await tab.getByRole('button', { name: 'Log in' }).click()
  await alert.getByText(/nonsense/).waitFor()
  await tab.reload()
  await logIn(tab, 'ana')

  const text = tab.getByLabel('Message', { exact: true })
  await send(tab, '/agent/nobody', 'an important text')
  const sent = outcome(tab, 'send')
  await sent.getByText(/^Not delivered: nobody is at .*NO_SUCH_DESTINATION/).waitFor()
  assert.equal(await text.inputValue(), 'an important text')
  await send(tab, '/topic/nobody', 'an important text')
  await sent.getByText(/^Nobody got it/).waitFor()
  assert.equal(await text.inputValue(), 'an important text')
  assert.equal(await tab.getByText('/topic/nobody: OK').count(), 0)
  await send(tab, '/queue/jobs', 'a job')
  await sent.getByText(/^Kept in the queue/).waitFor()
  assert.equal(await text.inputValue(), '')

  // The broker ends the connection over a refusal; the page comes back with what it had.
  await subscribe(tab, '/topic/mine')
  const subscriptions = tab.getByRole('list', { name: 'Subscriptions' })
  await subscriptions.getByText('/topic/mine').waitFor()
  const subscribed = outcome(tab, 'watch')
  for (const [what, why] of [
    ['/agent/sue', /^Not subscribed: .*PROF_NO_RIGHTS/],
    ['/queue/jobs', /^Not subscribed: your profile.*PROF_NO_RIGHTS/],
  ]) {
    await subscribe(tab, what)
    await subscribed.getByText(why).waitFor()
  }
  await tab.getByText('logged in: ').nth(1).waitFor()
  await subscriptions.getByText('/topic/mine').waitFor()
  await send(tab, '/topic/mine', 'still here')
  await tab.getByText('on /topic/mine', { exact: true }).waitFor()
  assert.deepEqual(tab.faults, [])
})
