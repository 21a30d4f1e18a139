/** Frames of both dialects, in memory. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Length } from '../src/bytes.js'
import { decodeClassic, encodeClassic } from '../src/classic.js'
import { encodeFrame, FrameReader } from '../src/standard.js'

const bytesOf = (data) => new Uint8Array(Buffer.from(data))

test('lengths are counted in bytes of UTF-8', () => {
  for (const text of ['', 'a', 'ñ', '☎', '🙂', 'a\ud800b', '\udc00', 'x🙂ñ\ud83d']) {
    assert.equal(utf8Length(text), new TextEncoder().encode(text).length, JSON.stringify(text))
  }
})

test('the classic dialect is written as existing brokers read it', () => {
  const frame = encodeClassic('SEND', { destination: '/agent/ana', transaction: 7 }, 'señora')
  assert.equal(frame, 'SEND\ndestination:/agent/ana\ntransaction:7\ncontent-length:7\n\nseñora\0')
  assert.equal(encodeClassic('DISCONNECT', { 'receipt-id': 1 }), 'DISCONNECT\nreceipt-id:1\n\n\0')
  const binary = encodeClassic('SEND', { destination: 'x' }, Uint8Array.of(0, 255))
  assert.deepEqual(
    binary,
    bytesOf(Buffer.from('SEND\ndestination:x\ncontent-length:2\n\n\0\xff\0', 'latin1')),
  )
  assert.throws(() => encodeClassic('SEND', { destination: 'a\nb:c' }), /destination must not/)
})

test('the classic dialect is read, its last byte dropped [first-header-wins]', () => {
  for (const last of ['0', '\0']) {
    const data = `MESSAGE\norigin: ana \na:b:c\na:second\n\n¿qué?\nx${last}`
    const { command, headers, body } = decodeClassic(data)
    assert.equal(command, 'MESSAGE')
    assert.deepEqual({ ...headers }, { origin: 'ana', a: 'b:c' })
    assert.equal(body, '¿qué?\nx')
  }
  const { buffer } = bytesOf(Buffer.from('MESSAGE\r\na:b\r\n\r\n\0\xff\0\0', 'latin1'))
  assert.deepEqual(decodeClassic(buffer).body, Uint8Array.of(0, 255, 0))
  assert.equal(decodeClassic('ACK\n\n\0').command, 'ACK')
})

test('STOMP 1.2, "Value Encoding": headers are escaped and come back as they were [headers-pass]', () => {
  const headers = { 'a:b': 'x\\y\r\n:z', plain: ' kept ' }
  const frame = encodeFrame('SEND', headers, 'ñ')
  assert.equal(frame, 'SEND\na\\cb:x\\\\y\\r\\n\\cz\nplain: kept \ncontent-length:2\n\nñ\0')
  const [read] = new FrameReader().push(bytesOf(frame))
  assert.deepEqual({ ...read.headers }, { ...headers, 'content-length': '2' })
  assert.throws(() => new FrameReader().push(bytesOf('MESSAGE\na:\\t\n\n\0')), SyntaxError)
  assert.throws(() => encodeFrame('CONNECT', { login: 'a\nb' }), /line ends/)
  assert.throws(() => encodeFrame('SEND', { a: '\0' }), /NUL/)
})

test('STOMP 1.2, "Repeated Header Entries": the first wins [first-header-wins]', () => {
  const [frame] = new FrameReader().push(bytesOf('MESSAGE\na:1\na:2\n\n\0'))
  assert.equal(frame.headers.a, '1')
  assert.equal('toString' in frame.headers, false)
})

test('frames are cut out of any split of what arrives [chunking-invisible]', () => {
  const all = bytesOf(
    '\n\r\nMESSAGE\r\na:ñ\r\ncontent-length:5\r\n\r\nx\0y\nz\0\nRECEIPT\nreceipt-id:1 \n\n\0\n\n',
  )
  for (let size = 1; size <= all.length; size++) {
    const reader = new FrameReader()
    const frames = []
    for (let at = 0; at < all.length; at += size) {
      frames.push(...reader.push(all.subarray(at, at + size)))
    }
    assert.deepEqual(
      frames.map(({ command, headers, body }) => [
        command,
        { ...headers },
        String.fromCharCode(...body),
      ]),
      [
        ['MESSAGE', { a: 'ñ', 'content-length': '5' }, 'x\0y\nz'],
        ['RECEIPT', { 'receipt-id': '1 ' }, ''],
      ],
      `in pieces of ${size}`,
    )
  }
})

test('a header without a name is passed over', () => {
  const [frame] = new FrameReader().push(bytesOf('MESSAGE\n:x\na:1\n:\n\nbody\0'))
  assert.deepEqual({ ...frame.headers }, { a: '1' })
})

test('what is no frame is refused [malformed-refused]', () => {
  for (const wrong of [
    'X\na\n\n\0',
    'X\na:1\ncontent-length:x\n\n\0',
    'X\ncontent-length:1\n\nabc\0',
  ]) {
    assert.throws(() => new FrameReader().push(bytesOf(wrong)), SyntaxError, wrong)
  }
})
