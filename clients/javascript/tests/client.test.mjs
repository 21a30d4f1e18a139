/** The client for new programs, against the broker: what it does while the connection is good. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { inspect } from 'node:util'

import {
  BrokerError,
  Client,
  ClosedError,
  COM_BROKER_Client,
  OverflowError,
  TimeoutError,
} from 'com-broker'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { Mailbox, nextEvent, within } from './support/waiting.mjs'

let lastLogin = 0
const name = (text) => {
  lastLogin += 1
  return `${text}-${lastLogin}`
}

const hasCode = (code) => (error) => {
  assert.equal(error.code, code, error.stack)
  return true
}

for (const transport of ['ws', 'wss']) {
  describe(`Client over ${transport}`, () => {
    let broker
    before(async () => {
      broker = new Broker('')
      await broker.start()
    })
    after(() => broker.remove())

    /** A client that is closed with the test. */
    const make = (t, login, { profile = 'agent', ...options } = {}) => {
      const client = new Client({
        ...broker.transports[transport],
        login,
        profileKey: PROFILE_KEYS[profile],
        applicationKey: APPLICATION_KEY,
        ...options,
      })
      t.after(() => client.close())
      return client
    }
    const open = async (t, login, options) => {
      const client = make(t, login, options)
      await client.connect()
      return client
    }

    for (const [profile, place] of [
      ['agent', 'agent'],
      ['super agent', 'agent'],
      ['service', 'service'],
      ['admin', 'admin'],
    ]) {
      test(`${profile} logs in and out`, async (t) => {
        const login = name('ana')
        const client = make(t, login, { profile })
        assert.equal(client.state, 'idle')
        const opened = nextEvent(client, 'open')
        const session = await client.connect()
        const { detail } = await opened
        assert.deepEqual(detail, { session, reconnected: false })
        assert.equal(session.address, `/${place}/${login}`)
        assert.equal(session.login, login)
        assert.equal(session.profile, profile)
        assert.match(session.id, /^[0-9a-f]{32}$/)
        assert.match(session.server, /^com-broker\//)
        assert.equal(client.state, 'open')
        assert.equal(await client.connect(), session)
        const closed = nextEvent(client, 'close')
        await client.close()
        assert.deepEqual((await closed).detail, { error: undefined, code: 1000 })
        assert.equal(client.state, 'closed')
        await client.close()
        await assert.rejects(client.send('/agent/x', 'x'), ClosedError)
        await client.connect()
        assert.equal(client.state, 'open')
      })
    }

    test('a wrong key rejects, and is not tried again [login-refused]', async (t) => {
      for (const [wrong, code] of [
        [{ applicationKey: 'wrong' }, 'INVALID_APP_KEY'],
        [{ profileKey: 'wrong' }, 'INVALID_PROFILE_KEY'],
      ]) {
        const client = make(t, name('ana'), wrong)
        const closed = nextEvent(client, 'close')
        await assert.rejects(client.connect(), (error) => {
          assert.ok(error instanceof BrokerError)
          assert.equal(error.retry, 'never')
          return hasCode(code)(error)
        })
        const { error, code: closeCode } = (await closed).detail
        assert.equal(error.code, code)
        assert.ok(closeCode >= 4000 && closeCode < 4100, `${closeCode}`)
        assert.equal(client.state, 'closed')
      }
    })

    test('messages arrive as events and in iterators [headers-pass]', async (t) => {
      const [ana, bob] = [name('ana'), name('bob')]
      const receiver = await open(t, ana)
      const sender = await open(t, bob)
      const inbox = receiver.messages()
      const event = nextEvent(receiver, 'message')
      const text = '¿qué tal, señora? ☎ 🙂'
      const headers = { color: 'x\\y:z\nw\r' }
      assert.deepEqual(await sender.send(`/agent/${ana}`, text, { headers }), { delivered: 1 })
      const { value: message } = await within('the message', inbox.next())
      assert.equal((await event).detail, message)
      assert.equal(message.text, text)
      assert.equal(message.headers.color, headers.color)
      assert.equal(message.contentType, 'text/plain;charset=utf-8')
      assert.equal(message.origin, bob)
      assert.equal(message.originDestination, `/agent/${bob}`)
      assert.equal(message.destination, `/agent/${ana}`)
      assert.equal(message.redelivered, false)
      await sender.send(`/agent/${ana}`, '{"a":[1]}', { contentType: 'application/json' })
      const { value: second } = await inbox.next()
      assert.deepEqual(second.json(), { a: [1] })
      assert.equal(second.contentType, 'application/json')
      await receiver.close()
      assert.deepEqual(await inbox.next(), { done: true, value: undefined })
    })

    test('bodies of a mebibyte arrive whole, text and binary [bodies-unchanged]', async (t) => {
      const login = name('ana')
      const client = await open(t, login)
      const inbox = client.messages()
      const bytes = Uint8Array.from({ length: 1024 * 1024 }, (_, index) => (index * 7) % 256)
      for (const body of ['ñ'.repeat(512 * 1024), bytes, bytes.buffer, new Uint8Array(0), '']) {
        await client.send(`/agent/${login}`, body)
        const { value: message } = await inbox.next()
        const wanted = typeof body === 'string' ? Buffer.from(body) : Buffer.from(body)
        assert.ok(Buffer.compare(message.bytes, wanted) === 0)
      }
    })

    test('nobody at an address is an error, unless that is no matter [nobody-there]', async (t) => {
      const client = await open(t, name('ana'))
      await assert.rejects(client.send('/agent/nobody', 'x'), hasCode('NO_SUCH_DESTINATION'))
      const options = { undeliverable: 'ignore' }
      assert.deepEqual(await client.send('/agent/nobody', 'x', options), { delivered: 0 })
      assert.deepEqual(await client.send('/topic/nobody', 'x'), { delivered: 0 })
      assert.equal(client.state, 'open')
    })

    test('requests get their replies, each its own [request-replied]', async (t) => {
      const [ana, service] = [name('ana'), name('sums')]
      const server = await open(t, service, { profile: 'service' })
      server.addEventListener('message', async ({ detail: message }) => {
        const { a, b } = message.json()
        await message.reply(JSON.stringify(a + b), { headers: { 'x-by': service } })
      })
      const client = await open(t, ana)
      const unasked = new Mailbox()
      client.addEventListener('message', ({ detail }) => unasked.put(detail))
      const sums = await Promise.all(
        Array.from({ length: 50 }, async (_, a) => {
          const reply = await client.request(`/service/${service}`, JSON.stringify({ a, b: 1 }))
          assert.equal(reply.headers['x-by'], service)
          assert.equal(reply.origin, service)
          return reply.json()
        }),
      )
      assert.deepEqual(
        sums,
        Array.from({ length: 50 }, (_, a) => a + 1),
      )
      assert.deepEqual(unasked.rest, [])
    })

    test('a request is not its own reply, to oneself or to whom one watches [copy-not-reply]', async (t) => {
      const [ana, sue] = [name('ana'), name('sue')]
      const client = await open(t, ana)
      const watcher = await open(t, sue, { profile: 'super agent' })
      const copies = new Mailbox()
      await watcher.watch(`/agent/${ana}`, copies.put)
      client.addEventListener('message', ({ detail }) => detail.reply(`${detail.text}!`))
      assert.equal((await watcher.request(`/agent/${ana}`, 'hola')).text, 'hola!')
      assert.equal((await copies.take()).text, 'hola')
      assert.equal((await client.request(`/agent/${ana}`, 'eco')).text, 'eco!')
    })

    test('requests without a reply time out, or are given up [request-times-out] [call-cancelled]', async (t) => {
      const [ana, bob] = [name('ana'), name('bob')]
      await open(t, bob)
      const client = await open(t, ana)
      await assert.rejects(client.request(`/agent/${bob}`, 'x', { timeout: 20 }), TimeoutError)
      await assert.rejects(client.request('/agent/nobody', 'x'), hasCode('NO_SUCH_DESTINATION'))
      const patience = new AbortController()
      const asked = client.request(`/agent/${bob}`, 'x', { signal: patience.signal })
      const reason = new Error('changed my mind')
      patience.abort(reason)
      await assert.rejects(asked, reason)
      const late = client.request(`/agent/${bob}`, 'x', { signal: patience.signal })
      await assert.rejects(late, reason)
    })

    test('a super agent watches by name and by regular expression [watch-address] [watch-pattern]', async (t) => {
      const [ana, sue] = [name('ana+x'), name('sue')]
      const watcher = await open(t, sue, { profile: 'super agent' })
      const byName = await watcher.watch(`/agent/${ana}`)
      assert.equal(byName.destination, `/agent/${ana}`)
      const byPattern = new Mailbox()
      await watcher.watch(new RegExp(`/agent/${ana.slice(0, 3)}\\+.*`), byPattern.put)
      const client = await open(t, ana)
      await client.send(`/agent/${ana}`, 'to myself')
      const { value: copy } = await within('the copy', byName[Symbol.asyncIterator]().next())
      assert.equal(copy.text, 'to myself')
      assert.equal(copy.destination, `/agent/${ana}`)
      assert.equal((await byPattern.take()).text, 'to myself')
      await byName.unsubscribe()
      await client.send(`/agent/${ana}`, 'again')
      assert.equal((await byPattern.take()).text, 'again')
      assert.deepEqual(await byName[Symbol.asyncIterator]().next(), {
        done: true,
        value: undefined,
      })
      await assert.rejects(client.watch('/agent/x'), hasCode('PROF_NO_RIGHTS'))
      await assert.rejects(watcher.watch('/service/x'), hasCode('PROF_NO_RIGHTS'))
    })

    test('topics reach every subscriber; leaving the loop ends the subscription [topics]', async (t) => {
      const topic = `/topic/${name('news')}`
      const one = await open(t, name('one'))
      const two = await open(t, name('two'))
      const heard = new Mailbox()
      await one.subscribe(`${topic}/*`, {}, heard.put)
      const subscription = await two.subscribe(`${topic}/>`)
      for (const text of ['1', '2', '3']) {
        assert.deepEqual(await one.send(`${topic}/a`, text), { delivered: 2 })
      }
      const texts = []
      for await (const message of subscription) {
        texts.push(message.text)
        if (texts.length === 3) break
      }
      assert.deepEqual(texts, ['1', '2', '3'])
      for (const text of texts) assert.equal((await heard.take()).text, text)
      // The broker handles what a client sends in order, so this is behind the UNSUBSCRIBE.
      await two.send(`/agent/${two.session.login}`, 'x')
      assert.deepEqual(await one.send(`${topic}/a`, '4'), { delivered: 1 })
    })

    test('an iterator that nobody reads overflows, and says so [incoming-bounded]', async (t) => {
      const topic = `/topic/${name('flood')}`
      const client = await open(t, name('ana'), { incomingMax: 3 })
      const subscription = await client.subscribe(topic)
      for (let count = 0; count < 5; count++) await client.send(topic, String(count))
      const texts = []
      const reading = async () => {
        for await (const message of subscription) texts.push(message.text)
      }
      await assert.rejects(reading, OverflowError)
      assert.deepEqual(texts, ['0', '1', '2'])
      assert.deepEqual(await client.send(topic, 'x'), { delivered: 0 })
    })

    test('messages of queues are acknowledged, or refused and come again [queues-acknowledged]', async (t) => {
      const queue = `/queue/${name('jobs')}`
      const options = { ack: 'client-individual', prefetch: 1 }
      const worker = await open(t, name('worker'), { profile: 'service' })
      const jobs = (await worker.subscribe(queue, options))[Symbol.asyncIterator]()
      for (const text of ['1', '2']) await worker.send(queue, text)
      const { value: first } = await jobs.next()
      assert.equal(first.text, '1')
      await first.nack()
      const { value: again } = await jobs.next()
      assert.deepEqual([again.text, again.redelivered], ['1', true])
      await again.ack()
      const { value: second } = await jobs.next()
      assert.equal(second.text, '2')
      const other = await open(t, name('worker'), { profile: 'service' })
      const others = (await other.subscribe(queue, options))[Symbol.asyncIterator]()
      await worker.close()
      const { value: returned } = await within('the message that went back', others.next())
      assert.deepEqual([returned.text, returned.redelivered], ['2', true])
      await assert.rejects(second.ack(), hasCode('UNCONFIRMED'))
      await returned.ack()
      const plain = await worker.connect().then(() => worker.subscribe(`${queue}-plain`))
      await worker.send(`${queue}-plain`, 'x')
      const { value: unacknowledged } = await plain[Symbol.asyncIterator]().next()
      await assert.rejects(unacknowledged.ack(), TypeError)
    })

    test('a service hears who comes and goes [presence]', async (t) => {
      const [ana, eve] = [name('ana'), name('eve')]
      const client = await open(t, ana)
      const service = await open(t, eve, { profile: 'service' })
      const pattern = new RegExp(`/agent/${ana.toUpperCase()}`, 'i')
      const presence = await service.presence({ pattern, snapshot: true })
      const events = presence[Symbol.asyncIterator]()
      const { value: there } = await within('the snapshot', events.next())
      assert.deepEqual([there.event, there.login, there.snapshot], ['logged', ana, true])
      assert.equal(there.destination, `/agent/${ana}`)
      assert.equal(there.profile, 'agent')
      assert.equal(typeof there.connectionId, 'number')
      assert.ok(Math.abs(there.at - Date.now()) < 60_000)
      await client.close()
      for (const event of ['disconnected', 'logout']) {
        const { value } = await within(event, events.next())
        assert.deepEqual([value.event, value.login, value.reason], [event, ana, 'logout'])
        assert.equal(value.snapshot, false)
      }
      await client.connect()
      assert.equal((await within('logged', events.next())).value.event, 'logged')
      await assert.rejects(client.presence(), hasCode('PROF_NO_RIGHTS'))
    })

    test('who is taken over is told, and does not fight back [takeover-stops]', async (t) => {
      const login = name('ana')
      const older = await open(t, login, { reconnect: { minDelay: 1, maxDelay: 2 } })
      older.addEventListener('reconnecting', () => assert.fail('it fights back'))
      const inbox = older.messages()
      const topic = (await older.subscribe('/topic/x'))[Symbol.asyncIterator]()
      const closed = nextEvent(older, 'close')
      const newer = await open(t, login)
      const { error, code } = (await closed).detail
      assert.equal(error.code, 'NEW_CONNECTION_LOGGED')
      assert.ok(code >= 4000 && code < 4100)
      for (const iterator of [inbox, topic]) {
        await assert.rejects(iterator.next(), hasCode('NEW_CONNECTION_LOGGED'))
      }
      await newer.send(`/agent/${login}`, 'mine')
      assert.equal(older.state, 'closed')
      assert.equal(newer.state, 'open')
    })

    test('a request that the broker refuses rejects with its error, and ends the client [answer-matched]', async (t) => {
      const client = await open(t, name('ana'))
      const closed = nextEvent(client, 'close')
      await assert.rejects(client.subscribe('/queue/not-for-agents'), hasCode('PROF_NO_RIGHTS'))
      assert.equal((await closed).detail.error.code, 'PROF_NO_RIGHTS')
    })

    test('a signal gives up what waits [call-cancelled]', async (t) => {
      const client = await open(t, name('ana'))
      const reason = new Error('enough')
      await assert.rejects(
        client.send('/topic/x', 'x', { signal: AbortSignal.abort(reason) }),
        reason,
      )
      const leaving = new AbortController()
      const inbox = client.messages({ signal: leaving.signal })
      const waiting = inbox.next()
      leaving.abort(reason)
      await assert.rejects(waiting, reason)
      await assert.rejects(make(t, 'x').connect({ signal: AbortSignal.abort(reason) }), reason)
    })
  })
}

