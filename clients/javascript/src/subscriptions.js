/** Subscriptions, which outlive connections, and iterators over direct messages. */

import { Deferred } from './deferred.js'
import { ClosedError } from './errors.js'
import { callSafely } from './report.js'
import { encodeFrame } from './standard.js'
import { Stream } from './stream.js'
import { Subscription } from './subscription.js'

/** @typedef {import('./message.js').Message} Message */
/** @typedef {Record<string, string | number | undefined>} Headers */

/**
 * @typedef {object} Standing A subscription that each connection is told of.
 * @property {boolean} isDeclared Whether a connection was told of it.
 * @property {(changes: Headers) => string | Uint8Array} frame Its SUBSCRIBE, with some headers
 *   replaced.
 * @property {(message: Message) => void} deliver
 * @property {() => void} end
 * @property {(headers: Record<string, string>) => void} resolve
 * @property {(error: Error) => void} reject
 */

/**
 * @typedef {object} Options
 * @property {number} incomingMax How many messages may wait in an iterator.
 * @property {import('./report.js').Report} report Gets what listeners throw.
 */

/** What one client is subscribed to. */
export class Subscriptions {
  #line
  #requests
  #options
  /** By id. @type {Map<string, Standing>} */
  #standing = new Map()
  /** Ended here, but not yet confirmed by the broker. @type {Map<string, Pick<Standing, 'frame'>>} */
  #ending = new Map()
  /** All iterators that have not ended. @type {Set<Stream<any>>} */
  #streams = new Set()
  /** Those over direct messages. @type {Set<Stream<Message>>} */
  #inboxes = new Set()

  /**
   * @param {import('./requests.js').Line} line
   * @param {import('./requests.js').Requests} requests
   * @param {Options} options
   */
  constructor(line, requests, options) {
    this.#line = line
    this.#requests = requests
    this.#options = options
  }

