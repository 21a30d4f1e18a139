/** Frames of the classic dialect. Each is one WebSocket message, and nothing is escaped. */

import { decodeText, encodeText, frameOf, utf8Length } from './bytes.js'

/**
 * @typedef {object} ClassicFrame
 * @property {string} command
 * @property {Record<string, string>} headers The first of each name.
 * @property {string | Uint8Array} body Text where the broker sent text, bytes otherwise.
 */

/**
 * @param {string} command
 * @param {Record<string, string | number>} headers
 * @param {string | Uint8Array} [body]
 * @returns {string | Uint8Array}
 * @throws {TypeError} A header holds a character that would end its line.
 */
export function encodeClassic(command, headers, body) {
  const all = body === undefined ? headers : { ...headers, 'content-length': lengthOf(body) }
  const lines = Object.entries(all).map(([name, value]) => `${name}:${plain(name, value)}\n`)
  return frameOf(`${command}\n${lines.join('')}\n`, body ?? '')
}

/**
 * @param {string | ArrayBuffer} data
 * @returns {ClassicFrame}
 */
export function decodeClassic(data) {
  const bytes = typeof data === 'string' ? encodeText(data) : new Uint8Array(data)
  const end = findBlankLine(bytes)
  const [command = '', ...lines] = decodeText(bytes.subarray(0, end)).trimEnd().split(/\r?\n/)
  /** @type {Record<string, string>} */
  const headers = Object.create(null)
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, Math.max(colon, 0)).trim()
    if (name && !(name in headers)) headers[name] = line.slice(colon + 1).trim()
  }
  // The last byte is dropped whatever its value: it ends the frame.
  const body = bytes.slice(end, Math.max(end, bytes.length - 1))
  return { command, headers, body: typeof data === 'string' ? decodeText(body) : body }
}

/** @param {string | Uint8Array} body */
function lengthOf(body) {
  return typeof body === 'string' ? utf8Length(body) : body.length
}

/**
 * @param {string} name
 * @param {string | number} value
 */
function plain(name, value) {
  const text = String(value)
  if (/[\r\n\0]/.test(text)) throw new TypeError(`${name} must not contain line ends or NUL`)
  return text
}

/** @param {Uint8Array} bytes */
function findBlankLine(bytes) {
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) {
    if (bytes[at + 1] === 10) return at + 2
    if (bytes[at + 1] === 13 && bytes[at + 2] === 10) return at + 3
  }
  return bytes.length
}
