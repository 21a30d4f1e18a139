/** What the client does when connections end or fall silent, under a clock of the test's own. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { Client } from 'com-broker'

import { FakeClock } from './support/fake-clock.mjs'
import { fakeSockets } from './support/fake-socket.mjs'
import { Mailbox } from './support/waiting.mjs'

const MINUTE = 60_000

/** A client, with its sockets and its clock in the test's hands. */
function make(options = {}) {
  const clock = new FakeClock()
  const { WebSocket, sockets } = fakeSockets()
  const keys = { profileKey: 'p', applicationKey: 'a' }
  const client = new Client({ url: 'ws://x/', login: 'ana', ...keys, WebSocket, clock, ...options })
  const told = new Mailbox()
  for (const type of ['open', 'reconnecting', 'close']) {
    client.addEventListener(type, ({ detail }) => told.put([type, detail]))
  }
  return { client, clock, sockets, told, socket: () => sockets.at(-1) }
}

async function open(options) {
  const made = make(options)
  const connected = made.client.connect()
  made.socket().logIn('heart-beat:1000,0\n')
  await connected
  await made.told.take()
  return made
}

const ERROR = (retry) => `ERROR\nerror-code:X\nmessage:why\n${retry ? `retry:${retry}\n` : ''}\n\0`

