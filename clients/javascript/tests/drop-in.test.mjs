/** The class that pages know, against the broker: each call, each callback, over ws and wss. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { COM_BROKER_Client } from 'com-broker'

import { APPLICATION_KEY, Broker, PROFILE_KEYS } from './support/broker.mjs'
import { Mailbox } from './support/waiting.mjs'

let lastLogin = 0

/** A client whose callbacks fill mailboxes. */
function open(broker, transport, login, { profile = 'agent', ...options } = {}) {
  const { url, WebSocket } = broker.transports[transport]
  const client = new COM_BROKER_Client(`client ${login}`, url, { WebSocket, ...options })
  const boxes = {}
  for (const name of ['opened', 'closed', 'errors', 'messages', 'acks']) boxes[name] = new Mailbox()
  client.linkEvents(
    (...all) => boxes.opened.put(all),
    (...all) => boxes.closed.put(all),
    (...all) => boxes.errors.put(all),
    (...all) => boxes.messages.put(all),
    (...all) => boxes.acks.put(all),
  )
  client.connect(login, PROFILE_KEYS[profile] ?? profile)
  return { client, ...boxes }
}

async function logIn(broker, transport, login, options) {
  const opened = open(broker, transport, login, options)
  await opened.opened.take('onOpen')
  return opened
}

