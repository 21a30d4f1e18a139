/** The client for new programs: promises, events and iterators, over STOMP 1.2. */

import { Backoff } from './backoff.js'
import { systemClock } from './clock.js'
import { Connection } from './connection.js'
import { Deferred } from './deferred.js'
import { checkDestination, checkSubscribed, isAddress } from './destinations.js'
import { BrokerError, ClosedError, TimeoutError, UnconfirmedError } from './errors.js'
import { CORRELATION, checkSubscribeHeaders, checkUserHeaders } from './headers.js'
import { Message } from './message.js'
import { binaryOf } from './octets.js'
import { Outgoing } from './outgoing.js'
import { callSafely, reporter } from './report.js'
import { webSocketClass } from './socket.js'
import { encodeFrame } from './standard.js'
import { Stream } from './stream.js'
import { Subscription } from './subscription.js'

/**
 * @typedef {object} ClientOptions
 * @property {string} url `ws://…` or `wss://…`
 * @property {string} login The login id, for example `ana`.
 * @property {string} profileKey The key of the profile.
 * @property {string} applicationKey The key of the application.
 * @property {import('./backoff.js').ReconnectOptions | false} [reconnect] When to connect again;
 *   `false` for never.
 * @property {{ outgoing?: number, incoming?: number }} [heartBeat] How often this client lets itself
 *   be heard, and how often it wants to hear the broker, in milliseconds; zero for never. By default
 *   0 and 10 000: the broker asks with pings, which browsers answer even where timers stand still.
 * @property {number} [connectTimeout] How long connecting and logging in may take, in milliseconds;
 *   default 10 000.
 * @property {number} [closeTimeout] How long logging out may take, in milliseconds; default 5 000.
 * @property {number} [outgoingBytesMax] How many bytes may wait to be sent, while there is no
 *   connection or while the network takes nothing; default 1 MiB. A message that nothing waits
 *   before is given to a connection whatever its size.
 * @property {number} [incomingMax] How many messages may wait in an iterator; default 10 000.
 * @property {(error: unknown) => void} [onListenerError] Gets what listeners of this client throw,
 *   and what the promises that they return reject with; by default the global `reportError` does in
 *   browsers, and elsewhere it is written to the console. The client goes on either way.
 * @property {import('./socket.js').WebSocketClass} [WebSocket] Instead of the global one.
 * @property {import('./clock.js').Clock} [clock] For tests.
 */

/**
 * @typedef {object} Session
 * @property {string} login
 * @property {string} address Where others reach this client, for example `/agent/ana`.
 * @property {'agent' | 'super agent' | 'service' | 'admin'} profile
 * @property {string} id The broker's id of the session.
 * @property {string} server The broker's name and version.
 */

/**
 * @typedef {object} SendOptions
 * @property {string} [contentType] Default `text/plain;charset=utf-8` for text.
 * @property {Record<string, string>} [headers] Headers of one's own; they arrive as they are. Those
 *   of the protocol, such as `content-length`, are a TypeError; `message.userHeaders` has none.
 * @property {'error' | 'ignore'} [undeliverable] Whether it is an error if nobody is at an address;
 *   it is, unless this is `ignore`.
 * @property {AbortSignal} [signal] Gives up waiting; takes back what was not sent yet.
 */

/**
 * @typedef {object} OwnRequestOptions
 * @property {number} [timeout] How long the reply may take, in milliseconds; default 30 000.
 */

/** @typedef {Omit<SendOptions, 'undeliverable'> & OwnRequestOptions} RequestOptions */

/**
 * @typedef {object} SubscribeOptions
 * @property {'auto' | 'client' | 'client-individual'} [ack] Whether messages of a queue have to be
 *   acknowledged, each with those before it or each by itself; default `auto`, not at all.
 * @property {number} [prefetch] How many may be unacknowledged at once.
 * @property {Record<string, string>} [headers] Further headers of SUBSCRIBE.
 */

/**
 * @typedef {object} PresenceEvent Somebody came or went.
 * @property {'logged' | 'disconnected' | 'logout'} event
 * @property {string} login
 * @property {string} profile
 * @property {string} destination The address.
 * @property {number} connectionId
 * @property {string} reason
 * @property {Date} at
 * @property {boolean} snapshot Whether it tells of somebody who was there before.
 */