describe('coming back', () => {
  test('delays double, each a random part of its bound [back-off]', async () => {
    const { client, clock, socket, told } = make({ reconnect: { minDelay: 100, maxDelay: 500 } })
    const connected = client.connect()
    for (const [attempt, bound] of [100, 200, 400, 500, 500].entries()) {
      clock.chance = attempt / 5
      socket().end()
      const [, detail] = await told.take()
      assert.equal(detail.delay, clock.chance * bound)
      assert.equal(detail.attempt, attempt + 1)
      assert.equal(detail.error.code, 'CONNECTION_FAILED')
      assert.equal(client.state, 'waiting')
      assert.deepEqual(clock.left, [detail.delay])
      clock.advance(detail.delay)
      assert.equal(client.state, 'connecting')
    }
    socket().logIn()
    await connected
  })

  test('delays are whole milliseconds', async () => {
    const { clock, socket, told } = await open({ reconnect: { minDelay: 500, laterDelay: 10.5 } })
    clock.chance = 0.8625502197220507
    socket().end()
    assert.equal((await told.take())[1].delay, 431)
  })

  for (const [what, end] of [
    [
      'an ERROR with retry:never',
      (socket) => {
        socket.receive(ERROR('never'))
        socket.end(1006)
      },
    ],
    ['close code 4000', (socket) => socket.end(4000)],
    ['close code 4099', (socket) => socket.end(4099)],
    [
      'an ERROR, whatever the code',
      (socket) => {
        socket.receive(ERROR('never'))
        socket.end(4250)
      },
    ],
  ]) {
    test(`${what} ends the client [retry-obeyed]`, async () => {
      const { client, clock, socket, sockets, told } = await open()
      end(socket())
      const [type, { error }] = await told.take()
      assert.equal(type, 'close')
      assert.ok(error instanceof Error)
      assert.equal(client.state, 'closed')
      assert.deepEqual(clock.left, [])
      clock.advance(60 * MINUTE)
      assert.equal(sockets.length, 1)
    })
  }

  for (const [what, end] of [
    [
      'an ERROR with retry:later',
      (socket) => {
        socket.receive(ERROR('later'))
        socket.end(1006)
      },
    ],
    ['close code 4100', (socket) => socket.end(4100)],
    ['close code 4199', (socket) => socket.end(4199)],
  ]) {
    test(`${what} puts it off [retry-obeyed]`, async () => {
      const reconnect = { minDelay: 100, laterDelay: 7000 }
      const { client, clock, socket, told } = await open({ reconnect })
      end(socket())
      const [, { delay, retry }] = await told.take()
      assert.deepEqual([delay, retry], [7050, 'later'])
      clock.advance(7049)
      assert.equal(client.state, 'waiting')
      clock.advance(1)
      assert.equal(client.state, 'connecting')
    })
  }

  for (const [what, end] of [
    [
      'an ERROR with retry:now',
      (socket) => {
        socket.receive(ERROR('now'))
        socket.end(1006)
      },
    ],
    ['close code 4200', (socket) => socket.end(4200)],
    ['close code 4299', (socket) => socket.end(4299)],
  ]) {
    test(`${what} brings it back at once, but does not let it hammer [retry-obeyed]`, async () => {
      const { clock, socket, told } = await open({ reconnect: { minDelay: 100 } })
      end(socket())
      assert.equal((await told.take())[1].delay, 0)
      clock.advance(0)
      socket().logIn()
      await told.take()
      end(socket())
      assert.equal((await told.take())[1].delay, 100)
      clock.advance(100)
      socket().logIn()
      await told.take()
      clock.advance(MINUTE)
      end(socket())
      assert.equal((await told.take())[1].delay, 0, 'after a connection that lasted')
    })
  }

  test('other ends are failures of the network', async () => {
    for (const code of [1000, 1001, 1006, 1011, 4300]) {
      const { socket, told } = await open({ reconnect: { minDelay: 100 } })
      socket().end(code)
      const [type, { delay, error }] = await told.take()
      assert.deepEqual([type, delay, error.code], ['reconnecting', 50, 'CONNECTION_LOST'])
    }
  })

  test('a network that is back is used at once, unless the broker said later', async (t) => {
    const network = new EventTarget()
    for (const method of ['addEventListener', 'removeEventListener']) {
      globalThis[method] = network[method].bind(network)
      t.after(() => delete globalThis[method])
    }
    const { client, clock, socket, sockets } = await open()
    socket().end()
    network.dispatchEvent(new Event('online'))
    assert.equal(client.state, 'connecting')
    assert.equal(sockets.length, 2)
    socket().logIn()
    network.dispatchEvent(new Event('online'))
    assert.equal(sockets.length, 2)
    socket().end(4100)
    network.dispatchEvent(new Event('online'))
    assert.equal(client.state, 'waiting')
    await client.close()
    assert.deepEqual(clock.left, [])
  })

  test('without reconnection the first end is the last [return-switched-off]', async () => {
    const { client, socket, told } = await open({ reconnect: false })
    socket().end()
    assert.equal((await told.take())[0], 'close')
    const failed = client.connect()
    socket().end()
    await assert.rejects(failed, { code: 'CONNECTION_FAILED' })
  })

  test('connect() can be given up', async () => {
    const { client, clock, socket } = make()
    const patience = new AbortController()
    const connected = client.connect({ signal: patience.signal })
    const reason = new Error('enough')
    patience.abort(reason)
    await assert.rejects(connected, reason)
    assert.ok(socket().isTerminated)
    assert.equal(client.state, 'closed')
    assert.deepEqual(clock.left, [])
  })

  test('a signal that comes with the login is too late to end it', async () => {
    const { client, socket } = make()
    const patience = new AbortController()
    client.addEventListener('open', () => patience.abort(new Error('too late')))
    const connected = client.connect({ signal: patience.signal })
    socket().logIn()
    assert.equal((await connected).address, '/service/ana')
    assert.equal(client.state, 'open')
  })

  test('a login that is never answered is given up [login-times-out]', async () => {
    const { client, clock, socket, told } = make({ connectTimeout: 1000 })
    client.connect().catch(() => {})
    clock.advance(1000)
    assert.match((await told.take())[1].error.message, /no login within 1000 ms/)
    assert.ok(socket().isTerminated)
    await client.close()
    assert.deepEqual(clock.left, [])
  })

  test('a logout that is never answered is given up [close-bounded]', async () => {
    const { client, clock, socket } = await open({ closeTimeout: 1000 })
    const closed = client.close()
    assert.equal(socket().last.command, 'DISCONNECT')
    clock.advance(1000)
    await closed
    assert.ok(socket().isTerminated)
    assert.deepEqual(clock.left, [])
  })

  test('what is no STOMP is not tried again [malformed-refused]', async () => {
    const { socket, told } = await open()
    socket().receive('X\ny\n\n\0')
    const [type, { error }] = await told.take()
    assert.deepEqual([type, error.code], ['close', 'PROTOCOL'])
  })
})

