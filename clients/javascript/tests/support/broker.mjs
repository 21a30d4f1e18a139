/** A broker of one's own: started on a free port, stopped with the test. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'

import { WebSocket } from 'ws'

import { until } from './waiting.mjs'

export const APPLICATION_KEY = 'my_app_secret_key'

export const PROFILE_KEYS = {
  agent: 'my_agent_secret_key',
  'super agent': 'my_super_agent_secret_key',
  service: 'my_service_secret_key',
  admin: 'my_admin_secret_key',
}

const root = resolve(import.meta.dirname, '../../../..')
const program = resolve(root, process.env.BROKER ?? 'target/debug/com-broker')

/** A broker that can be stopped, killed and started again on the same port. */
export class Broker {
  #config
  #host
  #process
  #log = []
  port = 0

  /**
   * @param {string} config TOML without listeners.
   * @param {string} host Where it listens.
   */
  constructor(config, host = '127.0.0.1') {
    this.#config = config
    this.#host = host
    this.directory = mkdtempSync(join(tmpdir(), 'com-broker-'))
  }

  /** Starts one that lives as long as the test `t`. */
  static async start(t, config = '', host = '127.0.0.1') {
    const broker = new Broker(config, host)
    t.after(() => broker.remove())
    await broker.start()
    return broker
  }

  async start() {
    const path = join(this.directory, 'broker.toml')
    writeFileSync(path, `[[listener]]\naddress = "${this.#host}:${this.port}"\n${this.#config}`)
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith('COM_BROKER_KEY_')),
    )
    const child = spawn(program, ['serve', '--config', path, '--log-level', 'debug'], {
      cwd: this.directory,
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#process = child
    const ended = once(child, 'exit').then(() => {
      throw new Error(`the broker ended:\n${this.#log.join('\n')}`)
    })
    ended.catch(() => {})
    this.#log = []
    const listening = new Promise((found) => {
      createInterface(child.stderr).on('line', (line) => {
        this.#log.push(line)
        const match = line.match(/\blistening\b.* address=\S+:(\d+)( |$)/)
        if (match) found(Number(match[1]))
      })
    })
    this.port = await Promise.race([listening, ended])
  }

  /** What it logged since it was last started. */
  get log() {
    return this.#log
  }

  /** The certificate that clients trust it with. */
  get authority() {
    return readFileSync(join(this.directory, 'certs/ca.pem'))
  }

  /** The addresses of all transports, each with a WebSocket that trusts the broker. */
  get transports() {
    const ca = this.authority
    class Trusting extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { ca })
      }
    }
    return {
      ws: { url: `ws://127.0.0.1:${this.port}/`, WebSocket },
      wss: { url: `wss://localhost:${this.port}/`, WebSocket: Trusting },
    }
  }

  /** Stops it in order. */
  async stop() {
    await this.#end('SIGTERM')
  }

  /** Ends it without a word to anybody. */
  async kill() {
    await this.#end('SIGKILL')
  }

  async #end(signal) {
    const child = this.#process
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  /** Ends it and removes what it left. */
  async remove() {
    await this.kill()
    rmSync(this.directory, { recursive: true, force: true })
  }

  /** Waits for a line of its log that holds all of these. */
  async waitForLine(...parts) {
    return until(`a line with ${parts.join(', ')}`, () =>
      this.#log.find((line) => parts.every((part) => line.includes(part))),
    )
  }
}
