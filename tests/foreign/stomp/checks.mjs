// The checks that every JavaScript client goes through, in Node and in a browser. What differs
// between the libraries is in an adapter: `open({login, passcode, beats})` gives a session with
// `connected` (headers), `beats` (seen so far), `ended` (a promise), `send`, `subscribe`, `begin`
// and `disconnect`, or rejects with `headers` of the ERROR.

const PATIENCE_MS = 20_000

export async function runChecks(adapter, { login, keys, print }) {
  for (const [name, check] of Object.entries(CHECKS)) {
    if (adapter.without?.includes(name)) continue
    const started = Date.now()
    const open = (more = {}) =>
      within(adapter.open({ login: `${login}-${name}`, passcode: keys, beats: 0, ...more }), 'login')
    const place = kind => `/${kind}/${login}-${name}`
    try {
      await check({ open, place, adapter, login })
      print(`ok ${name} (${((Date.now() - started) / 1000).toFixed(2)} s)`)
    } catch (fault) {
      print(`FAILED ${name}: ${String(fault.stack ?? JSON.stringify(fault)).replaceAll('\n', ' | ')}`)
    }
  }
}

/** What a subscription's callback puts in, a check takes out. */
export class Messages {
  #waiting = []
  #takers = []

  put(message) {
    const taker = this.#takers.shift()
    if (taker) taker(message)
    else this.#waiting.push(message)
  }

  next() {
    if (this.#waiting.length > 0) return Promise.resolve(this.#waiting.shift())
    return within(new Promise(resolve => this.#takers.push(resolve)), 'MESSAGE')
  }
}

const CHECKS = {
  async connect({ open, adapter, login }) {
    const session = await open()
    equal(session.connected.version, adapter.version ?? '1.2', 'version')
    equal(session.connected.destination, `/agent/${login}-connect`, 'destination')
    check(session.connected.session, 'no session')
    await session.disconnect()
  },

  async subscribe_and_send({ open, place, adapter }) {
    const session = await open()
    const color = adapter.escapes === false ? 'rojo' : 'x\\y:z\nw'
    const topic = session.subscribe(place('topic'))
    for (const destination of [place('topic'), place('agent')]) {
      const messages = destination === place('topic') ? topic : session.subscribe(destination)
      session.send(destination, '¿qué tal, señora? ☎', { color })
      const message = await messages.next()
      equal(message.body, '¿qué tal, señora? ☎', 'body')
      equal(message.headers.destination, destination, 'destination')
      equal(message.headers['origin-destination'], place('agent'), 'origin-destination')
      equal(message.headers.color, color, 'color')
    }
    session.send(place('topic'), 'x'.repeat(300_000))
    equal((await topic.next()).body, 'x'.repeat(300_000), 'body')
    if (session.sendBinary) {
      const bytes = Uint8Array.from({ length: 768 }, (_, index) => index % 256)
      session.sendBinary(place('topic'), bytes)
      equal((await topic.next()).binaryBody.join(), bytes.join(), 'binary body')
    }
    await session.disconnect()
  },

  async receipt({ open, place }) {
    const session = await open()
    equal((await session.sendWithReceipt(place('topic'), 'hola')).delivered, '0', 'delivered')
    const messages = session.subscribe(place('agent'))
    equal((await session.sendWithReceipt(place('agent'), 'hola')).delivered, '1', 'delivered')
    await messages.next()
    await session.disconnect()
  },

  async ack({ open, place }) {
    const session = await open()
    const queue = place('queue')
    const first = session.subscribe(queue, { ack: 'client-individual', 'prefetch-count': '1' })
    session.send(queue, 'first')
    session.send(queue, 'second')
    const message = await first.next()
    equal(message.body, 'first', 'body')
    message.ack()
    equal((await first.next()).body, 'second', 'body')
    await first.unsubscribe()
    const second = session.subscribe(queue, { ack: 'client-individual' })
    const again = await second.next()
    equal(again.body, 'second', 'body')
    equal(again.headers.redelivered, 'true', 'redelivered')
    again.ack()
    await session.disconnect()
  },

  async nack({ open, place }) {
    const session = await open()
    const messages = session.subscribe(place('queue'), { ack: 'client-individual' })
    session.send(place('queue'), 'hola')
    const message = await messages.next()
    check(!message.headers.redelivered, 'redelivered at once')
    message.nack()
    const again = await messages.next()
    equal(again.headers.redelivered, 'true', 'redelivered')
    again.ack()
    await session.disconnect()
  },

  async transaction({ open, place }) {
    const session = await open()
    const topic = place('topic')
    const messages = session.subscribe(topic)
    const kept = session.begin()
    kept.send(topic, 'inside')
    session.send(topic, 'outside')
    equal((await messages.next()).body, 'outside', 'body')
    kept.commit()
    equal((await messages.next()).body, 'inside', 'body')
    const dropped = session.begin()
    dropped.send(topic, 'aborted')
    dropped.abort()
    session.send(topic, 'last')
    equal((await messages.next()).body, 'last', 'body')
    await session.disconnect()
  },

  async heart_beat({ open, place }) {
    const session = await open({ beats: 1000 })
    equal(session.connected['heart-beat'], '1000,1000', 'heart-beat')
    const ended = await Promise.race([session.ended.then(() => true), later(4500)])
    check(!ended, 'the idle connection was lost')
    // The line end after CONNECTED may count as one more.
    check(session.beats() >= 4, `${session.beats()} beats seen`)
    const messages = session.subscribe(place('agent'))
    session.send(place('agent'), 'hola')
    equal((await messages.next()).body, 'hola', 'body')
    await session.disconnect()
  },

  async disconnect({ open }) {
    const session = await open()
    await within(session.disconnect(), 'RECEIPT of DISCONNECT')
    await within(session.ended, 'end')
  },

  async wrong_key({ open }) {
    const error = await open({ passcode: 'my_app_secret_key.wrong' }).then(
      () => { throw new Error('logged in with a wrong key') }, error => error)
    if (!error.headers) throw error
    if (error.headers['error-code']) {
      equal(error.headers['error-code'], 'INVALID_PROFILE_KEY', 'error-code')
      equal(error.headers.retry, 'never', 'retry')
    }
    equal(error.headers.message, 'the profile key (passcode) is wrong', 'message')
    await within(error.ended, 'end')
  },
}

function check(truth, otherwise) {
  if (!truth) throw new Error(otherwise)
}

function equal(found, expected, what) {
  check(found === expected,
    `${what}: ${JSON.stringify(expected)?.slice(0, 80)} was expected: ${JSON.stringify(found)?.slice(0, 200)}`)
}

function later(milliseconds) {
  return new Promise(resolve => setTimeout(resolve, milliseconds, false))
}

function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what}`)), PATIENCE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
