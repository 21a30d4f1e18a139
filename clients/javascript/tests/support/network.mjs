/** A TCP proxy that loses what passes through it, as broken networks do. */

import { once } from 'node:events'
import { connect, createServer } from 'node:net'

export class Network {
  /** Which directions are silently lost. */
  losesRequests = false
  losesAnswers = false
  #pairs = new Set()

  static async start(t, port) {
    const network = new Network()
    network.server = createServer((client) => network.#relay(client, port))
    network.server.listen(0, '127.0.0.1')
    await once(network.server, 'listening')
    t.after(() => network.close())
    return network
  }

  get port() {
    return this.server.address().port
  }

  #relay(client, port) {
    const broker = connect(port, '127.0.0.1')
    const pair = { sockets: [client, broker], isLost: false }
    this.#pairs.add(pair)
    client.on('data', (data) => this.#pass(pair, broker, data, this.losesRequests))
    broker.on('data', (data) => this.#pass(pair, client, data, this.losesAnswers))
    for (const socket of pair.sockets) {
      socket.on('error', () => {})
      // A network that loses packets also loses the end of a connection.
      const end = () => {
        if (this.losesRequests || this.losesAnswers || pair.isLost) return
        this.#pairs.delete(pair)
        for (const one of pair.sockets) one.destroy()
      }
      socket.on('end', end)
      socket.on('close', end)
    }
  }

  #pass(pair, to, data, isLost) {
    if (!isLost && !pair.isLost) to.write(data)
  }

  /** Breaks all connections. */
  cut() {
    for (const { sockets } of this.#pairs) for (const socket of sockets) socket.destroy()
    this.#pairs.clear()
  }

  /** Loses everything from now on, without a word. */
  blackhole() {
    this.losesRequests = true
    this.losesAnswers = true
    for (const pair of this.#pairs) pair.isLost = true
  }

  /** Passes on what new connections send; those that lost something stay lost. */
  heal() {
    this.losesRequests = false
    this.losesAnswers = false
  }

  /** Takes nothing from clients until `flow`: what they send stays with them. */
  stall() {
    for (const { sockets } of this.#pairs) sockets[0].pause()
  }

  flow() {
    for (const { sockets } of this.#pairs) sockets[0].resume()
  }

  close() {
    this.cut()
    this.server.close()
  }
}
