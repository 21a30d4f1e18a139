/** Where WebSockets come from, and how they are let go of. */

/** @typedef {new (url: string, protocols: string[]) => any} WebSocketClass
 * The browser's, or another with the same interface, for example that of the package `ws`. */

/** @type {() => WebSocketClass | undefined} */
let findDefault = () => /** @type {any} */ (globalThis).WebSocket

/**
 * Says where the class is found that is used when none is given.
 *
 * @param {() => WebSocketClass | undefined} find
 */
export function provideWebSocket(find) {
  findDefault = find
}

/**
 * @param {WebSocketClass} [given]
 * @returns {WebSocketClass}
 */
export function webSocketClass(given) {
  const found = given ?? findDefault()
  if (found) return found
  throw new TypeError(
    'there is no WebSocket here: install the package ws, or give a class as the option WebSocket',
  )
}

/**
 * Lets go of a socket that may never answer again: nothing more is heard of it.
 *
 * @param {any} socket
 */
export function abandon(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null
  // The package ws throws errors that nobody listens for.
  socket.onerror = () => {}
  // Its close waits half a minute for an answer; its terminate does not.
  if (typeof socket.terminate === 'function') socket.terminate()
  else socket.close()
}