test('answers reach the calls that they answer, in any order [answer-matched]', async () => {
  const { client, socket } = await open()
  const sent = ['1', '2', '3'].map((text) => client.send('/topic/x', text))
  const [one, two, three] = socket()
    .frames.slice(1)
    .map(({ headers }) => headers.receipt)
  const refused = assert.rejects(sent[1], { code: 'X' })
  socket().receive(`RECEIPT\nreceipt-id:${three}\ndelivered:3\n\n\0`)
  socket().receive(`RECEIPT\nreceipt-id:nobody's\ndelivered:9\n\n\0`)
  socket().receive(`RECEIPT\nreceipt-id:${one}\ndelivered:1\n\n\0`)
  socket().receive(`ERROR\nerror-code:X\nreceipt-id:${two}\n\n\0`)
  assert.deepEqual([await sent[0], await sent[2]], [{ delivered: 1 }, { delivered: 3 }])
  await refused
})

test('close() ends every call that waits [close-releases]', async () => {
  const { client, socket } = await open()
  socket().end()
  const calls = [
    client.send('/topic/x', 'x'),
    client.request('/service/x', 'x'),
    client.subscribe('/topic/x'),
    client.watch('/agent/x'),
  ]
  const iterator = client.messages()
  const next = iterator.next()
  const ended = calls.map((call) => assert.rejects(call, { code: 'CLOSED' }))
  await client.close()
  await Promise.all(ended)
  assert.deepEqual(await next, { done: true, value: undefined })
})

describe('what is sent while away', () => {
  test('it waits, and goes out in order, behind the subscriptions [waits-while-away] [subscriptions-survive]', async () => {
    const { client, clock, socket } = await open()
    const subscribed = client.subscribe('/topic/x')
    socket().receive(`RECEIPT\nreceipt-id:${socket().last.headers.receipt}\n\n\0`)
    await subscribed
    socket().end()
    const sent = ['1', '2'].map((text) => client.send('/topic/x', text))
    const late = client.subscribe('/topic/late')
    clock.advance(1000)
    socket().logIn()
    const frames = socket().frames
    assert.deepEqual(
      frames.map(({ command }) => command),
      ['CONNECT', 'SUBSCRIBE', 'SUBSCRIBE', 'SEND', 'SEND'],
    )
    for (const { headers } of frames.slice(1)) {
      socket().receive(`RECEIPT\nreceipt-id:${headers.receipt}\ndelivered:1\n\n\0`)
    }
    assert.deepEqual(await Promise.all(sent), [{ delivered: 1 }, { delivered: 1 }])
    assert.equal((await late).destination, '/topic/late')
  })

  test('it is bounded [outgoing-bounded]', async () => {
    const { client, socket } = await open({ outgoingBytesMax: 1000 })
    socket().end()
    const first = client.send('/topic/x', 'x'.repeat(500))
    await assert.rejects(client.send('/topic/x', 'x'.repeat(500)), { code: 'OUTGOING_FULL' })
    const closed = assert.rejects(first, { code: 'CLOSED' })
    await client.close()
    await closed
  })

  test('it can be taken back [call-cancelled]', async () => {
    const { client, clock, socket } = await open({ outgoingBytesMax: 1000 })
    socket().end()
    for (let count = 0; count < 5; count++) {
      const patience = new AbortController()
      const sent = client.send('/topic/x', 'x'.repeat(800), { signal: patience.signal })
      patience.abort(new Error('enough'))
      await assert.rejects(sent, /enough/)
    }
    clock.advance(1000)
    socket().logIn()
    assert.deepEqual(
      socket().frames.map(({ command }) => command),
      ['CONNECT'],
    )
  })

  test('what was sent and not confirmed is never sent again [never-sent-twice]', async () => {
    const { client, clock, socket } = await open()
    const sent = client.send('/topic/x', 'once')
    socket().end()
    await assert.rejects(sent, { code: 'UNCONFIRMED' })
    clock.advance(1000)
    socket().logIn()
    assert.equal(socket().last.command, 'CONNECT')
  })

  test('an acknowledgement does not outlive the connection of its message [ack-same-connection]', async () => {
    const { client, clock, socket } = await open()
    const taken = new Mailbox()
    const subscribed = client.subscribe('/queue/x', { ack: 'client-individual' }, taken.put)
    const { id, receipt } = socket().last.headers
    socket().receive(`RECEIPT\nreceipt-id:${receipt}\n\n\0`)
    await subscribed
    socket().receive(`MESSAGE\nsubscription:${id}\ndestination:/queue/x\nack:7\n\n\0`)
    const message = await taken.take()
    socket().end()
    await assert.rejects(message.ack(), { code: 'UNCONFIRMED' })
    clock.advance(1000)
    socket().logIn()
    await assert.rejects(message.nack(), { code: 'UNCONFIRMED' })
    const commands = socket().frames.map(({ command }) => command)
    assert.deepEqual(commands, ['CONNECT', 'SUBSCRIBE'])
  })

  test('a subscription that is not confirmed is made again [subscriptions-survive]', async () => {
    const { client, clock, socket } = await open()
    const subscribed = client.subscribe('/topic/x')
    socket().end()
    clock.advance(1000)
    socket().logIn()
    const { command, headers } = socket().last
    assert.equal(command, 'SUBSCRIBE')
    socket().receive(`RECEIPT\nreceipt-id:${headers.receipt}\n\n\0`)
    assert.equal((await subscribed).destination, '/topic/x')
  })

  test('a subscription that waits when the client closes is refused', async () => {
    const { client, socket } = await open()
    socket().end()
    const subscribed = assert.rejects(client.subscribe('/topic/x'), { code: 'CLOSED' })
    await client.close()
    await subscribed
  })
})

