/** What the types promise to programs in TypeScript, with everything strict. Only compiled, not run. */

import 'com-broker/global'

import {
  BrokerError,
  Client,
  type ClientError,
  COM_BROKER_Client,
  type Message,
  type PresenceEvent,
  type Session,
  type Subscription,
} from 'com-broker'
import { WebSocket as WebSocketOfNode } from 'ws'

/** Fails to compile unless both types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : never
function same<A, B>(_: Same<A, B>): void {}

const client = new Client({
  url: 'ws://x/',
  login: 'ana',
  applicationKey: 'a',
  profileKey: 'p',
  reconnect: { minDelay: 1, maxDelay: 2, laterDelay: 3 },
  heartBeat: { incoming: 1000 },
  onListenerError: (error) => same<typeof error, unknown>(true),
  WebSocket: WebSocketOfNode,
})

export async function modern(): Promise<void> {
  const session = await client.connect({ signal: AbortSignal.timeout(1) })
  same<typeof session, Session>(true)
  same<typeof session.profile, 'agent' | 'super agent' | 'service' | 'admin'>(true)
  client.addEventListener('message', ({ detail }) => same<typeof detail, Message>(true))
  client.addEventListener('message', async ({ detail }) => {
    await client.send('/agent/x', detail.text, { headers: detail.userHeaders })
  })
  client.addEventListener('close', ({ detail }) =>
    same<typeof detail.error, Error | undefined>(true),
  )
  client.addEventListener('reconnecting', ({ detail }) => same<typeof detail.delay, number>(true))
  client.addEventListener('open', ({ detail }) => same<typeof detail.session, Session>(true), {
    once: true,
  })
  const sent = await client.send('/agent/x', new Uint8Array(1), { undeliverable: 'ignore' })
  same<typeof sent, { delivered: number }>(true)
  const reply = await client.request('/agent/x', 'text', { timeout: 1, headers: { a: 'b' } })
  same<typeof reply.text, string>(true)
  same<typeof reply.bytes, Uint8Array>(true)
  const topic = await client.subscribe('/topic/x', { ack: 'client', prefetch: 1 })
  same<typeof topic, Subscription<Message>>(true)
  for await (const message of topic) same<typeof message, Message>(true)
  for await (const message of client.messages()) same<typeof message, Message>(true)
  const presence = await client.presence({ snapshot: true })
  for await (const event of presence) same<typeof event, PresenceEvent>(true)
  await client.watch(/x/, (message) => same<typeof message, Message>(true))
  await client.watch(/x/, async (message) => message.text)
}

export function code(error: ClientError): string {
  return error instanceof BrokerError ? `${error.code} ${error.retry}` : error.code
}

export function dropIn(): void {
  const old = new COM_BROKER_Client('x', 'ws://x/', {
    applicationKey: 'a',
    onListenerError: console.error,
  })
  old.linkEvents(
    (session, destination, profile, connection) => [session, destination, profile, connection],
    (_session, closeCode) => same<typeof closeCode, number>(true),
    (error, details) => same<typeof details.retry, string | undefined>(error !== '' || true),
    (_origin, _destination, _type, payload) => same<typeof payload, string | Uint8Array>(true),
    (data, { transaction }) => same<typeof transaction, string>(data !== '' || true),
  )
  old.linkEvents(null, undefined, (error) => error)
  const transaction = old.send('/agent/x', 'x')
  same<typeof transaction, string | undefined>(true)
  old.subscribe('/agent/x', '1')
  old.disconnect()
}

export function script(): void {
  CFG_STOMP_SECRET_KEY = 'x'
  const old = new globalThis.COM_BROKER_Client('x', 'ws://x/')
  same<typeof old, COM_BROKER_Client>(true)
  new ComBroker.Client({ url: 'x', login: 'x', applicationKey: 'x', profileKey: 'x' }).close()
}

// @ts-expect-error: the keys are missing
new Client({ url: 'ws://x/', login: 'ana' })
// @ts-expect-error: there is no such event
client.addEventListener('opened', () => {})
// @ts-expect-error: there is no such mode
client.subscribe('/queue/x', { ack: 'none' })
// @ts-expect-error: a body is text or bytes
client.send('/agent/x', 7)
