/** The errors of this package. Each has a `code`, a word that programs can compare. */

/** The base class of all errors of this package. */
export class ClientError extends Error {
  // Written out, because minifiers rename classes.
  name = 'ClientError'

  /**
   * @param {string} code
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options)
    /** A word that programs can compare. */
    this.code = code
  }
}

/**
 * The broker refused a request, or ended the connection. `code` is its `error-code`, for example
 * `INVALID_APP_KEY`; docs/protocol.md of the broker lists them.
 */
export class BrokerError extends ClientError {
  name = 'BrokerError'

  /**
   * @param {string} code
   * @param {string} message
   * @param {Retry} [retry]
   */
  constructor(code, message, retry) {
    super(code, message)
    /** The broker's advice on reconnecting, if the connection ended. */
    this.retry = retry
  }
}

/** The connection could not be made, or broke. `code` is `CONNECTION_FAILED` or `CONNECTION_LOST`. */
export class ConnectionError extends ClientError {
  name = 'ConnectionError'
}

/**
 * Something was sent, and the connection broke before the broker confirmed it: it may have been
 * delivered or not. The client does not send it again. `code` is `UNCONFIRMED`.
 */
export class UnconfirmedError extends ClientError {
  name = 'UnconfirmedError'

  /** @param {ErrorOptions} [options] */
  constructor(options) {
    const message = 'the connection ended before the broker confirmed this: it may have been done'
    super('UNCONFIRMED', message, options)
  }
}

/** The client is neither connected nor connecting. `code` is `CLOSED`. */
export class ClosedError extends ClientError {
  name = 'ClosedError'

  /** @param {ErrorOptions} [options] */
  constructor(options) {
    super('CLOSED', 'the client is closed: call connect()', options)
  }
}

/** No reply came in time. `code` is `TIMEOUT`. */
export class TimeoutError extends ClientError {
  name = 'TimeoutError'

  /** @param {number} milliseconds */
  constructor(milliseconds) {
    super('TIMEOUT', `no reply came within ${milliseconds} ms`)
  }
}

/** Too much waits to be sent or to be read. `code` is `OUTGOING_FULL` or `INCOMING_FULL`. */
export class OverflowError extends ClientError {
  name = 'OverflowError'
}

/** @typedef {'never' | 'later' | 'now'} Retry Whether and when to connect again, in the broker's words. */
