/** The class that existing pages know. It speaks the classic dialect. */

import { binaryOf } from './bytes.js'
import { decodeClassic, encodeClassic } from './classic.js'
import { callSafely, reporter } from './report.js'
import { Socket, webSocketClass } from './socket.js'

/**
 * @callback OnOpen The client is logged in.
 * @param {string} session_id
 * @param {string} destination_id The client's address, for example `/agent/ana`.
 * @param {string} profile `agent`, `super agent`, `service` or `admin`.
 * @param {string} connection_id
 * @returns {void}
 */

/**
 * @callback OnClosed The connection ended, or never began.
 * @param {string} session_id Empty, if the client was not logged in.
 * @param {number} code The WebSocket close code.
 * @param {string} reason A sentence.
 * @returns {void}
 */

/**
 * @callback OnError The broker refused something, or the connection failed.
 * @param {string} error A sentence.
 * @param {ErrorDetails} details What a program can compare.
 * @returns {void}
 */

/**
 * @typedef {object} ErrorDetails
 * @property {string} code The broker's `error-code`, or `NOT_CONNECTED`, `INVALID_ARGUMENT`, or
 *   `CONNECTION_FAILED`.
 * @property {string} [retry] Where the broker ends the connection: `never`, `later` or `now`.
 * @property {string} [transaction] What the call returned that was refused.
 */

/**
 * @callback OnMessage A message arrived, or the copy of one.
 * @param {string} origin The login id of the sender.
 * @param {string} destination The address of the sender, to answer to.
 * @param {string} content_type
 * @param {string | Uint8Array} payload Bytes, if the body is not UTF-8 text.
 * @param {Record<string, string>} headers All of them.
 * @returns {void}
 */

/**
 * @callback OnACK The broker carried out a request.
 * @param {string} data `OK`, a line end, and, for subscribe and unsubscribe, the list of clients.
 * @param {{ transaction: string }} details What the call returned that is acknowledged.
 * @returns {void}
 */

/**
 * @typedef {object} DropInOptions
 * @property {string} [applicationKey] For this client, instead of `CFG_STOMP_SECRET_KEY`.
 * @property {(error: unknown) => void} [onListenerError] Gets what callbacks throw, and what the
 *   promises that they return reject with; by default the global `reportError` does in browsers, and
 *   elsewhere it is written to the console. The client goes on either way.
 * @property {import('./socket.js').WebSocketClass} [WebSocket] Instead of the global one.
 */

/** A client with callbacks. A page may have several. */
export class COM_BROKER_Client {
  /** The session id, once logged in. */
  cur_session = ''
  /** This client's own address, once logged in. */
  cur_destination = ''

  /** @type {Link | undefined} */
  #link
  #lastId = 0
  #debugs = false
  /** @type {Partial<Callbacks>} */
  #callbacks = {}
  #options
  #report

  /**
   * @param {string | number} idClient What this client is called in the console.
   * @param {string} wsurl `ws://…` or `wss://…`
   * @param {DropInOptions} [options]
   */
  constructor(idClient, wsurl, options = {}) {
    this.m_id = idClient
    this.url = wsurl
    /** The application key of this client; undefined for that of all, `CFG_STOMP_SECRET_KEY`. */
    this.applicationKey = options.applicationKey
    // A client that is written to the console or as JSON does not show it.
    Object.defineProperty(this, 'applicationKey', { enumerable: false })
    this.#options = options
    this.#report = reporter(options.onListenerError)
  }

  /**
   * Sets the callbacks. To be called before `connect`.
   *
   * @param {OnOpen | null} [onOpen]
   * @param {OnClosed | null} [onClosed]
   * @param {OnError | null} [onError]
   * @param {OnMessage | null} [onMessage]
   * @param {OnACK | null} [onACK]
   */
  linkEvents(onOpen, onClosed, onError, onMessage, onACK) {
    this.#callbacks = { onOpen, onClosed, onError, onMessage, onACK }
  }

