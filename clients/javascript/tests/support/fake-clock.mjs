/** A clock that moves only when told to. */

export class FakeClock {
  #now = 0
  #timers = new Map()
  #lastId = 0
  /** What `random` gives. */
  chance = 0.5

  now = () => this.#now
  random = () => this.chance

  setTimeout = (callback, milliseconds) => {
    this.#lastId += 1
    this.#timers.set(this.#lastId, { due: this.#now + milliseconds, callback })
    return this.#lastId
  }

  clearTimeout = (id) => this.#timers.delete(id)

  /** How long each timer that runs has left. */
  get left() {
    return [...this.#timers.values()].map(({ due }) => due - this.#now)
  }

  /** Lets time pass, with timers as punctual as they can be. */
  advance(milliseconds) {
    const end = this.#now + milliseconds
    for (;;) {
      const [id, timer] = this.#first() ?? []
      if (!timer || timer.due > end) break
      this.#now = Math.max(this.#now, timer.due)
      this.#timers.delete(id)
      timer.callback()
    }
    this.#now = end
  }

  /** Lets time pass while no timer runs, as in a page that is frozen; then fires those that are due. */
  freeze(milliseconds) {
    this.#now += milliseconds
    for (const [id, timer] of [...this.#timers]) {
      if (timer.due > this.#now) continue
      this.#timers.delete(id)
      timer.callback()
    }
  }

  #first() {
    return [...this.#timers].sort(([, one], [, other]) => one.due - other.due)[0]
  }
}
