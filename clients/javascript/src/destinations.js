/** Checks of destination names that need no broker. */

import { BrokerError } from './errors.js'

/** @param {string} destination */
export function isAddress(destination) {
  return /^\/(agent|service|admin)\//.test(destination)
}

/**
 * Refuses a malformed name here: the broker would end the connection over it.
 *
 * @param {unknown} destination Of a message.
 * @throws {TypeError} It is not a string.
 * @throws {BrokerError} `NO_SUCH_DESTINATION`: it begins with none of the known prefixes.
 */
export function checkDestination(destination) {
  check(destination, 'NO_SUCH_DESTINATION')
}

/**
 * @param {unknown} destination Of a subscription.
 * @throws {TypeError} It is not a string.
 * @throws {BrokerError} `NO_DESTINATION_SUB`: it begins with none of the known prefixes.
 */
export function checkSubscribed(destination) {
  if (destination === '/broker/presence' || destination === 'STOMP-SERVER') return
  check(destination, 'NO_DESTINATION_SUB')
}

/**
 * @param {unknown} destination
 * @param {string} code
 */
function check(destination, code) {
  if (typeof destination !== 'string' || destination === '') {
    throw new TypeError('the destination must be a name, such as /agent/ana or /topic/news')
  }
  if (/^\/(agent|service|admin|topic|queue)\/./s.test(destination)) return
  const spaces = '/agent/, /service/, /admin/, /topic/ or /queue/'
  throw new BrokerError(code, `${destination} is no destination: names begin with ${spaces}`)
}