test('options that are missing are named [options-checked]', () => {
  assert.throws(() => new Client({ url: 'ws://x', login: 'ana' }), /profileKey is missing/)
})

test('numbers that make no sense are named [options-checked]', () => {
  const keys = { url: 'ws://x', login: 'ana', profileKey: 'a', applicationKey: 'b' }
  const makes = (options) => () => new Client({ ...keys, ...options })
  for (const wrong of [-1, Number.NaN, '5', 2 ** 31]) {
    assert.throws(makes({ connectTimeout: wrong }), /the option connectTimeout must/)
    assert.throws(makes({ closeTimeout: wrong }), /the option closeTimeout must/)
    assert.throws(makes({ heartBeat: { incoming: wrong } }), /the option heartBeat.incoming must/)
    assert.throws(makes({ reconnect: { maxDelay: wrong } }), /the option reconnect.maxDelay must/)
  }
  for (const wrong of [-1, Number.NaN, '5']) {
    assert.throws(makes({ outgoingBytesMax: wrong }), /the option outgoingBytesMax must/)
    assert.throws(makes({ incomingMax: wrong }), /the option incomingMax must/)
  }
  const bounds = { outgoingBytesMax: Number.POSITIVE_INFINITY, incomingMax: 2 ** 31 }
  makes({ ...bounds, connectTimeout: 0, reconnect: false, heartBeat: { outgoing: 0 } })()
})

