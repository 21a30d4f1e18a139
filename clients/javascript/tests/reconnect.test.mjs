/** The client for new programs when brokers restart, shut down, and networks break. */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'

import { Client } from 'com-broker'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { isMissing, startChromium } from './support/chromium.mjs'
import { Network } from './support/network.mjs'
import { Mailbox, nextEvent, until, within } from './support/waiting.mjs'

const QUICKLY = { minDelay: 10, maxDelay: 50, laterDelay: 20 }

async function open(t, transport, login, { profile = 'agent', ...options } = {}) {
  const client = new Client({
    ...transport,
    login,
    profileKey: PROFILE_KEYS[profile],
    applicationKey: APPLICATION_KEY,
    reconnect: QUICKLY,
    ...options,
  })
  t.after(() => client.close())
  await client.connect()
  return client
}

for (const kind of ['ws', 'wss']) {
  describe(`over ${kind}`, () => {
    test('a broker that dies and comes back finds everybody again [comes-back] [subscriptions-survive]', async (t) => {
      const broker = await Broker.start(t)
      const transport = broker.transports[kind]
      const ana = await open(t, transport, 'ana', { profile: 'service' })
      const eve = await open(t, transport, 'eve', { profile: 'service' })
      const boxes = { topic: new Mailbox(), queue: new Mailbox(), inbox: new Mailbox() }
      const copies = new Mailbox()
      const events = new Mailbox()
      await ana.subscribe('/topic/news/>', {}, boxes.topic.put)
      await ana.subscribe('/queue/jobs', { ack: 'client-individual' }, boxes.queue.put)
      await eve.watch('/agent/bob', copies.put)
      await eve.presence({ pattern: '/agent/.*' }, events.put)
      ana.addEventListener('message', ({ detail }) => boxes.inbox.put(detail))

      const lost = [ana, eve].map((client) => nextEvent(client, 'reconnecting'))
      await broker.kill()
      for (const event of await Promise.all(lost)) {
        assert.equal(event.detail.error.code, 'CONNECTION_LOST')
        assert.equal(event.detail.retry, undefined)
      }
      // What is sent while the broker is away waits.
      const waiting = ['1', '2'].map((text) => ana.send('/topic/news/today', text))
      await until('a few attempts', () => ana.state === 'connecting')
      const back = [ana, eve].map((client) => nextEvent(client, 'open'))
      await broker.start()
      for (const event of await Promise.all(back)) assert.equal(event.detail.reconnected, true)
      for (const sent of waiting) assert.deepEqual(await sent, { delivered: 1 })
      for (const text of ['1', '2']) assert.equal((await boxes.topic.take()).text, text)

      const bob = await open(t, transport, 'bob')
      assert.equal((await events.take()).login, 'bob')
      await bob.send('/agent/bob', 'to myself')
      assert.equal((await copies.take()).text, 'to myself')
      await bob.send('/queue/jobs', 'work')
      await (await boxes.queue.take()).ack()
      await bob.send('/service/ana', 'hola')
      assert.equal((await boxes.inbox.take()).text, 'hola')
      for (const box of [...Object.values(boxes), copies, events]) assert.deepEqual(box.rest, [])
    })

    test('a broker that drains sends everybody to the next one [drain-survived]', async (t) => {
      const broker = await Broker.start(t)
      const ana = await open(t, broker.transports[kind], 'ana')
      const inbox = ana.messages()
      const lost = nextEvent(ana, 'reconnecting')
      const stopped = broker.stop()
      const { error, retry, delay, attempt } = (await lost).detail
      assert.deepEqual([error.code, retry, delay, attempt], ['DRAINING', 'now', 0, 1])
      await stopped
      const back = nextEvent(ana, 'open')
      await broker.start()
      await back
      await ana.send('/agent/ana', 'still here')
      assert.equal((await inbox.next()).value.text, 'still here')
    })

    test('a network that loses everything is noticed, and left [silence-noticed]', async (t) => {
      const broker = await Broker.start(t)
      const network = await Network.start(t, broker.port)
      const { url, ...transport } = broker.transports[kind]
      const detour = { ...transport, url: url.replace(`:${broker.port}`, `:${network.port}`) }
      const heartBeat = { incoming: 1000 }
      const ana = await open(t, detour, 'ana', { heartBeat, connectTimeout: 1000 })
      const bob = await open(t, broker.transports[kind], 'bob')
      const heard = new Mailbox()
      ana.addEventListener('message', ({ detail }) => heard.put(detail.text))
      const session = ana.session.id
      network.blackhole()
      const lost = nextEvent(ana, 'reconnecting')
      const unconfirmed = assert.rejects(ana.send('/agent/bob', 'into the void'), {
        code: 'UNCONFIRMED',
      })
      assert.match((await lost).detail.error.message, /nothing is heard/)
      await unconfirmed
      const back = nextEvent(ana, 'open')
      network.heal()
      await back
      // To the broker it is the same client, which takes its own session over.
      assert.equal(ana.session.id, session)
      await bob.send('/agent/ana', 'hola')
      assert.equal(await heard.take(), 'hola')
    })

    test('nothing is sent twice, whatever breaks [never-sent-twice]', async (t) => {
      const broker = await Broker.start(t)
      const network = await Network.start(t, broker.port)
      const { url, ...transport } = broker.transports[kind]
      const detour = { ...transport, url: url.replace(`:${broker.port}`, `:${network.port}`) }
      const receiver = await open(t, broker.transports[kind], 'receiver')
      const arrived = []
      receiver.addEventListener('message', ({ detail }) => arrived.push(detail.text))
      const sender = await open(t, detour, 'sender')
      const outcomes = { confirmed: [], unconfirmed: [] }
      const sendMany = (round) =>
        Array.from({ length: 50 }, async (_, index) => {
          const text = `${round}-${index}`
          try {
            await sender.send('/agent/receiver', text)
            outcomes.confirmed.push(text)
          } catch (error) {
            assert.equal(error.code, 'UNCONFIRMED')
            outcomes.unconfirmed.push(text)
          }
        })
      for (let round = 0; round < 10; round++) {
        const before = arrived.length
        // Receipts get lost, so that the client cannot know what became of what it sent.
        network.losesAnswers = round % 2 === 0
        const sent = sendMany(round)
        await until('some messages', () => arrived.length > before)
        const lost = nextEvent(sender, 'reconnecting')
        network.heal()
        network.cut()
        await lost
        sent.push(...sendMany(`${round}-away`))
        await Promise.all(sent)
      }
      // Arrives after everything that may still be on its way.
      await sender.send('/agent/receiver', 'last')
      await until('the last message', () => arrived.includes('last'))
      assert.equal(new Set(arrived).size, arrived.length, 'something came twice')
      const missing = outcomes.confirmed.filter((text) => !arrived.includes(text))
      assert.deepEqual(missing, [])
      assert.ok(outcomes.unconfirmed.length > 0 && outcomes.confirmed.length > 500)
    })

    test('a slow consumer is cut off, told so, and comes back [slow-consumer-returns]', async (t) => {
      const bounds = 'hard_bytes_max = "256 KiB"\nsoft_bytes_max = "128 KiB"'
      const limits = `[limits]\nbody_bytes_max = "64 KiB"\n[limits.outbound.agent]\n${bounds}`
      const broker = await Broker.start(t, limits)
      const { url, WebSocket } = broker.transports[kind]
      const sockets = []
      class Pausable extends WebSocket {
        constructor(...all) {
          super(...all)
          sockets.push(this)
        }
      }
      const slow = await open(t, { url, WebSocket: Pausable }, 'slow')
      const fast = await open(t, broker.transports[kind], 'fast')
      const lost = nextEvent(slow, 'reconnecting')
      sockets[0].pause()
      const body = 'x'.repeat(60_000)
      // First the kernel's buffers fill up, then the broker's queue.
      await until('the end of patience', async () => {
        const options = { undeliverable: 'ignore' }
        return (await fast.send('/agent/slow', body, options)).delivered === 0
      })
      const back = nextEvent(slow, 'open')
      sockets[0].resume()
      const { error, retry } = (await lost).detail
      assert.deepEqual([error.code, retry], ['SLOW_CONSUMER', 'now'])
      await back
      await fast.send('/agent/slow', 'hola')
    })
  })
}