  /**
   * Logs in; `onOpen` or `onError` says how that went.
   *
   * @param {string} login_id
   * @param {string} secret_key The key of the profile.
   */
  connect(login_id, secret_key) {
    if (this.#link) {
      console.warn(`[${this.m_id}] this client is connected already`)
      return
    }
    this.cur_session = ''
    this.cur_destination = ''
    const headers = {
      'accept-version': '1.2',
      login: login_id,
      passcode: secret_key,
      'secret-key': this.applicationKey ?? globalApplicationKey(),
    }
    this.#debug(`connecting to ${this.url} as ${login_id}`)
    try {
      const login = encodeClassic('CONNECT', headers)
      this.#link = new Link(webSocketClass(this.#options.WebSocket), this.url, login, {
        onFrame: (link, frame) => this.#handleFrame(link, frame),
        onFailure: (why) => {
          this.#call('onError', `${this.url}: ${why}`, { code: 'CONNECTION_FAILED' })
        },
        onEnd: (link, code, reason) => this.#handleEnd(link, code, reason),
      })
    } catch (error) {
      this.#fail('INVALID_ARGUMENT', /** @type {Error} */ (error).message)
      queueMicrotask(() => this.#call('onClosed', '', 1006, CLOSE_REASONS[1006] ?? ''))
    }
  }

  /**
   * Sends a message; `onACK` or `onError` says how that went.
   *
   * @param {string} destination An address, for example `/agent/ana`, or a topic or queue.
   * @param {import('./bytes.js').Body} body Text, or bytes.
   * @param {string} [content_type]
   * @returns {string | undefined} The transaction, which the callbacks name.
   */
  send(destination, body, content_type = 'text/plain') {
    const headers = { destination, 'content-type': content_type }
    return this.#request('SEND', headers, binaryOf(body) ?? String(body))
  }

  /**
   * Watches other clients: gets a copy of each message that they get.
   *
   * @param {string} destination An address, a topic, or a regular expression on addresses.
   * @param {boolean | string | number} [use_regex] `true`, `1` or `"1"` for a regular expression.
   * @returns {string | undefined} The transaction, which the callbacks name.
   */
  subscribe(destination, use_regex = false) {
    const isPattern = use_regex === true || String(use_regex) === '1'
    return this.#request('SUBSCRIBE', { destination, 'destination-type': isPattern ? '1' : '0' })
  }

  /**
   * Ends all subscriptions of this client, or one.
   *
   * @param {string} [destination] What `subscribe` was called with.
   * @returns {string | undefined} The transaction, which the callbacks name.
   */
  unsubscribe(destination) {
    return this.#request('UNSUBSCRIBE', destination === undefined ? {} : { destination })
  }

  /** Logs out; `onClosed` follows. */
  disconnect() {
    const link = this.#link
    this.#link = undefined
    link?.leave(encodeClassic('DISCONNECT', { 'receipt-id': this.#nextId() }))
  }

  /** Logs out, as existing programs spell it. */
  diconnectToServer() {
    this.disconnect()
  }

  /** Writes what happens to the console. Keys and bodies are never written. */
  activeDebug() {
    this.#debugs = true
  }

  /** Ends what `activeDebug` began. */
  deactiveDebug() {
    this.#debugs = false
  }

  /**
   * @param {string} command
   * @param {Record<string, string>} headers
   * @param {string | Uint8Array} [body]
   */
  #request(command, headers, body) {
    if (!this.#link?.isLoggedIn) {
      this.#fail('NOT_CONNECTED', `${command} needs a client that is logged in: call connect()`)
      return undefined
    }
    const transaction = this.#nextId()
    const all = { transaction, 'session-id': this.cur_session, ...headers }
    try {
      this.#link.send(encodeClassic(command, all, body))
    } catch (error) {
      this.#fail('INVALID_ARGUMENT', /** @type {Error} */ (error).message)
      return undefined
    }
    this.#debug(`sent ${command} ${JSON.stringify(all)}`)
    return transaction
  }

  /**
   * Reports a fault found here, after the call that it is about has returned.
   *
   * @param {string} code
   * @param {string} error
   */
  #fail(code, error) {
    queueMicrotask(() => this.#call('onError', error, { code }))
  }

  /**
   * @template {keyof Callbacks} K
   * @param {K} name
   * @param {Parameters<NonNullable<Callbacks[K]>>} given
   */
  #call(name, ...given) {
    const callback = /** @type {((...given: any[]) => unknown) | null | undefined} */ (
      this.#callbacks[name]
    )
    callSafely(() => callback?.(...given), this.#report)
  }

  /**
   * @param {Link} link
   * @param {import('./classic.js').ClassicFrame} frame
   */
  #handleFrame(link, { command, headers, body }) {
    this.#debug(`received ${command} ${JSON.stringify(headers)}`)
    const header = (/** @type {string} */ name) => headers[name] ?? ''
    const transaction = header('transaction')
    if (command === 'CONNECTED') {
      link.session = header('session-id')
      this.cur_session = link.session
      this.cur_destination = header('destination')
      const [profile, connection] = [header('profile-desc'), header('connection-id')]
      this.#call('onOpen', link.session, this.cur_destination, profile, connection)
    } else if (command === 'MESSAGE') {
      const [origin, address, type] = ['origin', 'destination', 'content-type'].map(header)
      this.#call('onMessage', origin ?? '', address ?? '', type ?? '', body, headers)
    } else if (command === 'ACK' && headers['error-desc'] === 'OK') {
      this.#call('onACK', `OK\n${body}`, { transaction })
    } else if (command === 'ACK' || command === 'ERROR') {
      /** @type {ErrorDetails} */
      const details = { code: header('error-code') }
      if (headers.retry) details.retry = headers.retry
      if (transaction) details.transaction = transaction
      this.#call('onError', header('error-desc'), details)
    }
  }

  /**
   * @param {Link} link
   * @param {number} code
   * @param {string} reason
   */
  #handleEnd(link, code, reason) {
    this.#debug(`closed with ${code}`)
    if (this.#link === link) this.#link = undefined
    const sentence = reason || CLOSE_REASONS[code] || 'The connection was closed.'
    this.#call('onClosed', link.session, code, sentence)
  }

  #nextId() {
    this.#lastId += 1
    return String(this.#lastId)
  }

  /** @param {string} line */
  #debug(line) {
    if (this.#debugs) console.debug(`[${this.m_id}] ${line}`)
  }
}

