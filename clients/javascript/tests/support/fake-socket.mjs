/** A WebSocket whose other end is played by the test. */

import { FrameReader } from '../../src/standard.js'

/** Makes a class whose instances it remembers. */
export function fakeSockets() {
  const sockets = []
  class FakeSocket {
    sent = []
    isTerminated = false

    constructor(url, protocols) {
      Object.assign(this, { url, protocols })
      sockets.push(this)
    }

    send(data) {
      this.sent.push(data)
    }

    close(code = 1005) {
      this.closedWith = code
    }

    terminate() {
      this.isTerminated = true
    }

    // -- what the test does ------------------------------------------------------------------

    /** The frames that were sent. */
    get frames() {
      const reader = new FrameReader()
      return this.sent.flatMap((data) => reader.push(Buffer.from(data)))
    }

    get last() {
      return this.frames.at(-1)
    }

    logIn(headers = '') {
      this.onopen?.()
      const session = 'version:1.2\nsession:s\nlogin:ana\nprofile-desc:service\n'
      this.receive(`CONNECTED\n${session}destination:/service/ana\n${headers}\n\0\n`)
    }

    receive(data) {
      this.onmessage?.({ data })
    }

    end(code = 1006, reason = '') {
      this.onclose?.({ code, reason })
    }
  }
  return { WebSocket: FakeSocket, sockets }
}