/**
 * A client behind a network that can hide the end of connections from the broker. It is a super agent,
 * because a service cannot take its login over.
 */
async function openBehind(t, broker, login) {
  const network = await Network.start(t, broker.port)
  const { url, WebSocket } = broker.transports.ws
  const sockets = []
  class Remembered extends WebSocket {
    constructor(...all) {
      super(...all)
      sockets.push(this)
    }
  }
  const transport = {
    url: url.replace(`:${broker.port}`, `:${network.port}`),
    WebSocket: Remembered,
  }
  const client = await open(t, transport, login, { profile: 'super agent' })
  return { client, network, sockets }
}

for (const [what, end] of [
  [
    'while away',
    async (subscription, breaks) => {
      await breaks()
      await subscription.unsubscribe()
    },
  ],
  [
    'as the connection breaks',
    async (subscription, breaks) => {
      const ended = subscription.unsubscribe()
      await breaks()
      await ended
    },
  ],
]) {
  for (const [kind, subscribe, hear] of [
    ['a topic', (client) => client.subscribe('/topic/x'), (bob) => bob.send('/topic/x', 'x')],
    [
      'a pattern of topics',
      (client) => client.subscribe('/topic/x.>'),
      (bob) => bob.send('/topic/x/y', 'x'),
    ],
    ['a queue', (client) => client.subscribe('/queue/x'), (bob) => bob.send('/queue/x', 'x')],
    ['a client that is watched', (client) => client.watch('/agent/bob'), undefined],
  ]) {
    test(`unsubscribe() from ${kind} ${what} leaves nothing at the broker [unsubscribed-stays-so]`, async (t) => {
      const broker = await Broker.start(t)
      const arrived = []
      const { client, network, sockets } = await openBehind(t, broker, 'ana')
      const bob = await open(t, broker.transports.ws, 'bob')
      const kept = new Mailbox()
      await client.subscribe('/topic/kept', {}, ({ text }) => kept.put(text))
      const subscription = await subscribe(client)
      const { session } = client
      const back = nextEvent(client, 'open')
      // The broker does not hear of the end, so that the session is there when the client returns.
      network.blackhole()
      await end(subscription, async () => {
        const lost = nextEvent(client, 'reconnecting')
        sockets.at(-1).terminate()
        await lost
        network.heal()
      })
      await back
      assert.equal(client.session.id, session.id, 'it is the same session')
      await until('the new socket', () => sockets.at(-1).readyState === 1)
      sockets.at(-1).on('message', (data) => arrived.push(String(data)))
      // The broker handles frames in order: after this one everything is ended.
      await client.send('/topic/nobody', 'x')
      if (hear) assert.deepEqual(await hear(bob), { delivered: 0 })
      await bob.send('/agent/bob', 'to myself')
      await bob.send('/topic/kept', 'still here')
      assert.equal(await kept.take(), 'still here')
      const messages = arrived.filter((text) => text.startsWith('MESSAGE'))
      assert.equal(messages.length, 1, messages.join('\n'))
      if (kind !== 'a queue') return
      const worker = await open(t, broker.transports.ws, 'worker', { profile: 'service' })
      const jobs = (await worker.subscribe('/queue/x'))[Symbol.asyncIterator]()
      assert.equal((await within('the job', jobs.next())).value.text, 'x')
    })
  }
}