describe('subscriptions that end', () => {
  const confirm = (socket, frame) => {
    socket.receive(`RECEIPT\nreceipt-id:${frame.headers.receipt}\n\n\0`)
  }
  const subscribe = async ({ client, socket }, destination, options) => {
    const subscribed = client.subscribe(destination, options)
    confirm(socket(), socket().last)
    return subscribed
  }
  const afterLogin = (socket) =>
    socket.frames
      .slice(1)
      .map(({ command, headers }) => `${command} ${headers.destination ?? headers.id}`)

  test('CONNECT asks for direct messages, and when coming back for what was subscribed [resumes-own-session]', async () => {
    const { client, clock, socket } = await open()
    const wants = () => {
      const { inbox, resume } = socket().frames[0].headers
      return [inbox, resume]
    }
    assert.deepEqual(wants(), ['true', undefined])
    socket().end()
    clock.advance(1000)
    socket().logIn()
    assert.deepEqual(wants(), ['true', 'true'])
    const closed = client.close()
    socket().end(1000)
    await closed
    client.connect()
    assert.equal(socket().frames.length, 0)
    socket().logIn()
    assert.deepEqual(wants(), ['true', undefined], 'what was closed is not resumed')
  })

  for (const [what, end] of [
    [
      'while away',
      async ({ socket }, subscription) => {
        socket().end()
        await subscription.unsubscribe()
      },
    ],
    [
      'as the connection breaks',
      async ({ socket }, subscription) => {
        const ended = subscription.unsubscribe()
        assert.equal(socket().last.command, 'UNSUBSCRIBE')
        socket().end()
        await ended
      },
    ],
  ]) {
    test(`${what}: the session that is resumed loses them [unsubscribed-stays-so]`, async () => {
      const made = await open()
      const { client, clock, socket } = made
      const kept = await subscribe(made, '/topic/kept')
      await end(made, await subscribe(made, '/queue/ended', { ack: 'auto' }))
      clock.advance(1000)
      socket().logIn()
      const [, again, unsubscribe] = socket().frames
      assert.deepEqual(afterLogin(socket()), [
        'SUBSCRIBE /queue/ended',
        `UNSUBSCRIBE ${again.headers.id}`,
        `SUBSCRIBE ${kept.destination}`,
      ])
      // What the queue gives meanwhile is not lost: it goes back.
      assert.equal(again.headers.ack, 'client-individual')
      // Until that is confirmed, each new connection is told again.
      socket().end()
      clock.advance(1000)
      socket().logIn()
      assert.equal(afterLogin(socket()).length, 3)
      assert.notEqual(unsubscribe.headers.receipt, socket().frames[2].headers.receipt)
      confirm(socket(), socket().frames[2])
      socket().end()
      clock.advance(1000)
      socket().logIn()
      assert.deepEqual(afterLogin(socket()), ['SUBSCRIBE /topic/kept'])
      client.close()
    })
  }

  test('what another program subscribed to in between is ended, once', async () => {
    const made = await open()
    const { socket } = made
    const mine = await subscribe(made, '/topic/mine')
    const id = socket().last.headers.id
    const message = (subscription) => {
      const head = `subscription:${subscription}\nmessage-id:1\ndestination:/topic/x`
      socket().receive(`MESSAGE\n${head}\n\nx\0`)
    }
    for (const subscription of [id, 'other', 'inbox', 'other']) message(subscription)
    const ended = socket().frames.filter(({ command }) => command === 'UNSUBSCRIBE')
    assert.deepEqual(
      ended.map(({ headers }) => headers.id),
      ['other'],
    )
    confirm(socket(), ended[0])
    mine.unsubscribe()
    message(id)
    assert.equal(socket().frames.length, 4, 'what is about to end is not ended twice')
  })

  test('a session that began anew has none to end', async () => {
    const made = await open()
    const subscription = await subscribe(made, '/topic/x')
    made.socket().end()
    await subscription.unsubscribe()
    made.clock.advance(1000)
    made.socket().onopen()
    made.socket().receive('CONNECTED\nversion:1.2\nsession:other\ndestination:/service/ana\n\n\0')
    assert.deepEqual(afterLogin(made.socket()), [])
  })
})