  /**
   * @template T
   * @param {string} name What the program subscribed to.
   * @param {Headers} headers Of SUBSCRIBE.
   * @param {(message: Message) => T} read What the program gets of a message.
   * @param {((thing: T) => unknown) | undefined} listener
   * @returns {Promise<Subscription<T>>}
   */
  async subscribe(name, headers, read, listener) {
    if (!this.#line.takesRequests) throw new ClosedError()
    const id = this.#requests.nextId()
    const unsubscribe = () => this.#unsubscribe(id)
    /** @type {Stream<T> | undefined} */
    const stream = listener ? undefined : this.#makeStream(unsubscribe)
    const give = listener ?? ((/** @type {T} */ thing) => stream?.push(thing))
    /** @type {Deferred<unknown>} */
    const answer = new Deferred()
    /** @type {Standing} */
    const standing = {
      isDeclared: false,
      frame: (changes) => encodeFrame('SUBSCRIBE', { ...headers, id, ...changes }),
      deliver: (message) => callSafely(() => give(read(message)), this.#options.report),
      end: () => stream && this.#endStream(stream),
      resolve: answer.resolve,
      reject: (error) => {
        this.#standing.delete(id)
        standing.end()
        answer.reject(error)
      },
    }
    // A header that cannot be written throws here, and not in the middle of a later login.
    this.#requests.makeRoom(id, standing.frame({}))
    this.#standing.set(id, standing)
    if (this.#line.isOpen) this.#declare(standing)
    await answer.promise
    return new Subscription(name, stream, unsubscribe)
  }

  /**
   * The direct messages from now on.
   *
   * @param {AbortSignal | undefined} signal Ends the iterator, with its reason as the error.
   * @returns {Stream<Message>}
   */
  messages(signal) {
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
   * Makes all subscriptions again on a new connection, and ends those that the program ended
   * meanwhile.
   *
   * @param {boolean} isResumed Whether the broker still has the session of the connection before,
   *   and with it the subscriptions.
   */
  handleOpen(isResumed) {
    if (!isResumed) this.#ending.clear()
    for (const [id, ending] of this.#ending) this.#endResumed(id, ending)
    for (const [id, standing] of this.#standing) {
      this.#requests.forget(id)
      this.#declare(standing)
    }
  }

  /**
   * Gives a message to its subscription. Says whether it is a direct message, which belongs to none.
   *
   * @param {Message} message
   */
  handleMessage(message) {
    const { subscription = '' } = message.headers
    const standing = this.#standing.get(subscription)
    if (standing) standing.deliver(message)
    else if (subscription !== 'inbox') this.#endStray(subscription, message)
    else {
      for (const inbox of this.#inboxes) inbox.push(message)
      return true
    }
    return false
  }

  /**
   * Ends all: the client is closed.
   *
   * @param {Error | undefined} error Ends the iterators; undefined if the program closed the client.
   * @param {ClosedError} closed
   */
  handleClosed(error, closed) {
    for (const stream of this.#streams) stream.end(error)
    this.#streams.clear()
    for (const standing of this.#standing.values()) standing.reject(closed)
    this.#standing.clear()
    this.#ending.clear()
    this.#inboxes.clear()
  }

  /**
   * Tells the broker of a subscription, for the first time or again.
   *
   * @param {Standing} standing
   */
  #declare(standing) {
    const { resolve, reject } = standing
    standing.isDeclared = true
    // If the connection ends before the receipt, the next connection is told again.
    const waiting = { resolve, reject, lose: () => {} }
    this.#requests.tell((receipt) => standing.frame({ receipt }), waiting)
  }

  /** @param {string} id */
  async #unsubscribe(id) {
    const standing = this.#standing.get(id)
    if (!standing) return
    this.#standing.delete(id)
    this.#requests.forget(id)
    standing.end()
    if (!standing.isDeclared || !this.#line.takesRequests) return
    // Until the broker confirms it, a session that is resumed may still have it.
    this.#ending.set(id, standing)
    if (this.#line.isOpen) await this.#sendUnsubscribe(id)
  }

  /**
   * Ends a subscription that a resumed session may have kept or not. The broker refuses to end one
   * that does not exist: so it is first made anew, in a way that takes at most one message for good,
   * and then ended.
   *
   * @param {string} id
   * @param {Pick<Standing, 'frame'>} ending
   */
  #endResumed(id, ending) {
    // A message that is not acknowledged goes back to its queue.
    this.#line.send(
      ending.frame({ ack: 'client-individual', 'prefetch-count': 1, snapshot: undefined }),
    )
    this.#sendUnsubscribe(id).catch(() => {})
  }

  /**
   * Ends a subscription that this client did not make: another program with the same login may have
   * had the session between two connections of this client. Messages of a subscription that is
   * already ending are dropped.
   *
   * @param {string} id
   * @param {Message} message
   */
  #endStray(id, { destination }) {
    if (id === '' || this.#ending.has(id) || !this.#line.isOpen) return
    this.#ending.set(id, {
      frame: (changes) => encodeFrame('SUBSCRIBE', { destination, id, ...changes }),
    })
    this.#sendUnsubscribe(id).catch(() => {})
  }

  /**
   * Resolves when the broker confirms it, or when the connection ends: then the next connection is
   * told. It is sent however much waits: there are at most as many of these as subscriptions.
   *
   * @param {string} id
   */
  #sendUnsubscribe(id) {
    /** @type {Deferred<void>} */
    const answer = new Deferred()
    const resolve = () => {
      this.#ending.delete(id)
      answer.resolve()
    }
    const reject = (/** @type {Error} */ error) => {
      if (error instanceof ClosedError) answer.resolve()
      else answer.reject(error)
    }
    const waiting = { resolve, reject, lose: () => answer.resolve() }
    this.#requests.tell((receipt) => encodeFrame('UNSUBSCRIBE', { id, receipt }), waiting)
    return answer.promise
  }

  /**
   * @template T
   * @param {() => Promise<void> | void} onReturn
   * @returns {Stream<T>}
   */
  #makeStream(onReturn) {
    /** @type {Stream<T>} */
    const stream = new Stream(this.#options.incomingMax, () => {
      this.#streams.delete(stream)
      // Nothing waits for this; a refusal ends the client, and its `close` event tells.
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
