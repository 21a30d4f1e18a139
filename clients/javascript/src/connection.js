/** One connection in the standard dialect, from its beginning to its end. */

import { encodeText } from './bytes.js'
import { BrokerError, ConnectionError } from './errors.js'
import { Liveness } from './liveness.js'
import { Socket } from './socket.js'
import { encodeFrame, FrameReader } from './standard.js'

/**
 * @typedef {object} ConnectionOptions
 * @property {string} url
 * @property {import('./socket.js').WebSocketClass} WebSocket
 * @property {Record<string, string>} login Headers of CONNECT except `heart-beat`.
 * @property {{ outgoing: number, incoming: number }} heartBeat
 * @property {number} connectTimeout
 * @property {import('./clock.js').Clock} clock
 */

/**
 * @typedef {object} End Why a connection ended.
 * @property {Error} error
 * @property {import('./errors.js').Retry | undefined} retry The broker's advice on reconnecting.
 * @property {number} code The WebSocket close code.
 * @property {number} openFor How long it was logged in, in milliseconds.
 */

/**
 * @typedef {object} Handlers
 * @property {(headers: Record<string, string>) => void} onConnected
 * @property {(frame: import('./standard.js').Frame) => void} onMessage
 * @property {(id: string, headers: Record<string, string>) => void} onReceipt
 * @property {(id: string, error: BrokerError) => void} onRefused The broker refused a request.
 * @property {(end: End) => void} onEnd Called once, last.
 */

/** A connection, which logs in by itself. */
export class Connection {
  #options
  #handlers
  #socket
  #reader = new FrameReader()
  /** @type {number | undefined} */
  #connectedAt
  /** @type {Error | undefined} */
  #error
  /** @type {Liveness | undefined} */
  #liveness
  /** @type {any} */
  #timer
  #isEnded = false

