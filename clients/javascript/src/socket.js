/** WebSockets: which class is used, why a connection failed, and how one is dropped. */

/** @typedef {new (url: string, protocols: string[]) => any} WebSocketClass
 * The browser's, or another with the same interface, for example that of the package `ws`. */

/** @type {() => WebSocketClass | undefined} */
let findDefault = () => /** @type {any} */ (globalThis).WebSocket

/**
 * Sets how the class is found that is used unless an option gives one.
 *
 * @param {() => WebSocketClass | undefined} find
 */
export function provideWebSocket(find) {
  findDefault = find
}

/**
 * @param {WebSocketClass} [given]
 * @returns {WebSocketClass}
 */
export function webSocketClass(given) {
  const found = given ?? findDefault()
  if (found) return found
  throw new TypeError(
    'there is no WebSocket here: install the package ws, or give a class as the option WebSocket',
  )
}

/**
 * Makes a sentence that says why there is no connection, from what the WebSocket tells.
 *
 * @callback Explain
 * @param {string} url
 * @param {unknown} cause Undefined where nothing is known.
 * @returns {string}
 */

/** @type {Explain} */
let explain = () =>
  'there is no connection, and browsers do not say why: is the broker running there, does the ' +
  'port speak what the address says (ws:// without TLS, wss:// with), and is its certificate trusted?'

/**
 * Sets what explains failed connections. Browsers give programs no reason.
 *
 * @param {Explain} given
 */
export function provideExplanation(given) {
  explain = given
}

/**
 * Finds out why a connection failed: the WebSocket of Node itself does not tell.
 *
 * @callback Inquire
 * @param {string} url
 * @returns {Promise<unknown>}
 */

/** @type {Inquire | undefined} */
let inquire

/**
 * Sets what finds out why connections failed.
 *
 * @param {Inquire} given
 */
export function provideInquiry(given) {
  inquire = given
}

/**
 * @typedef {object} SocketEnd
 * @property {number} code The WebSocket close code.
 * @property {string} reason What the other side gave as the reason; often empty.
 * @property {string} why A sentence.
 * @property {unknown} cause What the WebSocket said of it, where it says anything.
 */

/**
 * @typedef {object} SocketHandlers
 * @property {() => void} onOpen
 * @property {(data: string | ArrayBuffer) => void} onData
 * @property {(why: string) => void} [onFailure] The connection failed; `onEnd` follows.
 * @property {(end: SocketEnd) => void} onEnd Called once, last; not after `abandon`.
 */

/** A WebSocket that knows why it ended. */
export class Socket {
  #socket
  #url
  #handlers
  #isInquired
  #hasOpened = false
  #isFailing = false
  #isOver = false
  /** @type {unknown} */
  #cause

  /**
   * @param {WebSocketClass} Class
   * @param {string} url
   * @param {string} protocol
   * @param {SocketHandlers} handlers
   */
  constructor(Class, url, protocol, handlers) {
    const socket = new Class(url, [protocol])
    this.#socket = socket
    this.#url = url
    this.#handlers = handlers
    this.#isInquired = Class === /** @type {any} */ (globalThis).WebSocket
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => {
      this.#hasOpened = true
      handlers.onOpen()
    }
    socket.onmessage = (/** @type {any} */ event) => handlers.onData(event.data)
    socket.onerror = (/** @type {any} */ event) => {
      this.#cause ??= event?.error
      if (this.#hasOpened) handlers.onFailure?.(this.#why(1006, ''))
      // The WebSocket of Node itself tells of no `close` after this.
      else this.#failToOpen()
    }
    socket.onclose = (/** @type {any} */ { code, reason }) => {
      if (this.#hasOpened) this.#end(code, reason)
      else this.#failToOpen()
    }
    // The package ws gives the answer of a server that refuses to a listener of this event.
    if (typeof socket.on === 'function') {
      socket.on('unexpected-response', (/** @type {any} */ _, /** @type {any} */ response) => {
        readRefusal(response, (refusal) => {
          this.#cause ??= refusal
          socket.terminate()
        })
      })
    }
  }

  /** Whether it can send. */
  get isOpen() {
    return this.#socket.readyState === OPEN
  }

  /** How many bytes it was given that the network has not accepted yet. */
  get bufferedBytes() {
    return Number(this.#socket.bufferedAmount) || 0
  }

  /** @param {string | Uint8Array} data */
  send(data) {
    this.#socket.send(data)
  }

  close() {
    this.#socket.close(1000)
  }

  /** Drops a socket that may never answer again: its handlers are not called any more. */
  abandon() {
    const socket = this.#socket
    this.#isOver = true
    socket.onopen = socket.onmessage = socket.onclose = null
    // The package ws throws errors that have no listener.
    socket.onerror = () => {}
    // Its close waits half a minute for an answer; its terminate does not.
    if (typeof socket.terminate === 'function') socket.terminate()
    else socket.close()
  }

  async #failToOpen() {
    if (this.#isFailing) return
    this.#isFailing = true
    if (this.#isInquired && inquire) {
      this.#cause = (await inquire(this.#url).catch(() => undefined)) ?? this.#cause
    }
    if (this.#isOver) return
    this.#handlers.onFailure?.(this.#why(1006, ''))
    this.#end(1006, '')
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #end(code, reason) {
    if (this.#isOver) return
    this.#isOver = true
    this.#handlers.onEnd({ code, reason, why: this.#why(code, reason), cause: this.#cause })
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #why(code, reason) {
    if (!this.#hasOpened) return explain(this.#url, this.#cause)
    const what = reason ? `${code}, ${reason}` : String(code)
    if (code !== 1006) return `the connection was closed (${what})`
    const { message } = /** @type {Partial<Error>} */ (this.#cause ?? {})
    return `the connection broke (${message || what})`
  }
}

/**
 * Reads a server's answer to the handshake, in Node.
 *
 * @param {any} response
 * @param {(refusal: Error) => void} onRead May be called more than once.
 */
export function readRefusal(response, onRead) {
  let body = ''
  const finish = () => {
    const isText = /^text\/plain\b/.test(response.headers['content-type'] ?? '')
    const line = isText ? body.slice(0, REFUSAL_MAX).trim().replace(/\s+/g, ' ') : ''
    const status = `${response.statusCode} ${response.statusMessage ?? ''}`.trim()
    onRead(new Error(`the answer is ${status}${line && `: ${line}`}`))
  }
  response.setEncoding('utf8')
  response.on('data', (/** @type {string} */ text) => {
    body += text
    if (body.length > REFUSAL_MAX) finish()
  })
  for (const end of ['end', 'error', 'aborted']) response.once(end, finish)
}

/** The `readyState` of a WebSocket that can send. */
const OPEN = 1

/** How many characters of a refusal are of interest. */
const REFUSAL_MAX = 500
