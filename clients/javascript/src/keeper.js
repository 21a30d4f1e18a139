/** Keeps a client connected: the first login, the logins after it, and the end. */

import { Backoff } from './backoff.js'
import { Connection } from './connection.js'
import { Deferred } from './deferred.js'
import { ClosedError } from './errors.js'
import { webSocketClass } from './socket.js'

/** @typedef {import('./events.js').Session} Session */

/**
 * @typedef {'idle' | 'connecting' | 'open' | 'waiting' | 'closing' | 'closed'} State
 *   `waiting` is between two attempts to connect.
 */

/**
 * @typedef {object} KeeperHandlers What happens, in the order in which it can happen.
 * @property {(session: Session, before: Session | undefined) => void} onOpen The client is logged
 *   in; `before` is the session of the login before, if the client was not closed since.
 * @property {(frame: import('./standard.js').Frame) => void} onMessage
 * @property {(receipt: string, headers: Record<string, string>) => void} onReceipt
 * @property {(receipt: string, error: Error) => void} onRefused
 * @property {(error: Error) => void} onLost A connection ended. What it had not confirmed is
 *   unconfirmed for good.
 * @property {(error: Error | undefined, closed: ClosedError) => void} onClosed The client is closed.
 *   Without an error, the program closed it.
 * @property {(type: 'open' | 'reconnecting' | 'close', detail: unknown) => void} tell
 */

/** What a client is connected by. At most one connection at a time is made or used. */
export class Keeper {
  #options
  #clock
  #handlers
  #backoff
  /** @type {State} */
  #state = 'idle'
  /** @type {Session | undefined} */
  #session
  /** @type {Connection | undefined} */
  #connection
  /** @type {any} */
  #timer
  /** @type {Deferred<Session> | undefined} */
  #opening
  /** @type {Deferred<void> | undefined} */
  #closing

  /**
   * @param {import('./options.js').ClientOptions} options
   * @param {import('./clock.js').Clock} clock
   * @param {KeeperHandlers} handlers
   */
  constructor(options, clock, handlers) {
    this.#options = options
    this.#clock = clock
    this.#handlers = handlers
    this.#backoff = new Backoff(clock, options.reconnect || {})
  }

  get state() {
    return this.#state
  }

  /** The session, from the first login until the client is closed. */
  get session() {
    return this.#session
  }

  get connection() {
    return this.#connection
  }

  get isOpen() {
    return this.#state === 'open'
  }

  /** Whether a request is sent, now or after the next login. */
  get takesRequests() {
    return this.#state === 'open' || this.#state === 'connecting' || this.#state === 'waiting'
  }

  /** How many bytes the connection was given that the network has not accepted yet. */
  get bufferedBytes() {
    return this.#connection?.bufferedBytes ?? 0
  }

  /** @param {string | Uint8Array} frame */
  send(frame) {
    this.#connection?.send(frame)
  }

  /**
   * Connects and logs in, as often as it takes.
   *
   * @param {AbortSignal | undefined} signal Ends the attempts, not the connection.
   * @returns {Promise<Session>}
   */
  async connect(signal) {
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
   * Logs out.
   *
   * @param {() => string} makeReceipt Names the receipt of DISCONNECT.
   * @returns {Promise<void>}
   */
  async close(makeReceipt) {
    if (this.#state === 'closed' || this.#state === 'idle') return
    if (this.#closing) return this.#closing.promise
    if (!this.#connection) return this.#finish(undefined, 1000)
    this.#closing = new Deferred()
    this.#state = 'closing'
    this.#connection.leave(makeReceipt(), this.#options.closeTimeout ?? 5_000)
    return this.#closing.promise
  }

  #open() {
    const { url, login, profileKey, applicationKey, heartBeat = {} } = this.#options
    const { outgoing = 0, incoming = 10_000 } = heartBeat
    const { onMessage, onReceipt, onRefused } = this.#handlers
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
          onMessage,
          onReceipt,
          onRefused,
          onEnd: (end) => {
            if (this.#connection === connection) this.#handleEnd(end)
          },
        },
      )
      this.#connection = connection
    } catch (error) {
      // The address is malformed, or a key cannot be written: another attempt would fail alike.
      this.#finish(/** @type {Error} */ (error), 1006)
    }
  }

  /**
   * The wishes that CONNECT states: direct messages without a subscription, and, after a connection
   * broke, its subscriptions, so that no message is missed until they are made again. A client that
   * logs in for the first time does not want those: another program with the same login made them.
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
    this.#handlers.onOpen(session, before)
    this.#opening?.resolve(session)
    this.#opening = undefined
    this.#handlers.tell('open', { session, reconnected: before !== undefined })
  }

  /** @param {import('./connection.js').End} end */
  #handleEnd({ error, retry, code, openFor }) {
    this.#connection = undefined
    this.#handlers.onLost(error)
    if (this.#state === 'closing') return this.#finish(undefined, code)
    if (retry === 'never' || this.#options.reconnect === false) return this.#finish(error, code)
    const delay = this.#backoff.next(openFor, retry)
    this.#state = 'waiting'
    this.#timer = this.#clock.setTimeout(() => this.#reconnect(), delay)
    // The broker's `later` holds even if the network comes back; other delays end then.
    if (retry !== 'later') listenForNetwork('addEventListener', this.#reconnect)
    const attempt = this.#backoff.failures
    this.#handlers.tell('reconnecting', { error, retry, delay, attempt })
  }

  #reconnect = () => {
    this.#stopWaiting()
    if (this.#state === 'waiting') this.#open()
  }

  #stopWaiting() {
    this.#clock.clearTimeout(this.#timer)
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
    this.#handlers.onClosed(error, closed)
    this.#opening?.reject(error ?? closed)
    this.#opening = undefined
    this.#closing?.resolve()
    this.#closing = undefined
    this.#session = undefined
    this.#handlers.tell('close', { error, code })
  }
}

/**
 * Browsers tell when the network is back; other environments do not.
 *
 * @param {'addEventListener' | 'removeEventListener'} method
 * @param {() => void} listener
 */
function listenForNetwork(method, listener) {
  const scope = /** @type {any} */ (globalThis)
  if (typeof scope[method] === 'function') scope[method]('online', listener)
}
