// @stomp/stompjs in headless Chromium. Usage: stompjs_chromium.mjs 1.2 ws|wss

import { readFileSync } from 'node:fs'

import { modules, withPage } from './browser.mjs'

const [, transport] = process.argv.slice(2)
const { BROKER_PORT, BROKER_LOGIN, BROKER_KEYS } = process.env

const page = `<!doctype html><meta charset="utf-8"><title>STOMP</title>
<script src="/stomp.umd.js"></script>
<script type="module">
  import { runChecks } from '/checks.mjs'
  import { stompjs } from '/stompjs.mjs'
  const adapter = stompjs(StompJs, '${transport}://localhost:${BROKER_PORT}/', '1.2')
  const print = line => console.log(line)
  await runChecks(adapter, { login: '${BROKER_LOGIN}', keys: '${BROKER_KEYS}', print })
  print('finished')
</script>`
const files = {
  '/': page,
  '/checks.mjs': readFileSync(new URL('checks.mjs', import.meta.url)),
  '/stompjs.mjs': readFileSync(new URL('stompjs.mjs', import.meta.url)),
  '/stomp.umd.js': readFileSync(`${modules}/@stomp/stompjs/bundles/stomp.umd.js`),
}

let finish
const finished = new Promise(resolve => { finish = resolve })
function onLine(line) {
  if (line === 'finished') finish()
  else console.log(line)
}

await withPage({ files, onLine }, async (chromium, failed) => {
  const about = JSON.parse(readFileSync(`${modules}/@stomp/stompjs/package.json`))
  console.log(`version ${chromium} with stompjs ${about.version}`)
  await Promise.race([finished, failed])
})
process.exit()
