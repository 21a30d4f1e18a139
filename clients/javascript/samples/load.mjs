/** Sends as fast as the broker confirms, and says how fast that is. Usage: load.mjs [URL [SECONDS]] */

import { Client } from 'com-broker'

const [url = 'ws://127.0.0.1:6661/', seconds = 10] = process.argv.slice(2)
const applicationKey = 'my_app_secret_key'
const profileKey = 'my_agent_secret_key'
const clients = Array.from({ length: 10 }, (_, index) => {
  return new Client({ url, login: `load-${process.pid}-${index}`, applicationKey, profileKey })
})
const sessions = await Promise.all(clients.map((client) => client.connect()))
let received = 0
for (const client of clients) client.addEventListener('message', () => received++)
const end = performance.now() + seconds * 1000
const sendUntilEnd = async (client, { address }) => {
  while (performance.now() < end) await client.send(address, 'x'.repeat(64))
}
await Promise.all(
  clients.flatMap((client, i) =>
    Array(20)
      .fill()
      .map(() => sendUntilEnd(client, sessions[i])),
  ),
)
console.log(`${received} messages in ${seconds} s: ${Math.round(received / seconds)} a second`)
await Promise.all(clients.map((client) => client.close()))
