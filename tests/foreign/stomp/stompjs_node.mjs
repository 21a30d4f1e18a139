// @stomp/stompjs over `ws` in Node. Usage: stompjs_node.mjs 1.0|1.1|1.2 ws|wss

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

import { runChecks } from './checks.mjs'
import { stompjs } from './stompjs.mjs'

const require = createRequire(`${process.env.BROKER_NODE_MODULES}/`)
const WebSocket = require('ws')

const [version, transport] = process.argv.slice(2)
const { BROKER_PORT, BROKER_CA, BROKER_LOGIN, BROKER_KEYS } = process.env
const ca = readFileSync(BROKER_CA)
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { ca })
  }
}
const about = readFileSync(`${process.env.BROKER_NODE_MODULES}/@stomp/stompjs/package.json`)
console.log('version', JSON.parse(about).version)
const url = `${transport}://localhost:${BROKER_PORT}/`
await runChecks(stompjs(require('@stomp/stompjs'), url, version), {
  login: BROKER_LOGIN, keys: BROKER_KEYS, print: line => console.log(line),
})
process.exit()
