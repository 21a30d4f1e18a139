// Shows a page in headless Chromium and prints what it writes to its console. Usage: page.mjs FILE

import { readFileSync } from 'node:fs'

import { modules, withPage } from './browser.mjs'

const files = {
  '/': readFileSync(process.argv[2]),
  '/stomp.umd.js': readFileSync(`${modules}/@stomp/stompjs/bundles/stomp.umd.js`),
}
await withPage({ files, onLine: line => console.log(line) }, (_, failed) => failed)
