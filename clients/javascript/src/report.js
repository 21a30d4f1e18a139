/** Reports the errors that a program's callbacks throw, so that they end nothing. */

/**
 * Where errors of callbacks go.
 *
 * @callback Report
 * @param {unknown} error
 * @returns {void}
 */

/** @type {Report} */
let reportByDefault = (error) => {
  const report = /** @type {any} */ (globalThis).reportError
  if (typeof report === 'function') report(error)
  else writeError(error)
}

/**
 * Sets where errors go unless a client has an option for them.
 *
 * @param {Report} report
 */
export function provideReport(report) {
  reportByDefault = report
}

/** @type {Report} */
export function writeError(error) {
  console.error('com-broker: a callback of this program threw:', error)
}

/**
 * A report that throws nothing itself.
 *
 * @param {Report} [given] Instead of the global `reportError` in browsers, and of the console.
 * @returns {Report}
 */
export function reporter(given) {
  return (error) => callSafely(() => (given ?? reportByDefault)(error), writeError)
}

/**
 * Calls a program's callback. What it throws, or what the promise that it returns rejects with, is
 * reported: a fault in one callback must not keep the next frame from being read.
 *
 * @param {() => unknown} callback
 * @param {Report} report Throws nothing.
 */
export function callSafely(callback, report) {
  try {
    const result = /** @type {any} */ (callback())
    if (typeof result?.then === 'function') result.then(undefined, report)
  } catch (error) {
    report(error)
  }
}