for (const transport of ['ws', 'wss']) {
  describe(`COM_BROKER_Client over ${transport}`, () => {
    let broker
    const name = (text) => {
      lastLogin += 1
      return `${text}-${lastLogin}`
    }
    before(async () => {
      broker = new Broker('')
      await broker.start()
    })
    after(() => broker.remove())

    for (const [profile, place] of [
      ['agent', 'agent'],
      ['super agent', 'agent'],
      ['service', 'service'],
      ['admin', 'admin'],
    ]) {
      test(`${profile} logs in and out`, async () => {
        const login = name('ana')
        const ana = open(broker, transport, login, { profile })
        const [session, destination, description, connection] = await ana.opened.take('onOpen')
        assert.match(session, /^[0-9a-f]{32}$/)
        assert.equal(destination, `/${place}/${login}`)
        assert.equal(description, profile)
        assert.match(connection, /^\d+$/)
        assert.equal(ana.client.cur_session, session)
        assert.equal(ana.client.cur_destination, destination)
        ana.client.diconnectToServer()
        const [closed, code, reason] = await ana.closed.take('onClosed')
        assert.equal(closed, session)
        assert.equal(code, 1000)
        assert.match(reason, /closed in order/)
        assert.deepEqual(ana.errors.rest, [])
      })
    }

    test('a wrong key is an error, and then the end [login-refused]', async () => {
      for (const [wrong, code] of [
        [{ applicationKey: 'wrong' }, 'INVALID_APP_KEY'],
        [{ profile: 'wrong' }, 'INVALID_PROFILE_KEY'],
      ]) {
        const ana = open(broker, transport, name('ana'), wrong)
        const [error, details] = await ana.errors.take('onError')
        assert.match(error, /key/)
        assert.deepEqual(details, { code, retry: 'never' })
        const [session, closeCode] = await ana.closed.take('onClosed')
        assert.equal(session, '')
        assert.equal(closeCode, 1000)
        assert.deepEqual(ana.opened.rest, [])
      }
    })

    test('a message arrives with its origin, and is acknowledged', async () => {
      const [ana, bob] = [name('ana'), name('bob')]
      const receiver = await logIn(broker, transport, ana)
      const sender = await logIn(broker, transport, bob)
      const text = '¿qué tal, señora? ☎ 🙂'
      const transaction = sender.client.send(`/agent/${ana}`, text, 'text/html')
      const [origin, destination, type, payload, headers] = await receiver.messages.take()
      assert.deepEqual(
        [origin, destination, type, payload],
        [bob, `/agent/${bob}`, 'text/html', text],
      )
      assert.equal(headers['content-length'], String(Buffer.byteLength(text)))
      assert.deepEqual(await sender.acks.take(), ['OK\n', { transaction }])
      receiver.client.send(destination, 'x')
      assert.equal((await sender.messages.take())[2], 'text/plain')
      for (const { client, closed } of [receiver, sender]) {
        client.disconnect()
        await closed.take()
      }
    })

    test('bodies of a mebibyte arrive whole, text and binary [bodies-unchanged]', async () => {
      const login = name('ana')
      const ana = await logIn(broker, transport, login)
      const bytes = Uint8Array.from({ length: 1024 * 1024 }, (_, index) => (index * 7) % 256)
      for (const body of [bytes, bytes.buffer, new DataView(bytes.buffer)]) {
        ana.client.send(`/agent/${login}`, body, 'application/octet-stream')
        const [, , type, payload] = await ana.messages.take()
        assert.equal(type, 'application/octet-stream')
        assert.ok(payload instanceof Uint8Array && Buffer.compare(payload, bytes) === 0)
      }
      const text = 'ñ'.repeat(512 * 1024)
      ana.client.send(`/agent/${login}`, text)
      assert.ok((await ana.messages.take())[3] === text)
      const ended = Uint8Array.of(1, 255, 0, 0)
      ana.client.send(`/agent/${login}`, ended)
      assert.deepEqual((await ana.messages.take())[3], ended)
      ana.client.disconnect()
      await ana.closed.take()
    })

    test('an unknown destination is an error after which the connection stays [answer-matched] [nobody-there]', async () => {
      const login = name('ana')
      const ana = await logIn(broker, transport, login)
      ana.client.send('/agent/nobody', 'x')
      const [error, details] = await ana.errors.take()
      assert.match(error, /nobody/)
      assert.equal(details.code, 'NO_SUCH_DESTINATION')
      ana.client.send(`/agent/${login}`, 'still here')
      assert.equal((await ana.messages.take())[3], 'still here')
      ana.client.disconnect()
      await ana.closed.take()
    })

    test('a super agent watches by name and by regular expression [watch-address] [watch-pattern]', async () => {
      const [ana, sue] = [name('ana'), name('sue')]
      const agent = await logIn(broker, transport, ana)
      const watcher = await logIn(broker, transport, sue, { profile: 'super agent' })
      for (const [destination, useRegex] of [
        [`/agent/${ana}`, '0'],
        [`/agent/${ana}`, false],
        [`/agent/${ana.slice(0, 3)}.*`, '1'],
        [`/agent/${ana.slice(0, 3)}.*`, true],
        [`/agent/${ana.slice(0, 3)}.*`, 1],
      ]) {
        const transaction = watcher.client.subscribe(destination, useRegex)
        const [data, details] = await watcher.acks.take('onACK')
        assert.match(data, /^OK\nDestinations subscribed:\n/)
        assert.ok(data.includes(`[${ana}]:[`), data)
        assert.deepEqual(details, { transaction })
        agent.client.send(`/agent/${ana}`, 'to myself')
        assert.equal((await watcher.messages.take('the copy'))[3], 'to myself')
        await agent.messages.take()
        watcher.client.unsubscribe()
        assert.match((await watcher.acks.take())[0], /^OK\nDestinations unsubscribed:\n/)
      }
      watcher.client.subscribe('/agent/nobody')
      assert.equal((await watcher.errors.take())[1].code, 'NO_DESTINATION_SUB')
      watcher.client.subscribe('(', true)
      assert.equal((await watcher.errors.take())[1].code, 'INVALID_REGEX')
      const transaction = agent.client.subscribe(`/agent/${sue}`)
      assert.deepEqual((await agent.errors.take())[1], { code: 'PROF_NO_RIGHTS', transaction })
      assert.deepEqual(watcher.messages.rest, [])
      for (const { client, closed } of [agent, watcher]) {
        client.disconnect()
        await closed.take()
      }
    })

    test('one subscription may end alone', async () => {
      const ana = await logIn(broker, transport, name('ana'))
      ana.client.subscribe('/topic/one')
      ana.client.subscribe('/topic/two')
      for (let count = 0; count < 2; count++) await ana.acks.take()
      ana.client.unsubscribe('/topic/one')
      assert.ok((await ana.acks.take())[0].includes('/topic/one'))
      ana.client.send('/topic/one', '1')
      ana.client.send('/topic/two', '2')
      assert.equal((await ana.messages.take())[3], '2')
      ana.client.disconnect()
      await ana.closed.take()
    })

    test('who is taken over is told, and does not fight back [takeover-stops]', async () => {
      const login = name('ana')
      const older = await logIn(broker, transport, login)
      const newer = await logIn(broker, transport, login)
      const [, details] = await older.errors.take()
      assert.deepEqual(details, { code: 'NEW_CONNECTION_LOGGED', retry: 'never' })
      await older.closed.take()
      newer.client.send(`/agent/${login}`, 'mine')
      assert.equal((await newer.messages.take())[3], 'mine')
      assert.deepEqual(newer.errors.rest, [])
      newer.client.disconnect()
      await newer.closed.take()
    })

    test('a client may log in again, at once too', async () => {
      const login = name('ana')
      const ana = await logIn(broker, transport, login)
      const first = ana.client.cur_session
      ana.client.diconnectToServer()
      ana.client.connect(login, PROFILE_KEYS.agent)
      await ana.opened.take('the second login')
      assert.notEqual(ana.client.cur_session, first)
      assert.deepEqual((await ana.closed.take()).slice(0, 2), [first, 1000])
      ana.client.send(`/agent/${login}`, 'x')
      await ana.messages.take()
      ana.client.disconnect()
      await ana.closed.take()
      assert.deepEqual(ana.errors.rest, [])
    })

    test('calls that cannot be honoured are errors, not exceptions', async () => {
      const login = name('ana')
      const { url, WebSocket } = broker.transports[transport]
      const errors = new Mailbox()
      const client = new COM_BROKER_Client('idle', url, { WebSocket })
      client.linkEvents(null, null, (...all) => errors.put(all))
      assert.equal(client.send('/agent/x', 'x'), undefined)
      assert.equal((await errors.take())[1].code, 'NOT_CONNECTED')
      client.disconnect()
      const ana = await logIn(broker, transport, login)
      assert.equal(ana.client.send('/agent/x\ntransaction:forged', 'x'), undefined)
      assert.equal((await ana.errors.take())[1].code, 'INVALID_ARGUMENT')
      ana.client.disconnect()
      await ana.closed.take()
    })
  })
}