  /**
   * @param {ConnectionOptions} options
   * @param {Handlers} handlers
   */
  constructor(options, handlers) {
    this.#options = options
    this.#handlers = handlers
    const { outgoing, incoming } = options.heartBeat
    const headers = { 'accept-version': '1.2', 'heart-beat': `${outgoing},${incoming}` }
    const login = encodeFrame('CONNECT', { ...headers, ...options.login })
    this.#socket = new Socket(options.WebSocket, options.url, 'v12.stomp', {
      onOpen: () => this.#socket.send(login),
      onData: (data) => this.#handleData(data),
      onEnd: (end) => this.#handleClose(end),
    })
    this.#endIn(options.connectTimeout, () => `no login within ${options.connectTimeout} ms`)
  }

  get isConnected() {
    return this.#connectedAt !== undefined && !this.#isEnded
  }

  /** How many bytes were sent that the network has not accepted yet. */
  get bufferedBytes() {
    return this.#socket.bufferedBytes
  }

  /** @param {string | Uint8Array} frame */
  send(frame) {
    this.#socket.send(frame)
  }

  /**
   * Logs out, and waits at most `timeout` milliseconds for the broker to close.
   *
   * @param {string} receipt
   * @param {number} timeout
   */
  leave(receipt, timeout) {
    if (this.isConnected) this.send(encodeFrame('DISCONNECT', { receipt }))
    else this.#socket.close()
    this.#endIn(timeout, () => 'the broker did not close the connection')
  }

  /**
   * Ends the connection at once, without waiting for the broker.
   *
   * @param {Error} error
   */
  cut(error) {
    if (this.#isEnded) return
    this.#socket.abandon()
    this.#error ??= error
    this.#end(1006)
  }

  /**
   * @param {number} milliseconds
   * @param {() => string} why
   */
  #endIn(milliseconds, why) {
    const { clock } = this.#options
    clock.clearTimeout(this.#timer)
    this.#timer = clock.setTimeout(() => this.cut(this.#failure(why())), milliseconds)
  }

  /** @param {string | ArrayBuffer} data */
  #handleData(data) {
    this.#liveness?.noteArrival()
    const bytes = typeof data === 'string' ? encodeText(data) : new Uint8Array(data)
    let frames
    try {
      frames = this.#reader.push(bytes)
    } catch (error) {
      const { message } = /** @type {Error} */ (error)
      return this.cut(new ConnectionError('PROTOCOL', `this is no STOMP broker: ${message}`))
    }
    for (const frame of frames) if (!this.#isEnded) this.#handleFrame(frame)
  }

  /** @param {import('./standard.js').Frame} frame */
  #handleFrame(frame) {
    const { command, headers } = frame
    if (command === 'MESSAGE') this.#handlers.onMessage(frame)
    else if (command === 'RECEIPT') this.#handlers.onReceipt(headers['receipt-id'] ?? '', headers)
    else if (command === 'CONNECTED') this.#handleConnected(headers)
    else if (command === 'ERROR') {
      const error = brokerError(headers)
      this.#error = error
      const request = headers['receipt-id']
      if (request !== undefined) this.#handlers.onRefused(request, error)
    }
  }

  /** @param {Record<string, string>} headers */
  #handleConnected(headers) {
    const { clock, heartBeat } = this.#options
    clock.clearTimeout(this.#timer)
    this.#connectedAt = clock.now()
    // STOMP 1.2, "Heart-beating": the longer of what one side can and the other wants.
    const [can = 0, wants = 0] = (headers['heart-beat'] ?? '0,0').split(',').map(Number)
    if (can > 0 && heartBeat.incoming > 0) {
      const interval = Math.max(can, heartBeat.incoming)
      this.#liveness = new Liveness(clock, interval, () => {
        this.cut(this.#failure('nothing is heard of the broker'))
      })
    }
    if (wants > 0 && heartBeat.outgoing > 0) this.#beat(Math.max(wants, heartBeat.outgoing))
    this.#handlers.onConnected(headers)
  }

  /** @param {number} interval */
  #beat(interval) {
    this.#timer = this.#options.clock.setTimeout(() => {
      // Unsent data serves as a heart-beat once the network accepts it.
      if (this.bufferedBytes === 0) this.send('\n')
      this.#beat(interval)
    }, interval)
  }

  /** @param {import('./socket.js').SocketEnd} end */
  #handleClose({ code, why, cause }) {
    this.#error ??= this.#failure(why, cause)
    this.#end(code)
  }

  /** @param {number} code */
  #end(code) {
    this.#isEnded = true
    const { clock } = this.#options
    clock.clearTimeout(this.#timer)
    this.#liveness?.stop()
    const error = /** @type {Error} */ (this.#error)
    const openFor = this.#connectedAt === undefined ? 0 : clock.now() - this.#connectedAt
    this.#handlers.onEnd({ error, retry: retryAfter(error, code), code, openFor })
  }

  /**
   * @param {string} why
   * @param {unknown} [cause]
   */
  #failure(why, cause) {
    const code = this.#connectedAt === undefined ? 'CONNECTION_FAILED' : 'CONNECTION_LOST'
    const options = cause === undefined ? undefined : { cause }
    return new ConnectionError(code, `${this.#options.url}: ${why}`, options)
  }
}

/** @param {Record<string, string>} headers */
function brokerError(headers) {
  const retry = /** @type {import('./errors.js').Retry | undefined} */ (headers.retry)
  const message = headers.message ?? 'the broker refused a request'
  return new BrokerError(headers['error-code'] ?? 'ERROR', message, retry)
}

/**
 * The broker's advice on reconnecting: that of its ERROR, or else that of the close code.
 *
 * @param {Error} error
 * @param {number} code
 * @returns {import('./errors.js').Retry | undefined}
 */
function retryAfter(error, code) {
  if (error instanceof BrokerError && error.retry) return error.retry
  if (error instanceof ConnectionError && error.code === 'PROTOCOL') return 'never'
  if (code >= 4000 && code < 4100) return 'never'
  if (code >= 4100 && code < 4200) return 'later'
  if (code >= 4200 && code < 4300) return 'now'
  return undefined
}