/**
 * @typedef {object} Callbacks
 * @property {OnOpen | null | undefined} onOpen
 * @property {OnClosed | null | undefined} onClosed
 * @property {OnError | null | undefined} onError
 * @property {OnMessage | null | undefined} onMessage
 * @property {OnACK | null | undefined} onACK
 */

/** The key of clients without the option `applicationKey`. */
function globalApplicationKey() {
  // By its name alone, so that one that was declared with `let` or `const` is found as well.
  // @ts-expect-error: it is declared nowhere
  return typeof CFG_STOMP_SECRET_KEY === 'undefined' ? DEVELOPMENT_KEY : CFG_STOMP_SECRET_KEY
}

/** The key that brokers accept unless they are configured with others. */
const DEVELOPMENT_KEY = 'my_app_secret_key'

/** @type {Record<number, string>} */
const CLOSE_REASONS = {
  1000: 'The connection was closed in order.',
  1001: 'The broker is shutting down.',
  1002: 'The broker found a fault in the WebSocket protocol.',
  1005: 'The connection was closed without a reason.',
  1006: 'The connection could not be made, or broke.',
  1007: 'The broker was sent text that is not UTF-8.',
  1009: 'The broker was sent more than its limits allow.',
}

/** How long a broker that was told of the end may take to close. */
const LEAVE_MS = 5000

/** One connection, from its beginning to its end. */
class Link {
  session = ''
  #socket
  #handlers
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer

  /**
   * @param {import('./socket.js').WebSocketClass} Class
   * @param {string} url
   * @param {string | Uint8Array} login
   * @param {object} handlers
   * @param {(link: Link, frame: import('./classic.js').ClassicFrame) => void} handlers.onFrame
   * @param {(why: string) => void} handlers.onFailure
   * @param {(link: Link, code: number, reason: string) => void} handlers.onEnd
   */
  constructor(Class, url, login, handlers) {
    this.#handlers = handlers
    this.#socket = new Socket(Class, url, 'stomp', {
      onOpen: () => this.#socket.send(login),
      onData: (data) => handlers.onFrame(this, decodeClassic(data)),
      onFailure: handlers.onFailure,
      onEnd: ({ code, reason }) => this.#end(code, reason),
    })
  }

  get isLoggedIn() {
    return this.session !== '' && this.#socket.isOpen
  }

  /** @param {string | Uint8Array} frame */
  send(frame) {
    this.#socket.send(frame)
  }

  /**
   * Logs out, and waits for the broker to close.
   *
   * @param {string | Uint8Array} logout
   */
  leave(logout) {
    if (this.isLoggedIn) this.send(logout)
    else this.#socket.close()
    this.#timer = setTimeout(() => {
      this.#socket.abandon()
      this.#end(1006, '')
    }, LEAVE_MS)
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #end(code, reason) {
    clearTimeout(this.#timer)
    this.#handlers.onEnd(this, code, reason)
  }
}
