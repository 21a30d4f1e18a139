/** Requests: what was sent, or will be, and waits for its receipt or its reply. */

import { Deferred } from './deferred.js'
import { isAddress } from './destinations.js'
import { ClosedError, TimeoutError, UnconfirmedError } from './errors.js'
import { Outgoing } from './outgoing.js'
import { encodeFrame } from './standard.js'

/** @typedef {import('./message.js').Message} Message */

/**
 * @typedef {object} Waiting What becomes of a frame that waits for its receipt.
 * @property {(headers: Record<string, string>) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {(cause: Error) => void} lose The connection ended before the receipt came.
 */

/**
 * @typedef {object} Line What frames are sent by.
 * @property {boolean} isOpen
 * @property {boolean} takesRequests Whether a request is sent, now or after the next login.
 * @property {number} bufferedBytes
 * @property {(frame: string | Uint8Array) => void} send
 */

/** The requests of one client. A frame that was written once is never written again. */
export class Requests {
  #line
  #clock
  #outgoing
  /** By the id of the receipt. @type {Map<string, Waiting & { isWritten: boolean }>} */
  #receipts = new Map()
  /** By correlation id. @type {Map<string, { destination: string, reply: Deferred<Message> }>} */
  #replies = new Map()
  #lastId = 0

  /**
   * @param {Line} line
   * @param {import('./clock.js').Clock} clock
   * @param {number} bytesMax How many bytes may wait to be sent.
   */
  constructor(line, clock, bytesMax) {
    this.#line = line
    this.#clock = clock
    this.#outgoing = new Outgoing(bytesMax)
  }

  /** An id that no other frame of this client has. */
  nextId() {
    this.#lastId += 1
    return String(this.#lastId)
  }

  /**
   * Sends a frame, now or after the next login; resolves with the headers of its receipt.
   *
   * @param {string} command
   * @param {Record<string, string | number | undefined>} headers
   * @param {string | Uint8Array} [body]
   * @param {AbortSignal} [signal]
   * @returns {Promise<Record<string, string>>}
   */
  async ask(command, headers, body, signal) {
    signal?.throwIfAborted()
    if (!this.#line.takesRequests) throw new ClosedError()
    const id = this.nextId()
    const frame = encodeFrame(command, { ...headers, receipt: id }, body)
    /** @type {Deferred<Record<string, string>>} */
    const answer = new Deferred()
    const lose = (/** @type {Error} */ cause) => answer.reject(new UnconfirmedError({ cause }))
    this.makeRoom(id, frame)
    this.#receipts.set(id, { ...answer, lose, isWritten: false })
    if (this.#line.isOpen) this.#write(id, frame)
    const takeBack = () => {
      this.forget(id)
      this.#receipts.delete(id)
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
   * Writes a frame to the open connection whatever waits before it. If the connection ends first,
   * the caller has to see to it.
   *
   * @param {(receipt: string) => string | Uint8Array} frameWith Makes the frame.
   * @param {Waiting} waiting
   */
  tell(frameWith, waiting) {
    const receipt = this.nextId()
    this.#receipts.set(receipt, { ...waiting, isWritten: true })
    this.#line.send(frameWith(receipt))
  }

  /**
   * Has a frame wait for the next login, or checks that the open connection has room for it.
   *
   * @param {string} id
   * @param {string | Uint8Array} frame
   * @throws {import('./errors.js').OverflowError} Too much waits already.
   */
  makeRoom(id, frame) {
    if (!this.#line.isOpen) this.#outgoing.add(id, frame)
    else this.#outgoing.checkRoom(this.#line.bufferedBytes, frame)
  }

  /**
   * Takes back what waits for the next login.
   *
   * @param {string} id
   */
  forget(id) {
    this.#outgoing.remove(id)
  }

  /** Writes what waited for this login. */
  flush() {
    for (const [id, frame] of this.#outgoing.takeAll()) this.#write(id, frame)
  }

  /**
   * @param {string} id
   * @param {string | Uint8Array} frame
   */
  #write(id, frame) {
    const waiting = this.#receipts.get(id)
    if (waiting) waiting.isWritten = true
    this.#line.send(frame)
  }

  /**
   * @param {string} id
   * @param {Record<string, string>} headers
   */
  handleReceipt(id, headers) {
    this.#take(id)?.resolve(headers)
  }

  /**
   * @param {string} id
   * @param {Error} error
   */
  handleRefusal(id, error) {
    this.#take(id)?.reject(error)
  }

  /** @param {string} id */
  #take(id) {
    const waiting = this.#receipts.get(id)
    this.#receipts.delete(id)
    return waiting
  }

  /**
   * Ends what was written to a connection that is gone; what was not written goes on waiting.
   *
   * @param {Error} error
   */
  handleLoss(error) {
    for (const [id, waiting] of this.#receipts) {
      if (!waiting.isWritten) continue
      this.#receipts.delete(id)
      waiting.lose(error)
    }
  }

  /**
   * Ends all: the client is closed.
   *
   * @param {ClosedError} closed
   */
  handleClosed(closed) {
    this.#outgoing.takeAll()
    for (const waiting of this.#receipts.values()) waiting.reject(closed)
    this.#receipts.clear()
    // `awaitReply` removes them itself.
    for (const { reply } of this.#replies.values()) reply.reject(closed)
  }

  /**
   * Sends a request and resolves with its reply.
   *
   * @param {string} destination
   * @param {{ timeout: number, signal: AbortSignal | undefined }} bounds
   * @param {(correlation: string, signal: AbortSignal) => Promise<unknown>} send
   * @returns {Promise<Message>}
   */
  async awaitReply(destination, { timeout, signal }, send) {
    const id = randomWord()
    const patience = new AbortController()
    const giveUp = () => patience.abort(signal?.reason)
    const timer = this.#clock.setTimeout(() => patience.abort(new TimeoutError(timeout)), timeout)
    signal?.addEventListener('abort', giveUp, { once: true })
    if (signal?.aborted) giveUp()
    /** @type {Deferred<Message>} */
    const reply = new Deferred()
    this.#replies.set(id, { destination, reply })
    patience.signal.addEventListener('abort', () => reply.reject(patience.signal.reason))
    try {
      // A reply proves that the request arrived, even if its receipt got lost.
      const isSent = send(id, patience.signal).then(() => reply.promise)
      return await Promise.race([isSent, reply.promise])
    } finally {
      this.#clock.clearTimeout(timer)
      signal?.removeEventListener('abort', giveUp)
      this.#replies.delete(id)
    }
  }

  /**
   * Gives a message to the request that it answers. Says whether there is one.
   *
   * @param {Message} message
   * @param {string | undefined} address This client's own.
   */
  takesReply(message, address) {
    const asked = this.#replies.get(message.headers['correlation-id'] ?? '')
    if (!asked || !isReply(message, asked.destination, address)) return false
    asked.reply.resolve(message)
    return true
  }
}

/**
 * Whether a message with the id of a request is its reply. The request itself carries the id, too:
 * it comes back to a client that asks itself, or that watches the one it asks.
 *
 * @param {Message} message
 * @param {string} asked The destination of the request.
 * @param {string | undefined} address This client's own.
 */
function isReply({ destination, originDestination, headers }, asked, address) {
  const isOwnRequest = originDestination === address && 'reply-to' in headers
  // Any reader of a topic or queue may answer: there only the id, which is secret, tells.
  const isFromAsked = !isAddress(asked) || originDestination === asked
  return destination === address && isFromAsked && !isOwnRequest
}

/** 128 random bits, so that nobody can guess the id of a request. */
function randomWord() {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