/**
 * @typedef {'idle' | 'connecting' | 'open' | 'waiting' | 'closing' | 'closed'} State
 *   `waiting` is between two attempts to connect.
 */

/**
 * @typedef {object} ClientEventMap
 * @property {CustomEvent<{ session: Session, reconnected: boolean }>} open It is logged in.
 * @property {CustomEvent<{ error: Error, retry: import('./errors.js').Retry | undefined,
 *   delay: number, attempt: number }>} reconnecting The connection failed or ended; another is
 *   made after `delay` milliseconds.
 * @property {CustomEvent<{ error: Error | undefined, code: number }>} close It is closed, and stays
 *   closed. The error is undefined where `close()` was called.
 * @property {CustomEvent<Message>} message A message to this client's own address.
 */

/**
 * @template {Event} E
 * @typedef {((event: E) => void) | { handleEvent(event: E): void }} Listener
 */

/**
 * A client. It connects again when its connection breaks, subscribes again, and then sends what
 * waited; what was sent already is never sent again.
 */
export class Client extends EventTarget {
  #options
  #clock
  #backoff
  #outgoing
  #report
  /** What listeners are wrapped in, so that they can be removed. @type {WeakMap<object, Function>} */
  #guards = new WeakMap()
  /** @type {State} */
  #state = 'idle'
  /** @type {Session | undefined} */
  #session
  /** @type {Connection | undefined} */
  #connection
  /** @type {any} */
  #reconnectTimer
  /** @type {Deferred<Session> | undefined} */
  #opening
  /** @type {Deferred<void> | undefined} */
  #closing
  /** Requests that a receipt answers. @type {Map<string, Pending>} */
  #pending = new Map()
  /** Requests that a message answers. @type {Map<string, Asked>} */
  #replies = new Map()
  /** @type {Map<string, Wish>} */
  #wishes = new Map()
  /** Those that ended, until the broker confirms it. @type {Map<string, Pick<Wish, 'frame'>>} */
  #orphans = new Map()
  /** @type {Set<Stream<any>>} */
  #streams = new Set()
  /** @type {Set<Stream<Message>>} */
  #inboxes = new Set()
  #lastId = 0

  /** @param {ClientOptions} options */
  constructor(options) {
    super()
    for (const name of /** @type {const} */ (['url', 'login', 'profileKey', 'applicationKey'])) {
      if (typeof options?.[name] !== 'string') throw new TypeError(`the option ${name} is missing`)
    }
    this.#options = { ...options }
    this.#clock = options.clock ?? systemClock
    this.#backoff = new Backoff(this.#clock, options.reconnect || {})
    this.#outgoing = new Outgoing(options.outgoingBytesMax ?? 1024 * 1024)
    this.#report = reporter(options.onListenerError)
  }

  /** What it is doing. */
  get state() {
    return this.#state
  }

  /** The session, from the first login until the client is closed. */
  get session() {
    return this.#session
  }

