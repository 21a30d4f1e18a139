/** Why a connection failed: in Node the error says so. */

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'

import { Client, COM_BROKER_Client } from 'com-broker'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'
import { Mailbox, within } from './support/waiting.mjs'

/** What each class says of an address: the error of `Client`, the sentence of `COM_BROKER_Client`. */
async function failuresAt(url, options = {}) {
  const keys = { profileKey: PROFILE_KEYS.agent, applicationKey: APPLICATION_KEY }
  const client = new Client({ url, login: 'ana', ...keys, reconnect: false, ...options })
  const error = await within(
    'the failure',
    client.connect().catch((error) => error),
  )
  assert.equal(error.code, 'CONNECTION_FAILED', error.stack)
  const told = new Mailbox()
  const old = new COM_BROKER_Client('old', url, options)
  old.linkEvents(
    null,
    (...all) => told.put(all),
    (...all) => told.put(all),
  )
  old.connect('ana', keys.profileKey)
  const [sentence, details] = await told.take('onError')
  assert.deepEqual(details, { code: 'CONNECTION_FAILED' })
  assert.deepEqual((await told.take('onClosed')).slice(0, 2), ['', 1006])
  assert.equal(sentence, error.message)
  return error
}

/** The WebSockets of this Node: that of the package `ws`, and its own if it has one. */
const CLASSES = { ws: {} }
if (globalThis.WebSocket) CLASSES.node = { WebSocket: globalThis.WebSocket }

for (const [name, options] of Object.entries(CLASSES)) {
  test(`a port that nobody listens at is named, by ${name} [failure-explained]`, async (t) => {
    const broker = await Broker.start(t)
    await broker.kill()
    const { message, cause } = await failuresAt(broker.transports.ws.url, options)
    assert.equal(
      message,
      `ws://127.0.0.1:${broker.port}/: connection refused at 127.0.0.1:${broker.port}: ` +
        'is the broker running there?',
    )
    assert.equal(cause.code, 'ECONNREFUSED')
  })

  test(`a certificate that nobody vouches for is named, by ${name} [certificate-verified]`, async (t) => {
    const broker = await Broker.start(t)
    const { message, cause } = await failuresAt(broker.transports.wss.url, options)
    assert.match(message, /the certificate of localhost:\d+ is not trusted .*NODE_EXTRA_CA_CERTS/)
    assert.match(cause.code, /SELF_SIGNED|UNABLE_TO/)
  })

  test(`a broker that takes only TLS says so, by ${name} [failure-explained]`, async (t) => {
    const broker = await Broker.start(t, 'tls = "required"\n')
    const { message } = await failuresAt(broker.transports.ws.url, options)
    assert.match(message, /the answer is 403 Forbidden: only TLS is served on this port$/)
  })

  test(`a port that does not speak TLS is told from one that is not there, by ${name} [failure-explained]`, async (t) => {
    const broker = await Broker.start(t, 'tls = "off"\n')
    const { message } = await failuresAt(`wss://127.0.0.1:${broker.port}/`, options)
    assert.match(message, /no TLS with 127\.0\.0\.1:\d+ .*does this port speak it\?/)
  })

  test(`a server that is no broker is quoted, but not at length, by ${name}`, async (t) => {
    const body = 'go away '.repeat(100_000)
    for (const [type, wanted] of [
      ['text/plain', /the answer is 502 Bad Gateway: (go away ){10,}/],
      ['text/html', /the answer is 502 Bad Gateway$/],
    ]) {
      const server = createServer((_, response) => {
        response.writeHead(502, { 'content-type': type }).end(body)
      })
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
      t.after(() => server.close())
      const { message } = await failuresAt(`ws://127.0.0.1:${server.address().port}/`, options)
      assert.match(message, wanted)
      assert.ok(message.length < 1000)
    }
  })
}

test('a certificate that was made for another name is named [certificate-verified]', async (t) => {
  const broker = await Broker.start(t, '', '127.0.0.9')
  const { WebSocket } = broker.transports.wss
  const url = `wss://127.0.0.9:${broker.port}/`
  const { message } = await failuresAt(url, { WebSocket })
  assert.match(message, /the certificate of 127\.0\.0\.9:\d+ is not made for 127\.0\.0\.9/)
})

test('browsers know no cause, and the error says what to look at', {
  skip: isMissing,
}, async (t) => {
  const broker = await Broker.start(t)
  const openTab = await startChromium(t, broker)
  const tab = await openTab(`http://localhost:${broker.port}/`)
  const message = await tab.evaluate(async () => {
    const keys = { profileKey: 'x', applicationKey: 'x' }
    const url = 'ws://localhost:1/'
    const client = new globalThis.ComBroker.Client({ url, login: 'x', ...keys, reconnect: false })
    return client.connect().catch((error) => error.message)
  })
  assert.match(message, /^ws:\/\/localhost:1\/: .*browsers do not say why: is the broker running/)
})
