/** How long to wait before connecting again. */

/**
 * @typedef {object} ReconnectOptions
 * @property {number} [minDelay] Milliseconds that bound the first delay; default 500.
 * @property {number} [maxDelay] Milliseconds that bound every delay; default 30 000.
 * @property {number} [laterDelay] Milliseconds added where the broker says `later`; default 5 000.
 */

/** How long a connection must have been open for the next failure to count as the first. */
const STABLE_MS = 10_000

/** Exponential back-off with full jitter: a random part of a bound that doubles with each failure. */
export class Backoff {
  #clock
  #min
  #max
  #later
  #failures = 0

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {ReconnectOptions} options
   */
  constructor(clock, { minDelay = 500, maxDelay = 30_000, laterDelay = 5_000 }) {
    this.#clock = clock
    this.#min = minDelay
    this.#max = maxDelay
    this.#later = laterDelay
  }

  /** The number of failures in a row. */
  get failures() {
    return this.#failures
  }

  /** Forgets past failures. */
  reset() {
    this.#failures = 0
  }

  /**
   * The delay after a connection failed or ended, in whole milliseconds.
   *
   * @param {number} openFor How long it was open, in milliseconds.
   * @param {'later' | 'now' | undefined} retry What the broker said.
   */
  next(openFor, retry) {
    if (openFor >= STABLE_MS) this.#failures = 0
    const bound = Math.min(this.#max, this.#min * 2 ** this.#failures)
    this.#failures += 1
    // Only the first failure in a row: a broker that repeats `now` must not be flooded with logins.
    if (retry === 'now' && this.#failures === 1) return 0
    const delay = Math.round(this.#clock.random() * bound)
    return retry === 'later' ? this.#later + delay : delay
  }
}
