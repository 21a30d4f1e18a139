/** Clients of Communication Broker: `Client` for new programs, `COM_BROKER_Client` for old ones. */

export { Client } from './client.js'
export { COM_BROKER_Client } from './drop-in.js'
export {
  BrokerError,
  ClientError,
  ClosedError,
  ConnectionError,
  OverflowError,
  TimeoutError,
  UnconfirmedError,
} from './errors.js'
export { Message } from './message.js'
export { Subscription } from './subscription.js'

/** @typedef {import('./events.js').ClientEventMap} ClientEventMap */
/** @typedef {import('./options.js').ClientOptions} ClientOptions */
/** @typedef {import('./options.js').SendOptions} SendOptions */
/** @typedef {import('./options.js').RequestOptions} RequestOptions */
/** @typedef {import('./options.js').SubscribeOptions} SubscribeOptions */
/** @typedef {import('./events.js').PresenceEvent} PresenceEvent */
/** @typedef {import('./events.js').Session} Session */
/** @typedef {import('./keeper.js').State} State */
/** @typedef {import('./drop-in.js').DropInOptions} DropInOptions */
/** @typedef {import('./drop-in.js').OnOpen} OnOpen */
/** @typedef {import('./drop-in.js').OnClosed} OnClosed */
/** @typedef {import('./drop-in.js').OnError} OnError */
/** @typedef {import('./drop-in.js').OnMessage} OnMessage */
/** @typedef {import('./drop-in.js').OnACK} OnACK */
/** @typedef {import('./errors.js').Retry} Retry */
/** @typedef {import('./bytes.js').Body} Body */
/** @typedef {import('./socket.js').WebSocketClass} WebSocketClass */