  /**
   * Connects and logs in. While the broker cannot be reached it tries again and again, unless the
   * option `reconnect` is `false`; a refused login rejects.
   *
   * @param {{ signal?: AbortSignal }} [options] The signal ends the attempts, not the connection.
   * @returns {Promise<Session>}
   */
  async connect({ signal } = {}) {
    signal?.throwIfAborted()
    if (this.#state === 'closing') await this.#closing?.promise
    if (this.#state === 'open' && this.#session) return this.#session
    this.#opening ??= new Deferred()
    const { promise } = this.#opening
    if (this.#state === 'idle' || this.#state === 'closed') {
      this.#backoff.reset()
      this.#open()
    }
    const giveUp = () => {
      if (this.#opening?.promise === promise) this.#giveUp(signal?.reason)
    }
    signal?.addEventListener('abort', giveUp, { once: true })
    try {
      return await promise
    } finally {
      signal?.removeEventListener('abort', giveUp)
    }
  }

  /**
   * Logs out. What was sent before is still confirmed; what waits for a connection is not sent.
   *
   * @returns {Promise<void>}
   */
  async close() {
    if (this.#state === 'closed' || this.#state === 'idle') return
    if (this.#closing) return this.#closing.promise
    if (!this.#connection) return this.#finish(undefined, 1000)
    this.#closing = new Deferred()
    this.#state = 'closing'
    this.#connection.leave(this.#nextId(), this.#options.closeTimeout ?? 5_000)
    return this.#closing.promise
  }

  /**
   * Sends a message; resolves when the broker has taken it, and says to how many sessions it was
   * given. While there is no connection the message waits.
   *
   * @param {string} destination An address (`/agent/ana`, `/service/billing`), topic or queue.
   * @param {import('./octets.js').Body} body Text, or octets.
   * @param {SendOptions} [options]
   * @returns {Promise<{ delivered: number }>}
   * @throws {BrokerError} `NO_SUCH_DESTINATION`, or what else the broker says.
   * @throws {UnconfirmedError} The connection broke before the broker answered.
   * @throws {import('./errors.js').OverflowError} Too much waits already.
   * @throws {TypeError} A header is not the sender's to give; nothing was sent.
   */
  async send(destination, body, options = {}) {
    checkDestination(destination)
    checkUserHeaders(options.headers)
    const octets = binaryOf(body)
    const text = octets ? undefined : String(body)
    const contentType = options.contentType ?? (octets ? undefined : 'text/plain;charset=utf-8')
    const headers = { ...options.headers, destination, 'content-type': contentType }
    const receipt = await this.#ask('SEND', headers, octets ?? text, options.signal)
    const delivered = Number(receipt.delivered ?? 0)
    if (delivered === 0 && options.undeliverable !== 'ignore' && isAddress(destination)) {
      const message = `nobody is at the destination ${destination}, or it takes no direct messages`
      throw new BrokerError('NO_SUCH_DESTINATION', message)
    }
    return { delivered }
  }

  /**
   * Sends a message and resolves with the answer, which the other side gives with
   * `message.reply()`. What was asked of an address only that address can answer; what was asked
   * of a topic or queue, whoever got it there.
   *
   * @param {string} destination
   * @param {import('./octets.js').Body} body
   * @param {RequestOptions} [options]
   * @returns {Promise<Message>}
   * @throws {TimeoutError} No reply came in time.
   */
  async request(destination, body, options = {}) {
    const { timeout = 30_000, signal, ...rest } = options
    checkDestination(destination)
    checkUserHeaders(rest.headers, CORRELATION)
    const id = randomWord()
    const patience = new AbortController()
    const giveUp = () => patience.abort(signal?.reason)
    const timer = this.#clock.setTimeout(() => patience.abort(new TimeoutError(timeout)), timeout)
    signal?.addEventListener('abort', giveUp, { once: true })
    if (signal?.aborted) giveUp()
    const replyTo = this.#session && { 'reply-to': this.#session.address }
    const headers = { ...rest.headers, ...replyTo, 'correlation-id': id }
    /** @type {Deferred<Message>} */
    const reply = new Deferred()
    this.#replies.set(id, { destination, reply })
    patience.signal.addEventListener('abort', () => reply.reject(patience.signal.reason))
    try {
      const sending = this.send(destination, body, { ...rest, headers, signal: patience.signal })
      // A reply proves that the request arrived, whatever became of its receipt.
      const isSent = sending.then(() => reply.promise)
      return await Promise.race([isSent, reply.promise])
    } finally {
      this.#clock.clearTimeout(timer)
      signal?.removeEventListener('abort', giveUp)
      this.#replies.delete(id)
    }
  }

  /**
   * The messages to this client's own address, from now on, across connections. It ends when the
   * client is closed, with an error if the broker closed it.
   *
   * @param {{ signal?: AbortSignal }} [options] The signal ends it, with its reason as the error.
   * @returns {AsyncIterableIterator<Message>}
   */
  messages({ signal } = {}) {
    /** @type {Stream<Message>} */
    const stream = this.#makeStream(() => {
      this.#inboxes.delete(stream)
      signal?.removeEventListener('abort', abort)
    })
    const abort = () => {
      this.#inboxes.delete(stream)
      this.#streams.delete(stream)
      stream.end(signal?.reason)
    }
    this.#inboxes.add(stream)
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted) abort()
    return stream
  }

  /**
   * Subscribes to a topic (`*` stands for one level, `>` at the end for all that follow) or a
   * queue; resolves when the broker has. The subscription is made again after each reconnection.
   *
   * @param {string} destination
   * @param {SubscribeOptions} [options]
   * @param {(message: Message) => unknown} [listener] Gets the messages; without one, iterate.
   * @returns {Promise<Subscription>}
   */
  async subscribe(destination, options = {}, listener) {
    checkSubscribed(destination)
    checkSubscribeHeaders(options.headers)
    const headers = {
      ...options.headers,
      destination,
      ack: options.ack,
      'prefetch-count': options.prefetch,
    }
    return this.#subscribe(destination, headers, (message) => message, listener)
  }

  /**
   * Watches clients: gets a copy of each message to the address, or to all addresses that the
   * regular expression matches as a whole, whether anybody is there yet or not.
   *
   * @param {string | RegExp} destination A name, or an expression in the syntax of Rust's `regex`.
   * @param {(message: Message) => unknown} [listener] Gets the messages; without one, iterate.
   * @returns {Promise<Subscription>}
   */
  async watch(destination, listener) {
    const isPattern = destination instanceof RegExp
    if (!isPattern) checkSubscribed(destination)
    const profile = this.#session?.profile
    if (profile === 'agent' || profile === 'admin') {
      throw new BrokerError('PROF_NO_RIGHTS', `the profile ${profile} may not watch clients`)
    }
    if (!isPattern && !destination.startsWith('/agent/')) {
      throw new BrokerError('PROF_NO_RIGHTS', `only agents may be watched, not ${destination}`)
    }
    // Also a name is sent as an expression: the broker refuses names of those who are away, and
    // closes, while an expression is a standing wish.
    const pattern = isPattern ? patternOf(destination) : quote(destination)
    const headers = { destination: pattern, 'destination-type': '1' }
    const name = isPattern ? pattern : destination
    return this.#subscribe(name, headers, (message) => message, listener)
  }

  /**
   * Hears who comes and goes. For services.
   *
   * @param {{ pattern?: string | RegExp, snapshot?: boolean }} [options] Which addresses, all by
   *   default; whether to hear first, after each reconnection too, who is there already.
   * @param {(event: PresenceEvent) => unknown} [listener] Gets the events; without one, iterate.
   * @returns {Promise<Subscription<PresenceEvent>>}
   */
  async presence({ pattern = '.*', snapshot = false } = {}, listener) {
    const profile = this.#session?.profile
    if (profile && profile !== 'service') {
      throw new BrokerError('PROF_NO_RIGHTS', `the profile ${profile} may not hear of presence`)
    }
    const text = pattern instanceof RegExp ? patternOf(pattern) : pattern
    const destination = '/broker/presence'
    const headers = { destination, 'destination-id': text, snapshot: snapshot ? 'true' : undefined }
    return this.#subscribe(destination, headers, presenceEvent, listener)
  }

  /**
   * What the listener throws, or what the promise that it returns rejects with, goes to the option
   * `onListenerError`.
   *
   * @template {keyof ClientEventMap} K
   * @param {K} type
   * @param {Listener<ClientEventMap[K]> | null} listener
   * @param {boolean | AddEventListenerOptions} [options]
   * @override
   */
  addEventListener(type, listener, options) {
    super.addEventListener(type, this.#guardOf(listener), options)
  }

  /**
   * @template {keyof ClientEventMap} K
   * @param {K} type
   * @param {Listener<ClientEventMap[K]> | null} listener
   * @param {boolean | EventListenerOptions} [options]
   * @override
   */
  removeEventListener(type, listener, options) {
    super.removeEventListener(type, this.#guardOf(listener), options)
  }

  /**
   * Node ends the program when a listener of an EventTarget throws.
   *
   * @param {any} listener
   * @returns {any}
   */
  #guardOf(listener) {
    if (!listener) return listener
    const known = this.#guards.get(listener)
    if (known) return known
    const call = (/** @type {any} */ event) =>
      typeof listener === 'function' ? listener.call(this, event) : listener.handleEvent(event)
    const guard = (/** @type {any} */ event) => callSafely(() => call(event), this.#report)
    this.#guards.set(listener, guard)
    return guard
  }

  // -- connecting ---------------------------------------------------------------------------

  #open() {
    const { url, login, profileKey, applicationKey, heartBeat = {} } = this.#options
    const { outgoing = 0, incoming = 10_000 } = heartBeat
    this.#state = 'connecting'
    try {
      const connection = new Connection(
        {
          url,
          WebSocket: webSocketClass(this.#options.WebSocket),
          login: { login, passcode: profileKey, 'secret-key': applicationKey, ...this.#wants },
          heartBeat: { outgoing, incoming },
          connectTimeout: this.#options.connectTimeout ?? 10_000,
          clock: this.#clock,
        },
        {
          onConnected: (headers) => this.#handleConnected(headers),
          onMessage: (frame) => this.#handleMessage(frame),
          onReceipt: (id, headers) => this.#takePending(id)?.resolve(headers),
          onRefused: (id, error) => this.#takePending(id)?.reject(error),
          onEnd: (end) => {
            if (this.#connection === connection) this.#handleEnd(end)
          },
        },
      )
      this.#connection = connection
    } catch (error) {
      // The address is none, or a key cannot be written: trying again would not help.
      this.#finish(/** @type {Error} */ (error), 1006)
    }
  }

  /**
   * What CONNECT asks for: direct messages without a subscription to them, and the subscriptions of
   * the connection before, so that nothing is missed until they are made again. Those of another
   * program under the same login are nothing to a client that logs in for the first time.
   *
   * @returns {Record<string, string>}
   */
  get #wants() {
    return this.#session ? { inbox: 'true', resume: 'true' } : { inbox: 'true' }
  }

  /** @param {Record<string, string>} headers */
  #handleConnected(headers) {
    if (this.#state === 'closing') return
    const before = this.#session
    const session = /** @type {Session} */ ({
      login: headers.login ?? this.#options.login,
      address: headers.destination ?? '',
      profile: headers['profile-desc'] ?? '',
      id: headers.session ?? '',
      server: headers.server ?? '',
    })
    this.#session = session
    this.#state = 'open'
    // A session that began just now has no subscriptions.
    if (session.id !== before?.id) this.#orphans.clear()
    for (const [id, orphan] of this.#orphans) this.#endResumed(id, orphan)
    for (const [id, wish] of this.#wishes) {
      this.#outgoing.remove(id)
      this.#declare(wish)
    }
    for (const [id, frame] of this.#outgoing.takeAll()) this.#write(id, frame)
    this.#opening?.resolve(session)
    this.#opening = undefined
    this.#tell('open', { session, reconnected: before !== undefined })
  }

  /** @param {import('./connection.js').End} end */
  #handleEnd({ error, retry, code, openFor }) {
    this.#connection = undefined
    for (const [id, pending] of this.#pending) {
      if (!pending.isWritten) continue
      this.#pending.delete(id)
      pending.lose(error)
    }
    if (this.#state === 'closing') return this.#finish(undefined, code)
    if (retry === 'never' || this.#options.reconnect === false) return this.#finish(error, code)
    const delay = this.#backoff.next(openFor, retry)
    this.#state = 'waiting'
    this.#reconnectTimer = this.#clock.setTimeout(() => this.#reconnect(), delay)
    // What the broker puts off stays put off; a network that is back need not be waited for.
    if (retry !== 'later') listenForNetwork('addEventListener', this.#reconnect)
    this.#tell('reconnecting', { error, retry, delay, attempt: this.#backoff.failures })
  }

  #reconnect = () => {
    this.#stopWaiting()
    if (this.#state === 'waiting') this.#open()
  }

  #stopWaiting() {
    this.#clock.clearTimeout(this.#reconnectTimer)
    listenForNetwork('removeEventListener', this.#reconnect)
  }

  /**
   * Ends the attempts of `connect()`.
   *
   * @param {Error} reason
   */
  #giveUp(reason) {
    const connection = this.#connection
    this.#finish(reason, 1006)
    connection?.cut(reason)
  }

  /**
   * @param {Error | undefined} error
   * @param {number} code
   */
  #finish(error, code) {
    this.#stopWaiting()
    this.#connection = undefined
    this.#state = 'closed'
    const closed = new ClosedError(error && { cause: error })
    this.#outgoing.takeAll()
    for (const pending of this.#pending.values()) pending.reject(closed)
    this.#pending.clear()
    for (const { reply } of this.#replies.values()) reply.reject(closed)
    for (const stream of this.#streams) stream.end(error)
    this.#streams.clear()
    for (const wish of this.#wishes.values()) wish.reject(closed)
    this.#wishes.clear()
    this.#orphans.clear()
    this.#inboxes.clear()
    this.#opening?.reject(error ?? closed)
    this.#opening = undefined
    this.#closing?.resolve()
    this.#closing = undefined
    this.#session = undefined
    this.#tell('close', { error, code })
  }

  /** Whether a request is sent, now or later. */
  get #takesRequests() {
    return this.#state === 'open' || this.#state === 'connecting' || this.#state === 'waiting'
  }

  /**
   * @param {keyof ClientEventMap} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }

  // -- requests -----------------------------------------------------------------------------

  /**
   * Sends a frame, now or when there is a connection; resolves with the headers of its receipt.
   *
   * @param {string} command
   * @param {Record<string, string | number | undefined>} headers
   * @param {string | Uint8Array} [body]
   * @param {AbortSignal} [signal]
   * @returns {Promise<Record<string, string>>}
   */
  async #ask(command, headers, body, signal) {
    signal?.throwIfAborted()
    if (!this.#takesRequests) throw new ClosedError()
    const id = this.#nextId()
    const frame = encodeFrame(command, { ...headers, receipt: id }, body)
    /** @type {Deferred<Record<string, string>>} */
    const answer = new Deferred()
    const lose = (/** @type {Error} */ cause) => answer.reject(new UnconfirmedError({ cause }))
    this.#makeRoom(id, frame)
    this.#pending.set(id, { ...answer, lose, isWritten: false })
    if (this.#state === 'open') this.#write(id, frame)
    const takeBack = () => {
      this.#outgoing.remove(id)
      this.#pending.delete(id)
      answer.reject(signal?.reason)
    }
    signal?.addEventListener('abort', takeBack, { once: true })
    try {
      return await answer.promise
    } finally {
      signal?.removeEventListener('abort', takeBack)
    }
  }

  /**
   * Has a frame wait for a connection, where there is none.
   *
   * @param {string} id
   * @param {string | Uint8Array} frame
   * @throws {import('./errors.js').OverflowError} Too much waits already.
   */
  #makeRoom(id, frame) {
    if (this.#state !== 'open') this.#outgoing.add(id, frame)
    else this.#outgoing.checkRoom(this.#connection?.bufferedBytes ?? 0, frame)
  }

  /**
   * @param {string} id
   * @param {string | Uint8Array} frame
   */
  #write(id, frame) {
    const pending = this.#pending.get(id)
    if (pending) pending.isWritten = true
    this.#connection?.send(frame)
  }

  /** @param {string} id */
  #takePending(id) {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  #nextId() {
    this.#lastId += 1
    return String(this.#lastId)
  }

  // -- messages and subscriptions -----------------------------------------------------------

  /** @param {import('./standard.js').Frame} frame */
  #handleMessage(frame) {
    const connection = this.#connection
    const message = new Message(frame, {
      settle: (command, id) => this.#settle(connection, command, id),
      send: (destination, body, options) => this.send(destination, body, options),
    })
    const { subscription = '', 'correlation-id': correlation = '' } = frame.headers
    const asked = this.#replies.get(correlation)
    if (asked && this.#isReply(message, asked.destination)) return asked.reply.resolve(message)
    const wish = this.#wishes.get(subscription)
    if (wish) return wish.deliver(message)
    if (subscription !== 'inbox') return this.#endStray(subscription, message)
    for (const inbox of this.#inboxes) inbox.push(message)
    this.#tell('message', message)
  }

  /**
   * Whether a message with a request's id is the reply, and not the request itself, which one also
   * gets who asks oneself or watches whom one asks; and whether it comes from whom was asked.
   *
   * @param {Message} message
   * @param {string} asked
   */
  #isReply({ destination, originDestination, headers }, asked) {
    const address = this.#session?.address
    const isOwnRequest = originDestination === address && 'reply-to' in headers
    // Whoever reads a topic or queue may answer: there the id alone tells, which nobody else knows.
    const isFromAsked = !isAddress(asked) || originDestination === asked
    return destination === address && isFromAsked && !isOwnRequest
  }

  /**
   * @param {Connection | undefined} connection The one that the message came by.
   * @param {'ACK' | 'NACK'} command
   * @param {string} id
   */
  async #settle(connection, command, id) {
    // Another connection does not know the id. The message went back to its queue by itself.
    if (!connection?.isConnected || connection !== this.#connection) throw new UnconfirmedError()
    await this.#ask(command, { id })
  }

  /**
   * @template T
   * @param {string} name
   * @param {Record<string, string | number | undefined>} headers
   * @param {(message: Message) => T} read
   * @param {((thing: T) => unknown) | undefined} listener
   * @returns {Promise<Subscription<T>>}
   */
  async #subscribe(name, headers, read, listener) {
    if (!this.#takesRequests) throw new ClosedError()
    const id = this.#nextId()
    const unsubscribe = () => this.#unsubscribe(id)
    /** @type {Stream<T> | undefined} */
    const stream = listener ? undefined : this.#makeStream(unsubscribe)
    const give = listener ?? ((/** @type {T} */ thing) => stream?.push(thing))
    /** @type {Deferred<unknown>} */
    const answer = new Deferred()
    /** @type {Wish} */
    const wish = {
      isDeclared: false,
      frame: (changes) => encodeFrame('SUBSCRIBE', { ...headers, id, ...changes }),
      deliver: (message) => callSafely(() => give(read(message)), this.#report),
      end: () => stream && this.#endStream(stream),
      resolve: answer.resolve,
      reject: (error) => {
        this.#wishes.delete(id)
        wish.end()
        answer.reject(error)
      },
    }
    // Throws here, and not in the middle of a later login, if a header cannot be written.
    this.#makeRoom(id, wish.frame({}))
    this.#wishes.set(id, wish)
    if (this.#state === 'open') this.#declare(wish)
    await answer.promise
    return new Subscription(name, stream, unsubscribe)
  }

  /**
   * Tells the broker of a subscription, for the first time or again.
   *
   * @param {Wish} wish
   */
  #declare(wish) {
    const receipt = this.#nextId()
    const { resolve, reject } = wish
    wish.isDeclared = true
    // If the connection breaks, the next one is told: nothing is lost.
    this.#pending.set(receipt, { resolve, reject, lose: () => {}, isWritten: true })
    this.#connection?.send(wish.frame({ receipt }))
  }

  /** @param {string} id */
  async #unsubscribe(id) {
    const wish = this.#wishes.get(id)
    if (!wish) return
    this.#wishes.delete(id)
    this.#outgoing.remove(id)
    wish.end()
    if (!wish.isDeclared || !this.#takesRequests) return
    // Until the broker confirms it, a session that is resumed may still have it.
    this.#orphans.set(id, wish)
    if (this.#state === 'open') await this.#sendUnsubscribe(id)
  }

  /**
   * Ends a subscription that a resumed session may have kept or not. The broker refuses to end one
   * that is not there: so it is made anew, as one that takes nothing for good, and ended.
   *
   * @param {string} id
   * @param {Pick<Wish, 'frame'>} orphan
   */
  #endResumed(id, orphan) {
    const idle = { ack: 'client-individual', 'prefetch-count': 1, snapshot: undefined }
    this.#connection?.send(orphan.frame(idle))
    this.#sendUnsubscribe(id).catch(() => {})
  }

  /**
   * Ends what this client did not subscribe to: another program may have had the session between two
   * of its connections. What comes for a subscription that is about to end is nobody's.
   *
   * @param {string} id
   * @param {Message} message
   */
  #endStray(id, { destination }) {
    if (id === '' || this.#orphans.has(id) || this.#state !== 'open') return
    this.#orphans.set(id, {
      frame: (changes) => encodeFrame('SUBSCRIBE', { destination, id, ...changes }),
    })
    this.#sendUnsubscribe(id).catch(() => {})
  }

  /**
   * Resolves when the broker knows, or when the connection ends; then the next one is told. It is
   * never refused for want of room: there are no more of these than subscriptions.
   *
   * @param {string} id
   */
  #sendUnsubscribe(id) {
    const receipt = this.#nextId()
    /** @type {Deferred<void>} */
    const answer = new Deferred()
    const resolve = () => {
      this.#orphans.delete(id)
      answer.resolve()
    }
    const reject = (/** @type {Error} */ error) => {
      if (error instanceof ClosedError) answer.resolve()
      else answer.reject(error)
    }
    this.#pending.set(receipt, { resolve, reject, lose: () => answer.resolve(), isWritten: true })
    this.#connection?.send(encodeFrame('UNSUBSCRIBE', { id, receipt }))
    return answer.promise
  }

  /**
   * @template T
   * @param {() => Promise<void> | void} onReturn
   * @returns {Stream<T>}
   */
  #makeStream(onReturn) {
    /** @type {Stream<T>} */
    const stream = new Stream(this.#options.incomingMax ?? 10_000, () => {
      this.#streams.delete(stream)
      // Nobody waits for this; a refusal ends the client, which its `close` event tells.
      Promise.resolve(onReturn()).catch(() => {})
    })
    this.#streams.add(stream)
    return stream
  }

  /** @param {Stream<any>} stream */
  #endStream(stream) {
    this.#streams.delete(stream)
    stream.end()
  }
}

/**
 * @typedef {object} Pending A request that waits for its receipt.
 * @property {(headers: Record<string, string>) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {(cause: Error) => void} lose The connection broke.
 * @property {boolean} isWritten Whether it was given to a connection.
 */

/**
 * @typedef {object} Asked A request that waits for its reply.
 * @property {string} destination
 * @property {Deferred<Message>} reply
 */

/**
 * @typedef {object} Wish A subscription, as each connection is told of it.
 * @property {boolean} isDeclared Whether a connection was told of it.
 * @property {(changes: Record<string, string | number | undefined>) => string | Uint8Array} frame
 *   Its SUBSCRIBE, with headers in the place of its own.
 * @property {(message: Message) => void} deliver
 * @property {() => void} end
 * @property {(headers: Record<string, string>) => void} resolve
 * @property {(error: Error) => void} reject
 */

/**
 * A regular expression that matches just this name.
 *
 * @param {string} name
 */
function quote(name) {
  return name.replace(/[\\.+*?()|[\]{}^$#&~-]/g, '\\$&')
}

/**
 * A regular expression as the broker writes it.
 *
 * @param {RegExp} expression
 */
function patternOf({ source, flags }) {
  const kept = flags.replace(/[^ims]/g, '')
  return kept ? `(?${kept})${source}` : source
}

/** @param {Message} message */
function presenceEvent(message) {
  const event = message.json()
  return /** @type {PresenceEvent} */ ({
    event: event.event,
    login: event.login,
    profile: event.profile,
    destination: event.destination,
    connectionId: event['connection-id'],
    reason: event.reason,
    at: new Date(event.at),
    snapshot: message.headers.snapshot === 'true',
  })
}

/** 128 random bits: what nobody can guess. */
function randomWord() {
  const octets = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(octets, (octet) => octet.toString(16).padStart(2, '0')).join('')
}

/**
 * Browsers say when the network is back; elsewhere nobody does.
 *
 * @param {'addEventListener' | 'removeEventListener'} method
 * @param {() => void} listener
 */
function listenForNetwork(method, listener) {
  const scope = /** @type {any} */ (globalThis)
  if (typeof scope[method] === 'function') scope[method]('online', listener)
}
