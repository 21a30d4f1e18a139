/** The client for new programs: promises, events and iterators, over STOMP 1.2. */

import { binaryOf } from './bytes.js'
import { systemClock } from './clock.js'
import { checkDestination, checkSubscribed, isAddress } from './destinations.js'
import { BrokerError, UnconfirmedError } from './errors.js'
import { ClientEvents } from './events.js'
import { CORRELATION, checkSubscribeHeaders, checkUserHeaders } from './headers.js'
import { Keeper } from './keeper.js'
import { Message } from './message.js'
import { checkOptions } from './options.js'
import { reporter } from './report.js'
import { Requests } from './requests.js'
import { Subscriptions } from './subscriptions.js'

/** @typedef {import('./events.js').PresenceEvent} PresenceEvent */
/** @typedef {import('./events.js').Session} Session */

/**
 * A client. When its connection breaks it connects again, makes its subscriptions again, and then
 * sends what waited. What was sent already is never sent again.
 */
export class Client extends ClientEvents {
  #keeper
  #requests
  #subscriptions

  /** @param {import('./options.js').ClientOptions} options */
  constructor(options) {
    const report = reporter(options?.onListenerError)
    super(report)
    checkOptions(options)
    const { clock = systemClock, outgoingBytesMax = 1024 * 1024, incomingMax = 10_000 } = options
    this.#keeper = new Keeper({ ...options }, clock, {
      onOpen: (session, before) => {
        this.#subscriptions.handleOpen(session.id === before?.id)
        this.#requests.flush()
      },
      onMessage: (frame) => this.#handleMessage(frame),
      onReceipt: (id, headers) => this.#requests.handleReceipt(id, headers),
      onRefused: (id, error) => this.#requests.handleRefusal(id, error),
      onLost: (error) => this.#requests.handleLoss(error),
      onClosed: (error, closed) => {
        this.#requests.handleClosed(closed)
        this.#subscriptions.handleClosed(error, closed)
      },
      tell: (type, detail) => this.#tell(type, detail),
    })
    this.#requests = new Requests(this.#keeper, clock, outgoingBytesMax)
    const incoming = { incomingMax, report }
    this.#subscriptions = new Subscriptions(this.#keeper, this.#requests, incoming)
  }

  /** What it is doing. */
  get state() {
    return this.#keeper.state
  }

  /** The session, from the first login until the client is closed. */
  get session() {
    return this.#keeper.session
  }

  /**
   * Connects and logs in. While the broker cannot be reached it tries again and again, unless the
   * option `reconnect` is `false`; a refused login rejects.
   *
   * @param {{ signal?: AbortSignal }} [options] The signal ends the attempts, not the connection.
   * @returns {Promise<Session>}
   */
  async connect({ signal } = {}) {
    return this.#keeper.connect(signal)
  }

  /**
   * Logs out. What was sent before is still confirmed; what waits for a connection is not sent.
   *
   * @returns {Promise<void>}
   */
  async close() {
    return this.#keeper.close(() => this.#requests.nextId())
  }

  /**
   * Sends a message; resolves when the broker has taken it, and tells how many sessions it
   * was given to. While there is no connection the message waits.
   *
   * @param {string} destination An address (`/agent/ana`, `/service/billing`), topic or queue.
   * @param {import('./bytes.js').Body} body Text, or bytes.
   * @param {import('./options.js').SendOptions} [options]
   * @returns {Promise<{ delivered: number }>}
   * @throws {BrokerError} `NO_SUCH_DESTINATION`, or another code of the broker's.
   * @throws {UnconfirmedError} The connection broke before the broker answered.
   * @throws {import('./errors.js').OverflowError} Too much waits already.
   * @throws {TypeError} A header belongs to the protocol; nothing was sent.
   */
  async send(destination, body, options = {}) {
    checkDestination(destination)
    checkUserHeaders(options.headers)
    const bytes = binaryOf(body)
    const text = bytes ? undefined : String(body)
    const contentType = options.contentType ?? (bytes ? undefined : 'text/plain;charset=utf-8')
    const headers = { ...options.headers, destination, 'content-type': contentType }
    const receipt = await this.#requests.ask('SEND', headers, bytes ?? text, options.signal)
    const delivered = Number(receipt.delivered ?? 0)
    if (delivered === 0 && options.undeliverable !== 'ignore' && isAddress(destination)) {
      const message = `nobody is at the destination ${destination}, or it takes no direct messages`
      throw new BrokerError('NO_SUCH_DESTINATION', message)
    }
    return { delivered }
  }

  /**
   * Sends a message and resolves with the answer, which the other side gives with
   * `message.reply()`. A request to an address is answered by that address only, a request to a
   * topic or queue by any client that gets it there.
   *
   * @param {string} destination
   * @param {import('./bytes.js').Body} body
   * @param {import('./options.js').RequestOptions} [options]
   * @returns {Promise<Message>}
   * @throws {import('./errors.js').TimeoutError} No reply came in time.
   */
  async request(destination, body, options = {}) {
    const { timeout = 30_000, signal, ...rest } = options
    checkDestination(destination)
    checkUserHeaders(rest.headers, CORRELATION)
    const replyTo = this.session && { 'reply-to': this.session.address }
    return this.#requests.awaitReply(destination, { timeout, signal }, (id, signal) => {
      const headers = { ...rest.headers, ...replyTo, 'correlation-id': id }
      return this.send(destination, body, { ...rest, headers, signal })
    })
  }

  /**
   * The messages to this client's own address, from now on, across connections. The iterator ends
   * when the client is closed, with an error if the broker closed it.
   *
   * @param {{ signal?: AbortSignal }} [options] The signal ends it, with its reason as the error.
   * @returns {AsyncIterableIterator<Message>}
   */
  messages({ signal } = {}) {
    return this.#subscriptions.messages(signal)
  }

  /**
   * Subscribes to a topic (`*` stands for one level, `>` at the end for all that follow) or a
   * queue; resolves when the broker confirms it. The subscription is made again after each
   * reconnection.
   *
   * @param {string} destination
   * @param {import('./options.js').SubscribeOptions} [options]
   * @param {(message: Message) => unknown} [listener] Gets the messages; without one, iterate.
   * @returns {Promise<import('./subscription.js').Subscription>}
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
    return this.#subscriptions.subscribe(destination, headers, (message) => message, listener)
  }

  /**
   * Watches clients: gets a copy of each message to the address, or to all addresses that the
   * regular expression matches as a whole, also of clients that come later.
   *
   * @param {string | RegExp} destination A name, or an expression in the syntax of Rust's `regex`.
   * @param {(message: Message) => unknown} [listener] Gets the messages; without one, iterate.
   * @returns {Promise<import('./subscription.js').Subscription>}
   */
  async watch(destination, listener) {
    const isPattern = destination instanceof RegExp
    if (!isPattern) checkSubscribed(destination)
    const profile = this.session?.profile
    if (profile === 'agent' || profile === 'admin') {
      throw new BrokerError('PROF_NO_RIGHTS', `the profile ${profile} may not watch clients`)
    }
    if (!isPattern && !destination.startsWith('/agent/')) {
      throw new BrokerError('PROF_NO_RIGHTS', `only agents may be watched, not ${destination}`)
    }
    // A name is sent as an expression, too: the broker refuses the name of a client that is away and
    // ends the connection, while an expression also matches clients that come later.
    const pattern = isPattern ? patternOf(destination) : quote(destination)
    const headers = { destination: pattern, 'destination-type': '1' }
    const name = isPattern ? pattern : destination
    return this.#subscriptions.subscribe(name, headers, (message) => message, listener)
  }

  /**
   * Gets an event whenever a client comes or goes. For services.
   *
   * @param {{ pattern?: string | RegExp, snapshot?: boolean }} [options] Which addresses, all by
   *   default; whether to get events of the clients that are there already, at first and after each
   *   reconnection.
   * @param {(event: PresenceEvent) => unknown} [listener] Gets the events; without one, iterate.
   * @returns {Promise<import('./subscription.js').Subscription<PresenceEvent>>}
   */
  async presence({ pattern = '.*', snapshot = false } = {}, listener) {
    const profile = this.session?.profile
    if (profile && profile !== 'service') {
      throw new BrokerError('PROF_NO_RIGHTS', `the profile ${profile} may not hear of presence`)
    }
    const text = pattern instanceof RegExp ? patternOf(pattern) : pattern
    const destination = '/broker/presence'
    const headers = { destination, 'destination-id': text, snapshot: snapshot ? 'true' : undefined }
    return this.#subscriptions.subscribe(destination, headers, presenceEvent, listener)
  }

  /** @param {import('./standard.js').Frame} frame */
  #handleMessage(frame) {
    const { connection, session } = this.#keeper
    const message = new Message(frame, {
      settle: (command, id) => this.#settle(connection, command, id),
      send: (destination, body, options) => this.send(destination, body, options),
    })
    if (this.#requests.takesReply(message, session?.address)) return
    if (this.#subscriptions.handleMessage(message)) this.#tell('message', message)
  }

  /**
   * @param {import('./connection.js').Connection | undefined} connection The one that the message
   *   came by.
   * @param {'ACK' | 'NACK'} command
   * @param {string} id
   */
  async #settle(connection, command, id) {
    // The id belongs to its connection. When that ends, the broker puts the message back itself.
    if (!connection?.isConnected || connection !== this.#keeper.connection) {
      throw new UnconfirmedError()
    }
    await this.#requests.ask(command, { id })
  }

  /**
   * @param {keyof import('./events.js').ClientEventMap} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }
}

/**
 * A regular expression that matches just this name.
 *
 * @param {string} name
 */
function quote(name) {
  return name.replace(/[\\.+*?()|[\]{}^$#&~-]/g, '\\$&')
}

/**
 * A regular expression in the syntax of the broker.
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