test('keys are in no error and no text form of a client [keys-stay-secret]', async (t) => {
  const broker = await Broker.start(t)
  const { url } = broker.transports.ws
  const keys = { profileKey: 'hush-profile', applicationKey: 'hush-application' }
  const refused = new Client({ url, login: 'ana', ...keys })
  const away = new Client({ url: 'ws://127.0.0.1:1/', login: 'ana', ...keys, reconnect: false })
  const forged = new Client({ url, login: 'ana', ...keys, profileKey: 'hush-profile\n' })
  const texts = []
  for (const client of [refused, away, forged]) {
    const error = await client.connect().catch((error) => error)
    assert.ok(error instanceof Error)
    texts.push(inspect(error), JSON.stringify(error), inspect(client, { depth: null }))
    texts.push(`${client}`, JSON.stringify(client))
  }
  const old = new COM_BROKER_Client('old', url, keys)
  assert.equal(old.applicationKey, keys.applicationKey)
  texts.push(inspect(old, { depth: null }), JSON.stringify(old))
  for (const text of texts) assert.doesNotMatch(text, /hush/)
})

test('an address that is none rejects, and so does a login that cannot be written', async () => {
  const options = { url: 'ftp:/', login: 'ana', profileKey: 'a', applicationKey: 'b' }
  await assert.rejects(new Client(options).connect(), { name: 'SyntaxError' })
  const forged = { ...options, url: 'ws://127.0.0.1:1/', login: 'ana\nx:y' }
  await assert.rejects(new Client(forged).connect(), /line ends/)
})
