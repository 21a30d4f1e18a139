/** Waiting for conditions, with a deadline that is far longer than they ever take. */

const PATIENCE_MS = 30_000

/** Waits until `find` gives something, and gives that. */
export async function until(what, find) {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const found = await find()
    if (found) return found
    if (performance.now() > deadline) throw new Error(`this never came: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** What a promise gives, or a fault if it takes too long. */
export async function within(what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`this never came: ${what}`)), PATIENCE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** The next event of a kind that an EventTarget tells. */
export function nextEvent(target, type) {
  const event = new Promise((resolve) => target.addEventListener(type, resolve, { once: true }))
  return within(`the event ${type}`, event)
}

/** A queue that callbacks fill and a test empties. */
export class Mailbox {
  #waiting = []
  #takers = []

  put = (thing) => {
    const taker = this.#takers.shift()
    if (taker) taker(thing)
    else this.#waiting.push(thing)
  }

  take(what = 'something') {
    if (this.#waiting.length > 0) return Promise.resolve(this.#waiting.shift())
    return within(what, new Promise((resolve) => this.#takers.push(resolve)))
  }

  /** What is there and was not taken. */
  get rest() {
    return [...this.#waiting]
  }
}