test('the application key comes from the client, or from a global of its page', async (t) => {
  const keys =
    'application = "other"\nagent = "a1"\nsuper_agent = "s1"\nservice = "v1"\nadmin = "d1"'
  const broker = await Broker.start(t, `[keys]\n${keys}`)
  const options = { profile: 'a1' }
  const refused = open(broker, 'ws', 'ana', options)
  assert.equal((await refused.errors.take())[1].code, 'INVALID_APP_KEY')
  globalThis.CFG_STOMP_SECRET_KEY = 'other'
  t.after(() => delete globalThis.CFG_STOMP_SECRET_KEY)
  const first = await logIn(broker, 'ws', 'ana', options)
  globalThis.CFG_STOMP_SECRET_KEY = APPLICATION_KEY
  const second = await logIn(broker, 'ws', 'bob', { ...options, applicationKey: 'other' })
  first.client.send('/agent/bob', 'several clients')
  assert.equal((await second.messages.take())[3], 'several clients')
  for (const { client, closed } of [first, second]) {
    client.disconnect()
    await closed.take()
  }
})

test('a broker that is not there is an error, and the end [failure-explained]', async (t) => {
  const broker = await Broker.start(t)
  await broker.stop()
  const ana = open(broker, 'ws', 'ana')
  assert.equal((await ana.errors.take())[1].code, 'CONNECTION_FAILED')
  assert.deepEqual((await ana.closed.take()).slice(0, 2), ['', 1006])
})

test('a connection that cannot even begin is an error, and the end', async () => {
  for (const [url, login] of [
    ['nonsense', 'ana'],
    ['ws://127.0.0.1:1/', 'ana\nlogin:eve'],
  ]) {
    const client = new COM_BROKER_Client('x', url)
    const [errors, ends] = [new Mailbox(), new Mailbox()]
    const tell =
      (box) =>
      (...all) =>
        box.put(all)
    client.linkEvents(null, tell(ends), tell(errors))
    client.connect(login, PROFILE_KEYS.agent)
    assert.equal((await errors.take())[1].code, 'INVALID_ARGUMENT')
    assert.deepEqual((await ends.take()).slice(0, 2), ['', 1006])
  }
})

test('a broker that shuts down says so', async (t) => {
  const broker = await Broker.start(t)
  const ana = await logIn(broker, 'ws', 'ana')
  await broker.stop()
  assert.deepEqual((await ana.errors.take())[1], { code: 'DRAINING', retry: 'now' })
  assert.equal((await ana.closed.take())[1], 1001)
})

test('what is written to the console holds no keys and no bodies [keys-stay-secret]', async (t) => {
  const broker = await Broker.start(t)
  const lines = []
  t.mock.method(console, 'debug', (line) => lines.push(line))
  const warnings = t.mock.method(console, 'warn', () => {})
  const ana = open(broker, 'ws', 'ana')
  ana.client.activeDebug()
  await ana.opened.take()
  ana.client.connect('ana', 'x')
  assert.equal(warnings.mock.callCount(), 1)
  ana.client.send('/agent/ana', 'a secret body')
  await ana.acks.take()
  ana.client.deactiveDebug()
  const before = lines.length
  ana.client.disconnect()
  await ana.closed.take()
  assert.equal(lines.length, before)
  const all = lines.join('\n')
  assert.match(all, /client ana.*sent SEND/)
  for (const secret of ['secret_key', 'a secret body']) assert.ok(!all.includes(secret), all)
})
