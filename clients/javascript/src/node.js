/** This package in Node, where WebSocket may have to come from the package `ws`. */

import { createRequire } from 'node:module'
import { join } from 'node:path'

import { explainCause, inquireCause } from './causes.js'
import { provideReport, writeError } from './report.js'
import { provideExplanation, provideInquiry, provideWebSocket } from './socket.js'

export * from './index.js'

provideWebSocket(() => /** @type {any} */ (globalThis).WebSocket ?? findPackage())
provideExplanation(explainCause)
provideInquiry(inquireCause)
// Node has no `reportError`, and where others have one it ends the program.
provideReport(writeError)

/**
 * Looks for the package beside this one, and then beside the program: npm installs a folder as a
 * symbolic link, and Node resolves packages from the target of the link.
 *
 * @returns {import('./socket.js').WebSocketClass | undefined}
 */
function findPackage() {
  const program = process.argv[1]
  const places = [import.meta.url, ...(program ? [program] : []), join(process.cwd(), 'program.js')]
  for (const place of places) {
    try {
      return createRequire(place)('ws')
    } catch {
      // The next place may have it.
    }
  }
  return undefined
}
