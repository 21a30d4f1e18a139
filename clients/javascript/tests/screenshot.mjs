/**
 * Takes the picture of the sample page that the README of the broker shows, docs/page.png.
 * Usage, after `cargo build` and `npm ci`: [BROKER=PROGRAM] npm run screenshot [FILE]
 */

import { statSync } from 'node:fs'
import { resolve } from 'node:path'

import { Client } from 'com-broker'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'

const file = resolve(process.argv[2] ?? resolve(import.meta.dirname, '../../../docs/page.png'))

/** Readers of the README load it with the page. */
const SIZE_MAX = 150_000

/** What ends when the picture is taken, the last first; the support for tests calls it as it calls a test. */
const ends = []
const scope = { after: (end) => ends.unshift(end) }

if (isMissing) throw new Error(isMissing)
try {
  const broker = await Broker.start(scope)
  const openTab = await startChromium(scope, broker, {
    viewport: { width: 1280, height: 800 },
    colorScheme: 'light',
  })
  const tab = await openTab(`http://localhost:${broker.port}/`)
  await showConversation(tab, broker)
  await tab.evaluate(() => scrollTo(0, 0))
  const { y: height } = await tab.locator('#history').boundingBox()
  const clip = { x: 0, y: 0, width: 1280, height }
  await tab.screenshot({ path: file, fullPage: true, clip })
  const { size } = statSync(file)
  if (size >= SIZE_MAX) throw new Error(`${file} has ${size} bytes, ${SIZE_MAX} are too many`)
  console.log(`${file}: ${size} bytes`)
} finally {
  for (const end of ends) await end()
}

/** A super agent who reads a topic, watches an agent, and asks a service. */
async function showConversation(tab, broker) {
  await tab.getByLabel('Name', { exact: true }).fill('sue')
  await tab.getByLabel('Super agent', { exact: true }).check()
  await tab.getByRole('button', { name: 'Log in' }).click()
  await tab.getByText('/agent/sue', { exact: true }).waitFor()
  await subscribe(tab, '/topic/news/*')
  await subscribe(tab, '/agent/ana')

  const ana = await open(broker, 'ana', 'agent')
  const orders = await open(broker, 'orders', 'service')
  await ana.send('/topic/news/weather', 'Sunny, 24 °C.')
  await tab.getByText('Sunny').waitFor()
  await orders.send('/agent/ana', '{"order": 4711, "state": "on its way"}', {
    contentType: 'application/json',
  })
  await tab.getByText('4711').waitFor()
  await ana.send('/agent/sue', 'Can you look at order 4711?')
  await tab.getByText('Can you look').waitFor()

  await tab.getByLabel('To', { exact: true }).fill('/service/orders')
  await tab.getByLabel('Message', { exact: true }).fill('When does 4711 arrive?')
  await tab.getByRole('button', { name: 'Send', exact: true }).click()
  await tab.getByText('Delivered to one client.', { exact: true }).waitFor()
}

async function subscribe(tab, name) {
  await tab.getByLabel('Topic, queue or address').fill(name)
  await tab.getByRole('button', { name: 'Subscribe', exact: true }).click()
  await tab.getByRole('list', { name: 'Subscriptions' }).getByText(name).waitFor()
}

async function open(broker, login, profile) {
  const client = new Client({
    ...broker.transports.ws,
    login,
    applicationKey: APPLICATION_KEY,
    profileKey: PROFILE_KEYS[profile],
  })
  scope.after(() => client.close())
  await client.connect()
  return client
}