test('a queue loses nothing to a subscription that ended while away', async (t) => {
  const broker = await Broker.start(t)
  const { client, network, sockets } = await openBehind(t, broker, 'ana')
  const bob = await open(t, broker.transports.ws, 'bob')
  const jobs = await client.subscribe('/queue/x', { ack: 'client-individual', prefetch: 1 })
  const lost = nextEvent(client, 'reconnecting')
  const back = nextEvent(client, 'open')
  network.blackhole()
  sockets.at(-1).terminate()
  await lost
  await jobs.unsubscribe()
  for (const text of ['1', '2', '3']) await bob.send('/queue/x', text)
  network.heal()
  await back
  const worker = await open(t, broker.transports.ws, 'worker', { profile: 'service' })
  const rest = (await worker.subscribe('/queue/x'))[Symbol.asyncIterator]()
  const texts = []
  for (let count = 0; count < 3; count++) {
    texts.push((await within('a job', rest.next())).value.text)
  }
  assert.deepEqual(texts, ['1', '2', '3'])
})

test('nothing is missed by who takes its own session over [resumes-own-session]', async (t) => {
  const broker = await Broker.start(t)
  const { client, network, sockets } = await openBehind(t, broker, 'ana')
  const bob = await open(t, broker.transports.ws, 'bob')
  const heard = new Mailbox()
  await client.subscribe('/topic/x', {}, ({ text }) => heard.put(text))
  for (let round = 0; round < 5; round++) {
    const back = nextEvent(client, 'open')
    network.blackhole()
    sockets.at(-1).terminate()
    network.heal()
    await back
    // Sent before the broker has read the SUBSCRIBE of this connection, or just after it.
    assert.deepEqual(await bob.send('/topic/x', `${round}`), { delivered: 1 })
    assert.equal(await heard.take(), `${round}`)
  }
  assert.deepEqual(heard.rest, [])
})

