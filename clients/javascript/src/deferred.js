/** A promise with its two ends apart. */

/** @template T */
export class Deferred {
  constructor() {
    /** @type {(value: T) => void} */
    this.resolve = () => {}
    /** @type {(error: unknown) => void} */
    this.reject = () => {}
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }
}
