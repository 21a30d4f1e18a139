/** Frames that wait to be sent, within a bound: for a connection, or for the network to take them. */

import { utf8Length } from './bytes.js'
import { OverflowError } from './errors.js'

/** A queue of frames. */
export class Outgoing {
  /** @type {Map<string, string | Uint8Array>} */
  #frames = new Map()
  #bytes = 0
  #max

  /** @param {number} max How many bytes may wait. */
  constructor(max) {
    this.#max = max
  }

  /** How many bytes wait for a connection. */
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
    if (this.#bytes + size > this.#max) throw this.#overflow('there is no connection')
    this.#frames.set(id, frame)
    this.#bytes += size
  }

  /**
   * Checks that a connection has room for a frame. It always has if nothing waits before the frame,
   * however large that is.
   *
   * @param {number} buffered How many bytes it was given that the network has not accepted yet.
   * @param {string | Uint8Array} frame
   * @throws {OverflowError} There is no room.
   */
  checkRoom(buffered, frame) {
    if (buffered > 0 && buffered + sizeOf(frame) > this.#max) {
      throw this.#overflow('the network does not take them')
    }
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

  /** @param {string} why */
  #overflow(why) {
    const bound = `${this.#max} bytes (outgoingBytesMax)`
    const message = `more than ${bound} would wait to be sent, for ${why}: try again later`
    return new OverflowError('OUTGOING_FULL', message)
  }
}

/** @param {string | Uint8Array} frame */
function sizeOf(frame) {
  return typeof frame === 'string' ? utf8Length(frame) : frame.length
}
