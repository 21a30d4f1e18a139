/** Sends as fast as the broker confirms, and says how fast. Usage: load.mjs [URL [SECONDS]] */

import { Client } from 'com-broker'

const [url = 'ws://127.0.0.1:6661/', seconds = 10] = process.argv.slice(2)
const keys = { applicationKey: 'my_app_secret_key', profileKey: 'my_agent_secret_key' }
const end = performance.now() + seconds * 1000
let received = 0

async function talkToOneself(_, index) {
  const client = new Client({ url, login: `load-${process.pid}-${index}`, ...keys })
  client.addEventListener('message', () => received++)
  const { address } = await client.connect()
  const lane = async () => {
    while (performance.now() < end) await client.send(address, 'x'.repeat(64))
  }
  await Promise.all(Array.from({ length: 20 }, lane))
  await client.close()
}

await Promise.all(Array.from({ length: 10 }, talkToOneself))
console.log(`${received} messages in ${seconds} s: ${Math.round(received / seconds)} a second`)
