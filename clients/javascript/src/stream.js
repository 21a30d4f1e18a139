/** Iteration over what arrives. */

import { OverflowError } from './errors.js'

/**
 * An async iterator over what is pushed into it. What was not taken yet waits here, within a
 * bound.
 *
 * @template T
 * @implements {AsyncIterableIterator<T>}
 */
export class Stream {
  /** @type {T[]} */
  #waiting = []
  /** @type {{ resolve: (result: IteratorResult<T, undefined>) => void, reject: (error: unknown) => void }[]} */
  #takers = []
  #max
  #onReturn
  /** @type {{ error?: unknown } | undefined} */
  #end

  /**
   * @param {number} max How many things may wait.
   * @param {() => void} [onReturn] Called when it ends before its source does.
   */
  constructor(max, onReturn = () => {}) {
    this.#max = max
    this.#onReturn = onReturn
  }

  /** @param {T} thing */
  push(thing) {
    if (this.#end) return
    const taker = this.#takers.shift()
    if (taker) taker.resolve({ done: false, value: thing })
    else if (this.#waiting.length < this.#max) this.#waiting.push(thing)
    else {
      const message = `more than ${this.#max} messages wait to be read`
      this.end(new OverflowError('INCOMING_FULL', message))
      this.#onReturn()
    }
  }

  /**
   * Ends it. What waits can still be taken; after that it throws the error, if there is one.
   *
   * @param {unknown} [error]
   */
  end(error) {
    if (this.#end) return
    this.#end = error === undefined ? {} : { error }
    for (const taker of this.#takers.splice(0)) this.#finish(taker)
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  next() {
    return new Promise((resolve, reject) => {
      const [first] = this.#waiting
      if (this.#waiting.length > 0) {
        this.#waiting.shift()
        resolve({ done: false, value: /** @type {T} */ (first) })
      } else if (this.#end) this.#finish({ resolve, reject })
      else this.#takers.push({ resolve, reject })
    })
  }

  /** @returns {Promise<IteratorResult<T, undefined>>} */
  async return() {
    this.#waiting = []
    const isEarly = !this.#end
    this.end()
    if (isEarly) this.#onReturn()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator]() {
    return this
  }

  /** @param {{ resolve: (result: IteratorResult<T, undefined>) => void, reject: (error: unknown) => void }} taker */
  #finish({ resolve, reject }) {
    const end = this.#end ?? {}
    this.#end = {}
    if ('error' in end) reject(end.error)
    else resolve({ done: true, value: undefined })
  }
}
