/** Text as bytes, and bytes as text. */

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** @typedef {string | ArrayBuffer | ArrayBufferView} Body What can be the body of a message. */

/**
 * The bytes of a binary body; undefined for text.
 *
 * @param {unknown} body
 * @returns {Uint8Array | undefined}
 */
export function binaryOf(body) {
  if (body instanceof ArrayBuffer) return new Uint8Array(body)
  if (ArrayBuffer.isView(body)) {
    return new Uint8Array(body.buffer, body.byteOffset, body.byteLength)
  }
  return undefined
}

/**
 * @param {string} text
 * @returns {Uint8Array} UTF-8
 */
export function encodeText(text) {
  return encoder.encode(text)
}

/**
 * @param {Uint8Array} bytes UTF-8; malformed sequences become U+FFFD
 * @returns {string}
 */
export function decodeText(bytes) {
  return decoder.decode(bytes)
}

/**
 * How many bytes a text has in UTF-8.
 *
 * @param {string} text
 */
export function utf8Length(text) {
  let length = 0
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit < 0x80) length += 1
    else if (unit < 0x800) length += 2
    else if (isPair(unit, text.charCodeAt(index + 1))) {
      length += 4
      index++
    } else length += 3
  }
  return length
}

/**
 * @param {number} high
 * @param {number} low
 */
function isPair(high, low) {
  return high >= 0xd800 && high <= 0xdbff && low >= 0xdc00 && low <= 0xdfff
}

/**
 * @param {...Uint8Array} parts
 * @returns {Uint8Array}
 */
export function join(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/**
 * A frame as it goes over a WebSocket: a text message where the body is text, a binary one
 * otherwise. `head` ends with the blank line.
 *
 * @param {string} head
 * @param {string | Uint8Array} body
 * @returns {string | Uint8Array}
 */
export function frameOf(head, body) {
  if (typeof body === 'string') return `${head}${body}\0`
  return join(encodeText(head), body, NUL)
}

const NUL = new Uint8Array(1)
