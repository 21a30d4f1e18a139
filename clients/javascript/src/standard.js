/** Frames of STOMP 1.2. */

import { decodeText, frameOf, utf8Length } from './bytes.js'

/**
 * @typedef {object} Frame
 * @property {string} command
 * @property {Record<string, string>} headers The first of each name.
 * @property {Uint8Array} body
 */

/**
 * @param {string} command
 * @param {Record<string, string | number | undefined>} headers Those that are undefined are left out.
 * @param {string | Uint8Array} [body]
 * @returns {string | Uint8Array}
 */
export function encodeFrame(command, headers, body) {
  // STOMP 1.2, "Value Encoding": CONNECT is not escaped, so it cannot hold line ends.
  const write = command === 'CONNECT' ? checkPlain : escapeText
  let head = `${command}\n`
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) head += `${write(name)}:${write(String(value))}\n`
  }
  if (body === undefined) return frameOf(`${head}\n`, '')
  const length = typeof body === 'string' ? utf8Length(body) : body.length
  return frameOf(`${head}content-length:${length}\n\n`, body)
}

/** Cuts received data into frames, however it is split or joined. Line ends between them are heart-beats. */
export class FrameReader {
  /** The received part of an incomplete frame. */
  #pending = new Uint8Array(0)

  /**
   * @param {Uint8Array} bytes
   * @returns {Frame[]}
   * @throws {SyntaxError} The bytes are not frames.
   */
  push(bytes) {
    let buffer = bytes
    if (this.#pending.length > 0) {
      buffer = new Uint8Array(this.#pending.length + bytes.length)
      buffer.set(this.#pending)
      buffer.set(bytes, this.#pending.length)
    }
    const frames = []
    let at = skipLineEnds(buffer, 0)
    while (at < buffer.length) {
      const read = readFrame(buffer, at)
      if (!read) break
      frames.push(read.frame)
      at = skipLineEnds(buffer, read.end)
    }
    this.#pending = buffer.slice(at)
    return frames
  }
}

const LF = 10
const CR = 13

/**
 * @param {Uint8Array} buffer
 * @param {number} at
 */
function skipLineEnds(buffer, at) {
  let end = at
  while (buffer[end] === LF || buffer[end] === CR) end++
  return end
}

/**
 * @param {Uint8Array} buffer
 * @param {number} start
 * @returns {{ frame: Frame, end: number } | undefined} Undefined while the frame is incomplete.
 */
function readFrame(buffer, start) {
  const head = findHeadEnd(buffer, start)
  if (head === -1) return undefined
  const [command = '', ...lines] = linesOf(buffer.subarray(start, head))
  /** @type {Record<string, string>} */
  const headers = Object.create(null)
  // STOMP 1.2, "Value Encoding": CONNECTED is not escaped.
  const read = command === 'CONNECTED' ? (/** @type {string} */ text) => text : unescapeText
  for (const line of lines) {
    const colon = line.indexOf(':')
    if (colon === -1) throw new SyntaxError(`a header line without a colon: ${line}`)
    // A header without a name can be skipped: no program can ask for it.
    if (colon === 0) continue
    const name = read(line.slice(0, colon))
    // STOMP 1.2, "Repeated Header Entries": the first wins.
    if (!(name in headers)) headers[name] = read(line.slice(colon + 1))
  }
  const length = headers['content-length']
  const end = length === undefined ? buffer.indexOf(0, head) : head + lengthOf(length)
  if (end === -1 || end >= buffer.length) return undefined
  if (buffer[end] !== 0) throw new SyntaxError('no NUL follows the body')
  return { frame: { command, headers, body: buffer.slice(head, end) }, end: end + 1 }
}

/** @param {Uint8Array} head With the empty line at its end. */
function linesOf(head) {
  return decodeText(head)
    .replace(/\r?\n\r?\n$/, '')
    .split(/\r?\n/)
}

/**
 * Where the body begins: behind the first empty line.
 *
 * @param {Uint8Array} buffer
 * @param {number} start
 */
function findHeadEnd(buffer, start) {
  for (let at = buffer.indexOf(LF, start); at !== -1; at = buffer.indexOf(LF, at + 1)) {
    if (buffer[at + 1] === LF) return at + 2
    if (buffer[at + 1] === CR && buffer[at + 2] === LF) return at + 3
  }
  return -1
}

/** @param {string} text */
function lengthOf(text) {
  if (!/^\d+$/.test(text)) throw new SyntaxError(`content-length is no number: ${text}`)
  return Number(text)
}

/** @type {Record<string, string>} */
const ESCAPES = { '\\': '\\\\', '\r': '\\r', '\n': '\\n', ':': '\\c' }

/** @type {Record<string, string>} */
const UNESCAPES = { '\\\\': '\\', '\\r': '\r', '\\n': '\n', '\\c': ':' }

/** @param {string} text */
function escapeText(text) {
  if (text.includes('\0')) throw new TypeError('a header must not contain NUL')
  return text.replace(/[\\\r\n:]/g, (character) => ESCAPES[character] ?? '')
}

/** @param {string} text */
function unescapeText(text) {
  return text.replace(/\\(.?)/g, (sequence) => {
    const character = UNESCAPES[sequence]
    if (character === undefined) throw new SyntaxError(`an escape that STOMP has not: ${sequence}`)
    return character
  })
}

/** @param {string} text */
function checkPlain(text) {
  if (/[\r\n\0]/.test(text)) throw new TypeError('login and keys must not contain line ends or NUL')
  return text
}
