/** A subscription of a client, which outlives its connections. */

/**
 * What arrives for it is given to its listener, or, without one, waits to be iterated over:
 * `for await (const message of subscription)`. Leaving the loop ends the subscription.
 *
 * @template [T=import('./message.js').Message]
 */
export class Subscription {
  #stream
  #unsubscribe

  /**
   * @param {string} destination
   * @param {import('./stream.js').Stream<T> | undefined} stream Undefined where there is a listener.
   * @param {() => Promise<void>} unsubscribe
   */
  constructor(destination, stream, unsubscribe) {
    /** What is subscribed to. */
    this.destination = destination
    this.#stream = stream
    this.#unsubscribe = unsubscribe
  }

  /**
   * Ends it; resolves when the broker confirms that, or at once while there is no connection: then
   * the broker is told after the next login. Messages that wait can still be iterated over.
   */
  unsubscribe() {
    return this.#unsubscribe()
  }

  /** @returns {AsyncIterableIterator<T>} */
  [Symbol.asyncIterator]() {
    if (!this.#stream)
      throw new TypeError('this subscription has a listener, which gets everything')
    return this.#stream
  }
}
