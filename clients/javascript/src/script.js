/** The classic script: what pages without modules find in their global scope. */

import * as everything from './index.js'

const scope = /** @type {any} */ (globalThis)

scope.COM_BROKER_Client = everything.COM_BROKER_Client
scope.ComBroker = everything
// Pages assign it without declaring it; a value set before this script loaded stays.
if (!('CFG_STOMP_SECRET_KEY' in scope)) scope.CFG_STOMP_SECRET_KEY = 'my_app_secret_key'
