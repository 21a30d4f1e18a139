// webstomp-client over `ws` in Node. Usage: webstomp_node.mjs 1.0|1.1|1.2 ws|wss

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

import { Messages, runChecks } from './checks.mjs'

const require = createRequire(`${process.env.BROKER_NODE_MODULES}/`)
const webstomp = require('webstomp-client')
const WebSocket = require('ws')

const [version, transport] = process.argv.slice(2)
const { BROKER_PORT, BROKER_CA, BROKER_LOGIN, BROKER_KEYS } = process.env
const ca = readFileSync(BROKER_CA)

const adapter = {
  // The library writes header lines as they are, whatever the version.
  escapes: false,
  version,
  without: version === '1.0' ? ['nack', 'heart_beat'] : [],
  open({ login, passcode, beats }) {
    return new Promise((resolve, reject) => {
      // All versions in the order in which the library offers them to a browser, 1.0 first.
      const all = webstomp.VERSIONS.supportedProtocols()
      const protocols = version === '1.2' ? all : [`v${version.replace('.', '')}.stomp`]
      const socket = new WebSocket(`${transport}://localhost:${BROKER_PORT}/`, protocols, { ca })
      const ended = new Promise(resolve => socket.on('close', resolve))
      const heartbeat = beats && { incoming: beats, outgoing: beats }
      const client = webstomp.over(socket, { heartbeat, debug: true })
      let beatsSeen = 0
      client.debug = line => { if (line === '<<< PONG') beatsSeen += 1 }
      const onError = frame => reject(
        frame.headers ? { headers: frame.headers, ended } : new Error(`closed: ${frame.code}`))
      socket.on('error', reject)
      client.connect({ login, passcode }, frame => {
        resolve(session(client, frame.headers, ended, () => beatsSeen))
      }, onError)
    })
  },
}

function session(client, connected, ended, beats) {
  const receipts = new Map()
  client.onreceipt = frame => receipts.get(frame.headers['receipt-id'])?.(frame.headers)
  const receipt = () => {
    const id = `r-${receipts.size + 1}`
    return [id, new Promise(resolve => receipts.set(id, resolve))]
  }
  return {
    connected, ended, beats,
    send: (destination, body, headers) => client.send(destination, body, headers),
    sendWithReceipt(destination, body) {
      const [id, received] = receipt()
      client.send(destination, body, { receipt: id })
      return received
    },
    subscribe(destination, headers) {
      const messages = new Messages()
      const subscription = client.subscribe(destination, one => messages.put(one), headers)
      messages.unsubscribe = () => subscription.unsubscribe()
      return messages
    },
    begin() {
      const { id, commit, abort } = client.begin()
      const send = (destination, body) => client.send(destination, body, { transaction: id })
      return { send, commit, abort }
    },
    // The library closes the socket without waiting for anything.
    disconnect: () => new Promise(resolve => client.disconnect(resolve)),
  }
}

console.log('version', require('webstomp-client/package.json').version)
await runChecks(adapter, {
  login: BROKER_LOGIN, keys: BROKER_KEYS, print: line => console.log(line),
})
process.exit()
