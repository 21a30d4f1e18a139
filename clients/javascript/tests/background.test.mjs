/** A page in the background, in headless Chromium: its timers stand still, its session does not end. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Client } from 'com-broker'
import { WebSocket as WebSocketOfNode } from 'ws'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'
import { until, within } from './support/waiting.mjs'

/** How often, and for how long, the broker asks whether a client is still there. */
const LIMITS = '[limits]\nwebsocket_ping_ms = 500\nwebsocket_pong_ms_max = 1000\n'

/** How many intervals the page stays frozen: more than the silence that a client accepts. */
const BEATS = 8

const INTERVAL_MS = 1000

const BEAT = Buffer.from('\n')

for (const scheme of ['http', 'https']) {
  test(`a frozen page keeps its session over ${scheme}, and misses nothing`, {
    skip: isMissing,
  }, async (t) => {
    const broker = await Broker.start(t, LIMITS)
    const openTab = await startChromium(t, broker)
    const tab = await openTab(`${scheme}://localhost:${broker.port}/`)
    const options = {
      applicationKey: APPLICATION_KEY,
      profileKey: PROFILE_KEYS.agent,
      heartBeat: { incoming: INTERVAL_MS },
    }
    const session = await tab.evaluate(async (given) => {
      const url = location.origin.replace('http', 'ws')
      globalThis.happened = []
      globalThis.ticks = 0
      setInterval(() => globalThis.ticks++, 100)
      const client = new globalThis.ComBroker.Client({ ...given, url, login: 'ana' })
      for (const type of ['reconnecting', 'close']) {
        client.addEventListener(type, () => globalThis.happened.push(type))
      }
      client.addEventListener('message', ({ detail }) => globalThis.happened.push(detail.text))
      return (await client.connect()).id
    }, options)

    // A client that is awake counts the time by what the broker sends.
    let beats = 0
    class Counting extends WebSocketOfNode {
      constructor(...all) {
        super(...all)
        this.on('message', (data) => {
          if (Buffer.from(data).equals(BEAT)) beats += 1
        })
      }
    }
    const bob = new Client({
      ...options,
      url: `ws://localhost:${broker.port}/`,
      login: 'bob',
      WebSocket: Counting,
    })
    t.after(() => bob.close())
    await bob.connect()

    const devtools = await tab.context().newCDPSession(tab)
    // Headless pages are never in the background. A page that the debugger halts behaves alike: no
    // timer fires, nothing that arrives is handled, time goes on.
    await devtools.send('Debugger.enable')
    const paused = new Promise((resolve) => devtools.once('Debugger.paused', resolve))
    await devtools.send('Debugger.pause')
    await within('the pause', paused)
    const first = beats
    await until('beats of the broker', () => beats >= first + BEATS / 2)
    await bob.send('/agent/ana', 'while you slept')
    await until('more beats of the broker', () => beats >= first + BEATS)
    await devtools.send('Debugger.resume')

    const happened = () => tab.evaluate(() => globalThis.happened)
    await until('the message', async () => (await happened()).includes('while you slept'))
    await bob.send('/agent/ana', 'and now')
    await until('the next message', async () => (await happened()).length > 1)
    assert.deepEqual(await happened(), ['while you slept', 'and now'])
    const ticks = await tab.evaluate(() => globalThis.ticks)
    t.diagnostic(`${ticks} ticks of 100 ms while the broker beat ${beats} times`)
    assert.ok(ticks < ((BEATS / 2) * INTERVAL_MS) / 100, 'the page was frozen')
    assert.match(session, /^[0-9a-f]{32}$/)
  })
}
