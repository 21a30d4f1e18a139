/** Frames that wait for a connection, within a bound. */

import { OverflowError } from './errors.js'
import { utf8Length } from './octets.js'

/** A queue of frames. */
export class Outgoing {
  /** @type {Map<string, string | Uint8Array>} */
  #frames = new Map()
  #bytes = 0
  #max

  /** @param {number} max How many octets may wait. */
  constructor(max) {
    this.#max = max
  }

  /** How many octets wait. */
  get bytes() {
    return this.#bytes
  }

  /**
   * @param {string} id
   * @param {string | Uint8Array} frame
   * @throws {OverflowError} There is no room.
   */
  add(id, frame) {
    const size = sizeOf(frame)
    if (this.#bytes + size > this.#max) {
      const message = `more than ${this.#max} octets wait to be sent while there is no connection`
      throw new OverflowError('OUTGOING_FULL', message)
    }
    this.#frames.set(id, frame)
    this.#bytes += size
  }

  /**
   * Takes a frame out again. Says whether it was there.
   *
   * @param {string} id
   */
  remove(id) {
    const frame = this.#frames.get(id)
    if (frame === undefined) return false
    this.#bytes -= sizeOf(frame)
    return this.#frames.delete(id)
  }

  /** Takes all out, in order. */
  takeAll() {
    const all = [...this.#frames]
    this.#frames.clear()
    this.#bytes = 0
    return all
  }
}

/** @param {string | Uint8Array} frame */
function sizeOf(frame) {
  return typeof frame === 'string' ? utf8Length(frame) : frame.length
}
