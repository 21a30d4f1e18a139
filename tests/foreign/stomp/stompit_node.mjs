// stompit in Node. Usage: stompit_node.mjs 1.0|1.1|1.2 tcp|tls

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

import { Messages, runChecks } from './checks.mjs'

const require = createRequire(`${process.env.BROKER_NODE_MODULES}/`)
const stompit = require('stompit')

const [version, transport] = process.argv.slice(2)
const { BROKER_PORT, BROKER_CA, BROKER_LOGIN, BROKER_KEYS } = process.env
const ca = readFileSync(BROKER_CA)

const adapter = {
  version,
  escapes: version !== '1.0',
  without: version === '1.0' ? ['nack', 'heart_beat'] : [],
  open({ login, passcode, beats }) {
    return new Promise((resolve, reject) => {
      const connectHeaders = { 'accept-version': version, login, passcode }
      if (beats) connectHeaders['heart-beat'] = `${beats},${beats}`
      const options = {
        host: 'localhost', port: BROKER_PORT, ssl: transport === 'tls', ca, connectHeaders }
      let end
      const ended = new Promise(resolve => { end = resolve })
      const client = stompit.connect(options, (error, client) => {
        if (!error) return resolve(session(client, ended))
        // The library hands on the message of an ERROR and none of its other headers.
        reject({ headers: { message: error.message }, ended })
      })
      client.getTransportSocket().on('close', end)
    })
  },
}

function session(client, ended) {
  let beatsSeen = 0
  client.getTransportSocket().on('data', bytes => {
    if (bytes.every(byte => byte === 10)) beatsSeen += bytes.length
  })
  client.on('error', () => {})
  const send = (headers, body) => client.send(headers).end(body)
  return {
    connected: client.headers, ended, beats: () => beatsSeen,
    send: (destination, body, headers) =>
      send({ ...headers, destination, 'content-length': Buffer.byteLength(body) }, body),
    sendBinary: (destination, body) => send({ destination, 'content-length': body.length }, body),
    sendWithReceipt: (destination, body) => new Promise(resolve => {
      // The library tells that a RECEIPT came, not what it says: its headers are seen on the way.
      const seen = seeReceipt(client)
      client.send({ destination }, { onReceipt: () => resolve(seen()) }).end(body)
    }),
    subscribe(destination, headers) {
      const messages = new Messages()
      const subscription = client.subscribe({ ...headers, destination }, (error, message) => {
        if (!error) read(client, message, one => messages.put(one))
      })
      messages.unsubscribe = () => subscription.unsubscribe()
      return messages
    },
    begin() {
      const transaction = client.begin()
      return {
        send: (destination, body) => transaction.send({ destination }).end(body),
        commit: () => transaction.commit(),
        abort: () => transaction.abort(),
      }
    },
    disconnect: () => new Promise((resolve, reject) => {
      client.disconnect(error => error ? reject(error) : resolve())
    }),
  }
}

function read(client, message, put) {
  const parts = []
  message.on('data', part => parts.push(part))
  message.on('end', () => {
    const bytes = Buffer.concat(parts)
    put({
      headers: message.headers, body: bytes.toString(), binaryBody: bytes,
      ack: () => client.ack(message), nack: () => client.nack(message),
    })
  })
}

function seeReceipt(client) {
  const parts = []
  const see = bytes => parts.push(bytes)
  client.getTransportSocket().on('data', see)
  return () => {
    client.getTransportSocket().off('data', see)
    const text = Buffer.concat(parts).toString()
    return { delivered: /(?:^|[\0\n])RECEIPT\n(?:.+\n)*?delivered:(\d+)/.exec(text)?.[1] }
  }
}

console.log('version', require('stompit/package.json').version)
await runChecks(adapter, {
  login: BROKER_LOGIN, keys: BROKER_KEYS, print: line => console.log(line),
})
process.exit()
