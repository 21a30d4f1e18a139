/** What the classic script, dist/com-broker.js, puts into the global scope. */

import type * as everything from './types/index.js'

declare global {
  /** The class that existing pages know. */
  var COM_BROKER_Client: typeof everything.COM_BROKER_Client
  /** The application key of all clients that have none of their own. */
  var CFG_STOMP_SECRET_KEY: string
  /** All of this package. */
  var ComBroker: typeof everything
}
