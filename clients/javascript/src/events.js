/** The events of a client, and listeners that may throw without harm to it. */

import { callSafely } from './report.js'

/**
 * @typedef {object} Session
 * @property {string} login
 * @property {string} address Where others reach this client, for example `/agent/ana`.
 * @property {'agent' | 'super agent' | 'service' | 'admin'} profile
 * @property {string} id The broker's id of the session.
 * @property {string} server The broker's name and version.
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
 * @property {boolean} snapshot Whether the client was there before the subscription was made.
 */

/**
 * @typedef {object} ClientEventMap
 * @property {CustomEvent<{ session: Session, reconnected: boolean }>} open The client is logged in.
 * @property {CustomEvent<{ error: Error, retry: import('./errors.js').Retry | undefined,
 *   delay: number, attempt: number }>} reconnecting The connection failed or ended; the next one is
 *   made after `delay` milliseconds.
 * @property {CustomEvent<{ error: Error | undefined, code: number }>} close The client is closed
 *   and does not connect again. The error is undefined after `close()`.
 * @property {CustomEvent<import('./message.js').Message>} message A message to this client's own
 *   address.
 */

/**
 * @template {Event} E
 * @typedef {((event: E) => void) | { handleEvent(event: E): void }} Listener
 */

/** An EventTarget whose listeners may throw: Node ends the program when those of others do. */
export class ClientEvents extends EventTarget {
  #report
  /** The wrapper of each listener, which is needed to remove it. @type {WeakMap<object, Function>} */
  #guards = new WeakMap()

  /** @param {import('./report.js').Report} report Gets what listeners throw. */
  constructor(report) {
    super()
    this.#report = report
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
}
