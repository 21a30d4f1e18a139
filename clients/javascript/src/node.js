/** This package in Node, where WebSocket may have to come from the package `ws`. */

import { createRequire } from 'node:module'

import { provideWebSocket } from './socket.js'

export * from './index.js'

provideWebSocket(() => /** @type {any} */ (globalThis).WebSocket ?? findPackage())

/** @returns {import('./socket.js').WebSocketClass | undefined} */
function findPackage() {
  try {
    return createRequire(import.meta.url)('ws')
  } catch {
    return undefined
  }
}
