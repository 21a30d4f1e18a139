/** Whether the broker is still there, judged by what arrives from it. */

/**
 * A late timer proves nothing: browsers hold back the timers of pages in the background, and stop
 * them altogether in pages that they freeze, while what arrives waits in line behind them. So
 * silence is only believed when a second look, an interval after the first, finds it unbroken:
 * whatever had been waiting was handled in between.
 */
export class Liveness {
  #clock
  #interval
  #onSilent
  #heardAt
  #isSuspect = false
  /** @type {any} */
  #timer

  /**
   * @param {import('./clock.js').Clock} clock
   * @param {number} interval How often the broker sends something, in milliseconds.
   * @param {() => void} onSilent Called once, when the broker has fallen silent.
   */
  constructor(clock, interval, onSilent) {
    this.#clock = clock
    this.#interval = interval
    this.#onSilent = onSilent
    this.#heardAt = clock.now()
    this.#lookIn(this.#patience)
  }

  /** Something arrived. */
  noteArrival() {
    this.#heardAt = this.#clock.now()
    this.#isSuspect = false
  }

  stop() {
    this.#clock.clearTimeout(this.#timer)
  }

  /** Heart-beats may be late: the network or a busy broker holds them back. */
  get #patience() {
    return 2 * this.#interval + MARGIN_MS
  }

  /** @param {number} milliseconds */
  #lookIn(milliseconds) {
    this.#timer = this.#clock.setTimeout(() => this.#look(), milliseconds)
  }

  #look() {
    const left = this.#patience - (this.#clock.now() - this.#heardAt)
    if (left > 0) this.#lookIn(left)
    else if (!this.#isSuspect) {
      this.#isSuspect = true
      this.#lookIn(this.#interval)
    } else this.#onSilent()
  }
}

const MARGIN_MS = 1000
