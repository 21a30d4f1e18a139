/** What programs may choose: the options of a client and of what it is asked for. */

/**
 * @typedef {object} ClientOptions
 * @property {string} url `ws://…` or `wss://…`
 * @property {string} login The login id, for example `ana`.
 * @property {string} profileKey The key of the profile.
 * @property {string} applicationKey The key of the application.
 * @property {import('./backoff.js').ReconnectOptions | false} [reconnect] When to connect again;
 *   `false` for never.
 * @property {{ outgoing?: number, incoming?: number }} [heartBeat] How often this client sends a
 *   heart-beat, and how often it expects to hear the broker, in milliseconds; zero for never. By
 *   default 0 and 10 000: instead of expecting heart-beats, the broker sends pings of WebSocket,
 *   which browsers answer even while timers stand still.
 * @property {number} [connectTimeout] How long connecting and logging in may take, in milliseconds;
 *   default 10 000.
 * @property {number} [closeTimeout] How long logging out may take, in milliseconds; default 5 000.
 * @property {number} [outgoingBytesMax] How many bytes may wait to be sent, while there is no
 *   connection or while the network accepts nothing; default 1 MiB. A larger message is sent only
 *   if there is a connection and nothing else waits.
 * @property {number} [incomingMax] How many messages may wait in an iterator; default 10 000.
 * @property {(error: unknown) => void} [onListenerError] Gets what listeners of this client throw,
 *   and what the promises that they return reject with. By default the global `reportError` gets it
 *   in browsers, and the console elsewhere. The client goes on either way.
 * @property {import('./socket.js').WebSocketClass} [WebSocket] Instead of the global one.
 * @property {import('./clock.js').Clock} [clock] For tests.
 */

/**
 * @typedef {object} SendOptions
 * @property {string} [contentType] Default `text/plain;charset=utf-8` for text.
 * @property {Record<string, string>} [headers] Further headers, which arrive unchanged. A header of
 *   the protocol, such as `content-length`, is a TypeError; `message.userHeaders` holds none.
 * @property {'error' | 'ignore'} [undeliverable] Whether it is an error if nobody is at an address;
 *   it is, unless this is `ignore`.
 * @property {AbortSignal} [signal] Ends the waiting; what was not sent yet is not sent.
 */

/**
 * @typedef {object} OwnRequestOptions
 * @property {number} [timeout] How long the reply may take, in milliseconds; default 30 000.
 */

/** @typedef {Omit<SendOptions, 'undeliverable'> & OwnRequestOptions} RequestOptions */

/**
 * @typedef {object} SubscribeOptions
 * @property {'auto' | 'client' | 'client-individual'} [ack] Whether messages of a queue have to be
 *   acknowledged: not at all (`auto`, the default), each with all before it, or each by itself.
 * @property {number} [prefetch] How many may be unacknowledged at once.
 * @property {Record<string, string>} [headers] Further headers of SUBSCRIBE.
 */

/** The longest delay that timers keep: longer ones fire at once. */
const DELAY_MAX = 2 ** 31 - 1

/**
 * Checks what JavaScript does not: a wrong number would otherwise show itself only much later.
 *
 * @param {ClientOptions} options
 * @throws {TypeError} An option is missing, or is not what it should be.
 */
export function checkOptions(options) {
  for (const name of /** @type {const} */ (['url', 'login', 'profileKey', 'applicationKey'])) {
    if (typeof options?.[name] !== 'string') throw new TypeError(`the option ${name} is missing`)
  }
  const { connectTimeout, closeTimeout, outgoingBytesMax, incomingMax, heartBeat } = options
  checkNumbers('', { connectTimeout, closeTimeout }, DELAY_MAX)
  checkNumbers('', { outgoingBytesMax, incomingMax }, Number.POSITIVE_INFINITY)
  checkNumbers('heartBeat.', { ...heartBeat }, DELAY_MAX)
  checkNumbers('reconnect.', { ...(options.reconnect || {}) }, DELAY_MAX)
}

/**
 * @param {string} prefix
 * @param {Record<string, unknown>} given
 * @param {number} max
 */
function checkNumbers(prefix, given, max) {
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue
    if (typeof value === 'number' && value >= 0 && value <= max) continue
    const range = max === DELAY_MAX ? `from 0 to ${max}` : 'of at least 0'
    throw new TypeError(`the option ${prefix}${name} must be a number ${range}`)
  }
}