for (const kind of ['ws', 'wss']) {
  test(`outgoingBytesMax is kept while the network takes nothing, over ${kind} [outgoing-bounded]`, async (t) => {
    const broker = await Broker.start(t)
    const network = await Network.start(t, broker.port)
    const { url, WebSocket } = broker.transports[kind]
    const sockets = []
    class Remembered extends WebSocket {
      constructor(...all) {
        super(...all)
        sockets.push(this)
      }
    }
    const detour = {
      url: url.replace(`:${broker.port}`, `:${network.port}`),
      WebSocket: Remembered,
    }
    const outgoingBytesMax = 256 * 1024
    const ana = await open(t, detour, 'ana', { outgoingBytesMax })
    network.stall()
    const body = 'x'.repeat(64 * 1024)
    const outcomes = []
    let refused
    let most = 0
    await until('a refusal', () => {
      for (let count = 0; count < 10; count++) {
        const sent = ana.send('/topic/x', body)
        outcomes.push(sent.then(() => 'sent').catch(({ code }) => code))
        sent.catch((error) => {
          refused ??= error
        })
        most = Math.max(most, sockets[0].bufferedAmount)
      }
      return refused && outcomes.length > 500
    })
    assert.equal(refused.code, 'OUTGOING_FULL')
    assert.match(refused.message, /outgoingBytesMax/)
    assert.ok(most <= outgoingBytesMax + 1024, `${most} bytes wait`)
    network.flow()
    const counts = { sent: 0, OUTGOING_FULL: 0 }
    for (const outcome of await within('the outcomes', Promise.all(outcomes))) counts[outcome]++
    assert.equal(counts.sent + counts.OUTGOING_FULL, outcomes.length)
    assert.ok(counts.sent > 0 && counts.OUTGOING_FULL > 0)
    await ana.send('/topic/x', body)
  })
}

