// Shows a page in headless Chromium and prints what it writes to its console, until SIGTERM.
// Usage: page.mjs FILE

import { readFileSync } from 'node:fs'

import { modules, withPage } from './browser.mjs'

const files = {
  '/': readFileSync(process.argv[2]),
  '/stomp.umd.js': readFileSync(`${modules}/@stomp/stompjs/bundles/stomp.umd.js`),
}
const stopped = new Promise(resolve => process.on('SIGTERM', resolve))
await withPage({ files, onLine: line => console.log(line) }, (_, failed) =>
  Promise.race([stopped, failed]))
process.exit()
