/** Which headers of a message its sender may choose, and which belong to the protocol. */

/** Headers that SEND or MESSAGE define. The broker does not pass on what a sender gives for them. */
const PROTOCOL = new Set([
  'ack',
  'content-length',
  'content-type',
  'destination',
  'error-code',
  'error-desc',
  'event',
  'message-id',
  'origin',
  'origin-destination',
  'passcode',
  'receipt',
  'receipt-id',
  'redelivered',
  'secret-key',
  'session-id',
  'snapshot',
  'subscription',
  'transaction',
  'undeliverable',
])

/** Headers that tie a reply to its request. */
export const CORRELATION = ['correlation-id', 'reply-to']

/** Headers of SUBSCRIBE that say what is subscribed to, and how. */
const SUBSCRIPTION = ['destination-id', 'destination-type', 'id', 'prefetch-count']

/** What to use instead of a header. @type {Record<string, string>} */
const INSTEAD = {
  ack: 'the option ack of subscribe()',
  'content-type': 'the option contentType',
  'correlation-id': 'request() and message.reply(), which set it',
  'prefetch-count': 'the option prefetch of subscribe()',
  'reply-to': 'request(), which sets it',
  undeliverable: 'the option undeliverable',
}

/**
 * The headers of a message that its sender added: what a message that is passed on may carry.
 *
 * @param {Record<string, string>} headers
 */
export function userHeadersOf(headers) {
  const isKept = (/** @type {string} */ name) => PROTOCOL.has(name) || CORRELATION.includes(name)
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !isKept(name)))
}

/**
 * @param {Record<string, unknown> | undefined} headers Of a message.
 * @param {string[]} [kept] Names that are reserved besides those of the protocol.
 * @throws {TypeError} A header has a reserved name.
 */
export function checkUserHeaders(headers, kept = []) {
  for (const given of Object.keys(headers ?? {})) {
    const name = nameAsRead(given)
    if (name === '') throw new TypeError('a header needs a name')
    if (!PROTOCOL.has(name) && !kept.includes(name)) continue
    const instead = INSTEAD[name] ? `use ${INSTEAD[name]}` : 'the client sets it'
    const hint = "; to pass a message's headers on, use message.userHeaders"
    throw new TypeError(`the header ${name} must not be given: ${instead}${hint}`)
  }
}

/** @param {Record<string, unknown> | undefined} headers Of a subscription. */
export function checkSubscribeHeaders(headers) {
  checkUserHeaders(headers, SUBSCRIPTION)
}

/**
 * A name as a receiver may read it: many strip blanks and invisible characters around it, and those
 * that do not unescape end it at the first colon.
 *
 * @param {string} name
 */
function nameAsRead(name) {
  return name.replace(/:.*/s, '').replace(/^[\s\p{C}\p{Z}\p{DI}]+|[\s\p{C}\p{Z}\p{DI}]+$/gu, '')
}
