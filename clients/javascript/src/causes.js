/** Why connections fail, as Node knows it, in sentences that say what to do. */

import { randomBytes } from 'node:crypto'
import { get as getPlain } from 'node:http'
import { get as getSecure } from 'node:https'

import { readRefusal } from './socket.js'

/**
 * @param {string} url One that a WebSocket took.
 * @param {unknown} cause What the WebSocket said.
 * @returns {string}
 */
export function explainCause(url, cause) {
  const { host, hostname, port, protocol } = new URL(url)
  const { code = '', message = '' } = /** @type {{ code?: string, message?: string }} */ (
    cause ?? {}
  )
  const isTls = protocol === 'wss:'
  const place = port ? host : `${host}:${isTls ? 443 : 80}`
  if (code === 'ECONNREFUSED') return `connection refused at ${place}: is the broker running there?`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `no address is known of ${hostname}`
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return `the certificate of ${place} is not made for ${hostname}: use a name that it was made for`
  }
  if (code === 'CERT_HAS_EXPIRED') {
    return `the certificate of ${place} has expired: the broker needs a new one`
  }
  if (UNTRUSTED.test(code)) {
    return (
      `the certificate of ${place} is not trusted (${message}): trust the authority that signed ` +
      'it, for example with NODE_EXTRA_CA_CERTS=certs/ca.pem'
    )
  }
  if (isTls && (NO_TLS.test(code) || /before secure TLS|disconnected|hang up/.test(message))) {
    const detail = message.match(/SSL routines:[^:]*:([^:]+)/)?.[1] ?? (message || code)
    return `no TLS with ${place} (${detail}): does this port speak it? ws:// is without`
  }
  if (!isTls && (code.startsWith('HPE_') || /hang up/.test(message))) {
    return `${place} does not answer as a broker does (${message}): wss:// is for ports with TLS`
  }
  return `no connection to ${place}${message || code ? `: ${message || code}` : ''}`
}

/** OpenSSL's codes for a certificate that no trusted authority signed. */
const UNTRUSTED = /^(CERT_|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY_LEAF))/

/** OpenSSL's codes for an answer that is not TLS. */
const NO_TLS = /^(EPROTO|ERR_SSL_)/

/** How long an inquiry may take. */
const INQUIRY_MS = 3000

/**
 * Opens a connection as the WebSocket did, to find out why that failed: the WebSocket of Node itself
 * does not tell.
 *
 * @param {string} url One that a WebSocket took.
 * @returns {Promise<unknown>} Undefined if the cause stays unknown.
 */
export async function inquireCause(url) {
  const address = new URL(url)
  const isTls = address.protocol === 'wss:'
  address.protocol = isTls ? 'https:' : 'http:'
  const headers = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': randomBytes(16).toString('base64'),
  }
  return new Promise((resolve) => {
    const options = { agent: false, headers, timeout: INQUIRY_MS }
    const request = (isTls ? getSecure : getPlain)(address, options)
    const finish = (/** @type {unknown} */ cause) => {
      resolve(cause)
      request.destroy()
    }
    request.on('response', (response) => readRefusal(response, finish))
    request.on('upgrade', () => finish(undefined))
    request.on('timeout', () => finish(undefined))
    request.on('error', finish)
  })
}
