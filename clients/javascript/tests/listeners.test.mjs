/** Callbacks that throw, or whose promises reject: it is reported, and the client goes on. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Client, COM_BROKER_Client } from 'com-broker'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'
import { Mailbox, nextEvent, until } from './support/waiting.mjs'

const FAULTS = [
  [
    'throws',
    (error) => () => {
      throw error
    },
  ],
  [
    'is async and rejects',
    (error) => async () => {
      throw error
    },
  ],
  [
    'is an object whose handleEvent throws',
    (error) => ({
      handleEvent() {
        throw error
      },
    }),
  ],
]

function make(t, broker, login, options = {}) {
  const client = new Client({
    ...broker.transports.ws,
    login,
    profileKey: PROFILE_KEYS.service,
    applicationKey: APPLICATION_KEY,
    reconnect: { minDelay: 1, maxDelay: 10 },
    ...options,
  })
  t.after(() => client.close())
  return client
}

for (const [what, faulty] of FAULTS) {
  test(`a listener that ${what} of each event [callback-contained]`, async (t) => {
    const broker = await Broker.start(t)
    const reported = new Mailbox()
    const ana = make(t, broker, 'ana', { onListenerError: reported.put })
    for (const type of ['open', 'message', 'reconnecting', 'close']) {
      ana.addEventListener(type, faulty(type))
    }
    await ana.connect()
    assert.equal(await reported.take(), 'open')
    const heard = new Mailbox()
    ana.addEventListener('message', ({ detail }) => heard.put(detail.text))
    for (const text of ['1', '2']) {
      await ana.send('/service/ana', text)
      assert.equal(await reported.take(), 'message')
      assert.equal(await heard.take(), text)
    }
    const back = nextEvent(ana, 'open')
    await broker.kill()
    assert.equal(await reported.take(), 'reconnecting')
    await broker.start()
    await back
    await until('the end of what is reported', () => reported.rest.includes('open'))
    await ana.send('/service/ana', 'after')
    assert.equal(await heard.take(), 'after')
    await ana.close()
    await until('close', () => reported.rest.includes('close'))
  })
}

test('a listener can be removed, also one that throws', async (t) => {
  const broker = await Broker.start(t)
  const reported = new Mailbox()
  const ana = make(t, broker, 'ana', { onListenerError: reported.put })
  const heard = []
  const listener = function ({ detail }) {
    heard.push([this === ana, detail.text])
    throw new Error('once')
  }
  ana.addEventListener('message', listener)
  ana.addEventListener('message', listener)
  await ana.connect()
  await ana.send('/service/ana', '1')
  await reported.take()
  ana.removeEventListener('message', listener)
  await ana.send('/service/ana', '2')
  assert.deepEqual(heard, [[true, '1']])
  assert.deepEqual(reported.rest, [])
})

for (const [what, faulty] of FAULTS.slice(0, 2)) {
  test(`a listener that ${what} of each kind of subscription [callback-contained]`, async (t) => {
    const broker = await Broker.start(t)
    const reported = new Mailbox()
    const ana = make(t, broker, 'ana', { onListenerError: reported.put })
    await ana.connect()
    await ana.subscribe('/topic/x', {}, faulty('topic'))
    await ana.subscribe('/queue/x', {}, faulty('queue'))
    await ana.watch('/agent/bob', faulty('copy'))
    await ana.presence({ pattern: '/agent/bob' }, faulty('presence'))
    const bob = make(t, broker, 'bob', { profileKey: PROFILE_KEYS.agent })
    await bob.connect()
    assert.equal(await reported.take(), 'presence')
    for (const [destination, kind] of [
      ['/topic/x', 'topic'],
      ['/queue/x', 'queue'],
      ['/agent/bob', 'copy'],
      ['/topic/x', 'topic'],
    ]) {
      await bob.send(destination, 'x')
      assert.equal(await reported.take(), kind)
    }
    assert.equal(ana.state, 'open')
  })

  test(`a callback of COM_BROKER_Client that ${what} [callback-contained]`, async (t) => {
    const broker = await Broker.start(t)
    const { url, WebSocket } = broker.transports.ws
    const reported = new Mailbox()
    const old = new COM_BROKER_Client('old', url, { WebSocket, onListenerError: reported.put })
    const names = ['onOpen', 'onClosed', 'onError', 'onMessage', 'onACK']
    old.linkEvents(...names.map((name) => faulty(name)))
    old.send('/agent/x', 'x')
    assert.equal(await reported.take(), 'onError')
    old.connect('old', PROFILE_KEYS.agent)
    assert.equal(await reported.take(), 'onOpen')
    for (let count = 0; count < 2; count++) {
      old.send('/agent/old', 'x')
      assert.deepEqual([await reported.take(), await reported.take()], ['onMessage', 'onACK'])
      old.send('/agent/nobody', 'x')
      assert.equal(await reported.take(), 'onError')
    }
    old.disconnect()
    assert.equal(await reported.take(), 'onClosed')
    const never = new COM_BROKER_Client('x', 'nonsense', { onListenerError: reported.put })
    never.linkEvents(...names.map((name) => faulty(name)))
    never.connect('x', 'x')
    assert.deepEqual([await reported.take(), await reported.take()], ['onError', 'onClosed'])
  })
}

test('without a place to report to it is written to the console, as is what that throws', async (t) => {
  const broker = await Broker.start(t)
  const lines = new Mailbox()
  t.mock.method(console, 'error', (...all) => lines.put(all))
  const fault = new Error('mine')
  const ana = make(t, broker, 'ana')
  const bob = make(t, broker, 'bob', {
    onListenerError: () => {
      throw fault
    },
  })
  for (const client of [ana, bob]) {
    client.addEventListener('open', () => {
      throw fault
    })
    await client.connect()
    const [sentence, error] = await lines.take()
    assert.match(sentence, /^com-broker: a callback/)
    assert.equal(error, fault)
    assert.equal(client.state, 'open')
  }
})

test('in a browser it is told as any uncaught error is', { skip: isMissing }, async (t) => {
  const broker = await Broker.start(t)
  const openTab = await startChromium(t, broker)
  const tab = await openTab(`http://localhost:${broker.port}/`)
  const keys = { applicationKey: APPLICATION_KEY, profileKey: PROFILE_KEYS.agent }
  const heard = await tab.evaluate(async (given) => {
    const url = location.origin.replace('http', 'ws')
    const client = new globalThis.ComBroker.Client({ ...given, url, login: 'ana' })
    client.addEventListener('message', ({ detail }) => {
      throw new Error(`event ${detail.text}`)
    })
    await client.connect()
    await client.subscribe('/topic/x', {}, async ({ text }) => {
      throw new Error(`topic ${text}`)
    })
    const inbox = client.messages()
    await client.send('/topic/x', '1')
    await client.send('/agent/ana', '2')
    await client.send('/agent/ana', '3')
    return [await inbox.next(), await inbox.next()].map(({ value }) => value.text)
  }, keys)
  assert.deepEqual(heard, ['2', '3'])
  await until('the errors', () => tab.faults.length === 3)
  for (const text of ['topic 1', 'event 2', 'event 3']) {
    assert.ok(
      tab.faults.some((fault) => fault.includes(text)),
      text,
    )
  }
})
