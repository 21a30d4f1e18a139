/** A message as a client gets it. */

import { decodeText } from './bytes.js'
import { checkUserHeaders, userHeadersOf } from './headers.js'

/**
 * What a message calls of its client.
 *
 * @typedef {object} Answering
 * @property {(command: 'ACK' | 'NACK', id: string) => Promise<void>} settle
 * @property {(destination: string, body: import('./bytes.js').Body,
 *   options: import('./options.js').SendOptions) => Promise<{ delivered: number }>} send
 */

/** A message. */
export class Message {
  /** @type {string | undefined} */
  #text
  #answering

  /**
   * @param {import('./standard.js').Frame} frame
   * @param {Answering} answering
   */
  constructor({ headers, body }, answering) {
    this.#answering = answering
    /** Where it was sent to: this client's address, that of a client it watches, a topic, a queue. */
    this.destination = headers.destination ?? ''
    /** The login id of the sender. */
    this.origin = headers.origin ?? ''
    /** The address of the sender, given by the broker: no sender can forge it. */
    this.originDestination = headers['origin-destination'] ?? ''
    /** The media type, if the sender named one. */
    this.contentType = headers['content-type']
    /** Whether it was delivered before, and not acknowledged. */
    this.redelivered = headers.redelivered === 'true'
    /** All headers, those that the sender added included. */
    this.headers = headers
    /** The body. */
    this.bytes = body
  }

  /**
   * The headers that the sender added, without those of the protocol and without `correlation-id`
   * and `reply-to`, which belong to one request: what `send` takes to pass a message on.
   *
   * @returns {Record<string, string>}
   */
  get userHeaders() {
    return userHeadersOf(this.headers)
  }

  /** The body as text. */
  get text() {
    this.#text ??= decodeText(this.bytes)
    return this.#text
  }

  /**
   * The body, parsed.
   *
   * @returns {any}
   * @throws {SyntaxError} It is not JSON.
   */
  json() {
    return JSON.parse(this.text)
  }

  /**
   * Answers the sender. If the message is a request, its `request()` resolves.
   *
   * @param {import('./bytes.js').Body} body
   * @param {import('./options.js').SendOptions} [options]
   */
  async reply(body, options = {}) {
    const correlation = this.headers['correlation-id']
    const destination = this.headers['reply-to'] ?? this.originDestination
    const headers = { ...options.headers }
    checkUserHeaders(headers, ['correlation-id'])
    if (correlation !== undefined) headers['correlation-id'] = correlation
    return this.#answering.send(destination, body, { ...options, headers })
  }

  /** Acknowledges it; resolves when the broker confirms it. Needed where `ack` was asked for. */
  async ack() {
    await this.#settle('ACK')
  }

  /** Refuses it: it goes back to its queue, for another consumer or another time. */
  async nack() {
    await this.#settle('NACK')
  }

  /** @param {'ACK' | 'NACK'} command */
  async #settle(command) {
    const id = this.headers.ack
    if (id === undefined) {
      throw new TypeError(
        "there is nothing to acknowledge: subscribe with ack: 'client-individual'",
      )
    }
    await this.#answering.settle(command, id)
  }
}