describe('a socket that takes nothing', () => {
  test('what waits in it is bounded, and so is what is subscribed [outgoing-bounded]', async () => {
    const { client, clock, socket } = await open({ outgoingBytesMax: 1000 })
    const fake = socket()
    const subscription = client.subscribe('/topic/first')
    fake.receive(`RECEIPT\nreceipt-id:${fake.last.headers.receipt}\n\n\0`)
    const first = await subscription
    fake.bufferedAmount = 0
    client.send('/topic/x', 'x'.repeat(5000)).catch(() => {})
    assert.equal(
      fake.last.body.length,
      5000,
      'one that nothing is before is sent, whatever its size',
    )
    fake.bufferedAmount = 900
    const before = fake.sent.length
    const overflow = { name: 'OverflowError', code: 'OUTGOING_FULL' }
    await assert.rejects(client.send('/topic/x', 'x'.repeat(100)), overflow)
    await assert.rejects(client.subscribe(`/topic/${'x'.repeat(100)}`), overflow)
    assert.equal(fake.sent.length, before)
    client.send('/topic/x', 'x').catch(() => {})
    assert.equal(fake.sent.length, before + 1)
    fake.bufferedAmount = 2000
    first.unsubscribe()
    assert.equal(fake.last.command, 'UNSUBSCRIBE', 'to end something is never refused')
    fake.bufferedAmount = 0
    client.send('/topic/x', 'x'.repeat(2000)).catch(() => {})
    assert.equal(fake.last.body.length, 2000)
    fake.end()
    await assert.rejects(client.subscribe(`/topic/${'x'.repeat(1000)}`), overflow)
    await client.close()
    assert.deepEqual(clock.left, [])
  })

  test('no heart-beats pile up in it', async () => {
    const { client, clock, socket } = make({ heartBeat: { outgoing: 1000, incoming: 0 } })
    client.connect().catch(() => {})
    socket().logIn('heart-beat:0,1000\n')
    socket().bufferedAmount = 500
    clock.advance(60_000)
    assert.equal(socket().sent.length, 1)
    socket().bufferedAmount = 0
    clock.advance(1000)
    assert.equal(socket().sent.length, 2)
  })
})