test('outgoingBytesMax is kept in a browser, too [outgoing-bounded]', {
  skip: isMissing,
}, async (t) => {
  const broker = await Broker.start(t)
  const network = await Network.start(t, broker.port)
  const openTab = await startChromium(t, broker)
  const tab = await openTab(`http://localhost:${broker.port}/`)
  const outgoingBytesMax = 256 * 1024
  const url = `ws://127.0.0.1:${network.port}/`
  const keys = { applicationKey: APPLICATION_KEY, profileKey: PROFILE_KEYS.agent }
  await tab.evaluate(
    async (options) => {
      class Remembered extends WebSocket {
        constructor(...all) {
          super(...all)
          globalThis.socket = this
        }
      }
      globalThis.client = new ComBroker.Client({ ...options, WebSocket: Remembered })
      await globalThis.client.connect()
    },
    { url, login: 'ana', ...keys, outgoingBytesMax },
  )
  network.stall()
  const { code, most } = await tab.evaluate(async () => {
    const body = 'x'.repeat(64 * 1024)
    let refused
    let most = 0
    while (!refused) {
      globalThis.client.send('/topic/x', body).catch((error) => {
        refused ??= error
      })
      most = Math.max(most, globalThis.socket.bufferedAmount)
      await new Promise((resolve) => setTimeout(resolve))
    }
    return { code: refused.code, most }
  })
  assert.equal(code, 'OUTGOING_FULL')
  assert.ok(most <= outgoingBytesMax + 1024, `${most} bytes wait`)
  network.flow()
  await until('room', () =>
    tab.evaluate(() =>
      globalThis.client.send('/topic/x', 'x').then(
        () => true,
        () => false,
      ),
    ),
  )
})

test('a service whose login is still held comes back later [retry-obeyed]', async (t) => {
  const broker = await Broker.start(t)
  const holder = await open(t, broker.transports.ws, 'eve', { profile: 'service' })
  const options = { profile: 'service', reconnect: QUICKLY }
  const later = new Client({
    ...broker.transports.ws,
    login: 'eve',
    profileKey: PROFILE_KEYS.service,
    applicationKey: APPLICATION_KEY,
    ...options,
  })
  t.after(() => later.close())
  const put = nextEvent(later, 'reconnecting')
  const connected = later.connect()
  const { error, retry, delay } = (await put).detail
  assert.deepEqual([error.code, retry], ['LOGIN_ID_ALREADY_LOGGED', 'later'])
  assert.ok(delay >= QUICKLY.laterDelay)
  await holder.close()
  assert.equal((await connected).address, '/service/eve')
})

test('a program ends by itself when its clients are closed [close-releases]', async (t) => {
  const broker = await Broker.start(t)
  const program = `
    import { Client, COM_BROKER_Client } from 'com-broker'
    const options = { url: '${broker.transports.ws.url}', applicationKey: '${APPLICATION_KEY}' }
    const client = new Client({ ...options, login: 'ana', profileKey: '${PROFILE_KEYS.agent}' })
    await client.connect()
    const pending = client.request('/agent/ana', 'x', { timeout: 60000 }).catch(({ code }) => code)
    await client.send('/agent/ana', 'x')
    await client.close()
    console.log(await pending)
    const away = new Client({ ...options, url: 'ws://127.0.0.1:1/', login: 'x', profileKey: 'x' })
    away.addEventListener('reconnecting', () => away.close())
    await away.connect().catch(({ code }) => console.log(code))
    const old = new COM_BROKER_Client('old', options.url)
    old.linkEvents(() => old.diconnectToServer(), (session, code) => console.log(code))
    old.connect('bob', '${PROFILE_KEYS.agent}')`
  const run = promisify(execFile)
  const arguments_ = ['--input-type=module', '--eval', program]
  const directory = import.meta.dirname
  const { stdout } = await run(process.execPath, arguments_, { cwd: directory, timeout: 20_000 })
  assert.equal(stdout, 'CLOSED\nCLOSED\n1000\n')
})
