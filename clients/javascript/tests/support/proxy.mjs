/** A TCP proxy that can lose what passes through it, as broken networks do. */

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

export class Proxy {
  /** Which directions are silently lost. */
  losesRequests = false
  losesAnswers = false
  #pairs = new Set()
  #accepted = 0

  static async start(t, port) {
    const proxy = new Proxy()
    proxy.server = createServer((client) => proxy.#relay(client, port))
    proxy.server.listen(0, '127.0.0.1')
    await once(proxy.server, 'listening')
    t.after(() => proxy.close())
    return proxy
  }

  get port() {
    return this.server.address().port
  }

  /** How many connections came so far. */
  get accepted() {
    return this.#accepted
  }

  #relay(client, port) {
    this.#accepted += 1
    const broker = connect(port, '127.0.0.1')
    const pair = [client, broker]
    this.#pairs.add(pair)
    client.on('data', (data) => this.losesRequests || broker.write(data))
    broker.on('data', (data) => this.losesAnswers || client.write(data))
    for (const socket of pair) {
      socket.on('error', () => {})
      // A network that loses packets loses also the news of an end.
      const pass = () => {
        if (this.losesRequests || this.losesAnswers) return
        this.#pairs.delete(pair)
        for (const one of pair) one.destroy()
      }
      socket.on('end', pass)
      socket.on('close', pass)
    }
  }

  /** Breaks all connections. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy()
    this.#pairs.clear()
  }

  /** Loses everything from now on, without a word. */
  blackhole() {
    this.losesRequests = true
    this.losesAnswers = true
  }

  /** Passes on what new connections send; those that lost something are cut. */
  heal() {
    this.losesRequests = false
    this.losesAnswers = false
    this.cut()
  }

  close() {
    this.cut()
    this.server.close()
  }
}