describe('headers that are not the sender’s to give', () => {
  const TAKEN = ['content-length', 'content-type', 'destination', 'receipt', 'transaction']
  TAKEN.push('session-id', 'message-id', 'subscription', 'origin', 'origin-destination', 'ack')
  TAKEN.push('redelivered', 'undeliverable', 'event', 'snapshot', 'error-code', '', ' ', ':')
  // Receivers that trim names, or do not unescape them, would take these for the broker's.
  TAKEN.push(' content-length ', '\u00a0origin', 'origin\u200b', '\torigin\r', 'origin:x')

  for (const name of TAKEN) {
    test(`${JSON.stringify(name)} is a TypeError before anything is sent [own-headers-refused]`, async () => {
      const { client, socket } = await open()
      const headers = { [name]: 'x' }
      for (const refused of [
        client.send('/topic/x', 'x', { headers }),
        client.request('/agent/x', 'x', { headers }),
        client.subscribe('/topic/x', { headers }),
      ]) {
        await assert.rejects(refused, TypeError)
      }
      assert.equal(socket().frames.length, 1)
      assert.equal(client.state, 'open')
    })
  }

  test('a request sets its own, a subscription too', async () => {
    const { client, socket } = await open()
    for (const name of ['correlation-id', 'reply-to']) {
      const refused = client.request('/agent/x', 'x', { headers: { [name]: 'x' } })
      await assert.rejects(refused, { name: 'TypeError', message: new RegExp(name) })
    }
    for (const name of ['id', 'destination-type', 'prefetch-count']) {
      await assert.rejects(client.subscribe('/topic/x', { headers: { [name]: 'x' } }), TypeError)
    }
    for (const destination of ['', undefined, 7]) {
      await assert.rejects(client.send(destination, 'x'), TypeError)
      await assert.rejects(client.request(destination, 'x'), TypeError)
      await assert.rejects(client.subscribe(destination), TypeError)
      await assert.rejects(client.watch(destination), TypeError)
    }
    for (const destination of ['/topics/news', 'ana', '/topic/', '/agent', '/queue']) {
      const code = 'NO_SUCH_DESTINATION'
      await assert.rejects(client.send(destination, 'x'), { name: 'BrokerError', code })
      await assert.rejects(client.request(destination, 'x'), { code, message: /\/queue\// })
      await assert.rejects(client.subscribe(destination), { code: 'NO_DESTINATION_SUB' })
    }
    assert.equal(socket().frames.length, 1)
    assert.equal(client.state, 'open')
  })

  test('what is passed on are the headers that the sender added [headers-pass]', async () => {
    const { client, socket } = await open()
    const messages = client.messages()
    const lines = ['message-id:1-2', 'origin:bob', 'origin-destination:/agent/bob']
    lines.push('content-type:a/b', 'content-length:5', 'color:red', 'id:7')
    lines.push('correlation-id:c', 'reply-to:/agent/bob')
    const head = `subscription:inbox\ndestination:/service/ana\n${lines.join('\n')}`
    socket().receive(`MESSAGE\n${head}\n\nhello\0`)
    const { value: message } = await messages.next()
    assert.deepEqual(message.userHeaders, { color: 'red', id: '7' })
    client.send('/topic/x', 'other body', { headers: message.userHeaders }).catch(() => {})
    const { color, id } = socket().last.headers
    assert.deepEqual([color, id], ['red', '7'])
    assert.equal(new TextDecoder().decode(socket().last.body), 'other body')
    await assert.rejects(
      client.send('/topic/x', 'other', { headers: message.headers }),
      /userHeaders/,
    )
    const taken = { headers: { 'correlation-id': 'x' } }
    await assert.rejects(message.reply('x', taken), TypeError)
  })
})

describe('requests', () => {
  const answer = (id, from, more = '') =>
    `MESSAGE\nsubscription:inbox\nmessage-id:1\ndestination:/service/ana\norigin:x\n` +
    `origin-destination:${from}\ncorrelation-id:${id}\n${more}\nfrom ${from}\0`

  test('ids are 128 random bits each: to know one is to know none', async () => {
    const { client, socket } = await open()
    for (let count = 0; count < 20; count++) client.request('/agent/x', 'x').catch(() => {})
    const ids = socket()
      .frames.slice(1)
      .map(({ headers }) => headers['correlation-id'])
    assert.equal(new Set(ids.map((id) => id.slice(0, 8))).size, 20)
    for (const id of ids) assert.match(id, /^[0-9a-f]{32}$/)
  })

  test('only who was asked at an address can answer; the rest are messages [reply-only-from-asked]', async () => {
    const { client, socket } = await open()
    const messages = client.messages()
    const asked = client.request('/service/billing', 'x')
    const id = socket().last.headers['correlation-id']
    socket().receive(answer(id, '/agent/eve'))
    socket().receive(answer(id, '/service/billing'))
    assert.equal((await asked).text, 'from /service/billing')
    assert.equal((await messages.next()).value.text, 'from /agent/eve')
  })

  test('of those who read a topic or a queue any may answer', async () => {
    const { client, socket } = await open()
    for (const destination of ['/topic/x', '/queue/x']) {
      const asked = client.request(destination, 'x')
      socket().receive(answer(socket().last.headers['correlation-id'], '/agent/bob'))
      assert.equal((await asked).originDestination, '/agent/bob')
    }
  })
})

describe('silence', () => {
  test('a broker that is not heard any more is left [silence-noticed]', async () => {
    const { clock, socket, told } = await open({ heartBeat: { incoming: 2000 } })
    for (let count = 0; count < 10; count++) {
      clock.advance(4999)
      socket().receive('\n')
    }
    assert.deepEqual(told.rest, [])
    clock.advance(5000 + 2000 - 1)
    assert.deepEqual(told.rest, [])
    clock.advance(1)
    const [type, { error }] = await told.take()
    assert.deepEqual([type, error.code], ['reconnecting', 'CONNECTION_LOST'])
    assert.ok(socket().isTerminated)
  })

  test('timers that stood still prove nothing', async () => {
    const { client, clock, socket, told } = await open({ heartBeat: { incoming: 2000 } })
    for (let count = 0; count < 10; count++) {
      // The page is frozen; its timer fires late, before what had arrived meanwhile is handled.
      clock.freeze(10 * MINUTE)
      socket().receive('\n')
    }
    // Timers that fire once a minute, as those of pages in the background do.
    for (let count = 0; count < 10; count++) {
      for (let beat = 0; beat < 30; beat++) socket().receive('\n')
      clock.freeze(MINUTE)
      socket().receive('\n')
    }
    assert.deepEqual(told.rest, [])
    assert.equal(client.state, 'open')
  })

  test('where no beats were agreed, silence is nothing', async () => {
    const { client, clock, socket, told } = make({ heartBeat: { incoming: 0 } })
    client.connect().catch(() => {})
    assert.equal(socket().onopen && socket().frames.length, 0)
    socket().logIn('heart-beat:1000,1000\n')
    assert.equal(socket().frames[0].headers['heart-beat'], '0,0')
    await told.take()
    clock.advance(60 * MINUTE)
    assert.equal(client.state, 'open')
  })

  test('a client that promised beats sends them [heart-beats-sent]', async () => {
    const { client, clock, socket } = make({ heartBeat: { outgoing: 3000, incoming: 0 } })
    client.connect().catch(() => {})
    socket().logIn('heart-beat:0,1000\n')
    clock.advance(9000)
    assert.deepEqual(socket().sent.slice(1), ['\n', '\n', '\n'])
    client.close()
    socket().end(1000)
    assert.deepEqual(clock.left, [])
  })
})
