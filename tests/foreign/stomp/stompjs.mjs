// The adapter to @stomp/stompjs, for Node and browsers alike: `library` is what it exports.

import { Messages } from './checks.mjs'

export function stompjs(library, url, version) {
  return {
    version,
    // The library escapes in STOMP 1.2 only.
    escapes: version === '1.2',
    without: version === '1.0' ? ['nack', 'heart_beat'] : [],
    open({ login, passcode, beats }) {
      return new Promise((resolve, reject) => {
        let beatsSeen = 0
        let end
        const ended = new Promise(resolve => { end = resolve })
        const client = new library.Client({
          brokerURL: url,
          stompVersions: new library.Versions([version]),
          connectHeaders: { login, passcode },
          reconnectDelay: 0,
          heartbeatIncoming: beats,
          heartbeatOutgoing: beats,
          debug: line => { if (line === '<<< PONG') beatsSeen += 1 },
          onConnect: frame => resolve(session(client, frame.headers, ended, () => beatsSeen)),
          onStompError: frame => reject({ headers: frame.headers, ended }),
          onWebSocketError: error => reject(new Error(error.message ?? 'WebSocket error')),
          onWebSocketClose: event => end(event.code),
        })
        client.activate()
      })
    },
  }
}

function session(client, connected, ended, beats) {
  let receipts = 0
  return {
    connected, ended, beats,
    send: (destination, body, headers) => client.publish({ destination, body, headers }),
    sendBinary: (destination, binaryBody) => client.publish({ destination, binaryBody }),
    sendWithReceipt: (destination, body) => new Promise(resolve => {
      const receipt = `r:${++receipts}`
      client.watchForReceipt(receipt, frame => resolve(frame.headers))
      client.publish({ destination, body, headers: { receipt } })
    }),
    subscribe(destination, headers) {
      const messages = new Messages()
      const subscription = client.subscribe(destination, one => messages.put(one), headers)
      messages.unsubscribe = () => subscription.unsubscribe()
      return messages
    },
    begin() {
      const { id, commit, abort } = client.begin()
      const send = (destination, body) =>
        client.publish({ destination, body, headers: { transaction: id } })
      return { send, commit, abort }
    },
    // Resolves once the RECEIPT has come and the socket is closed.
    disconnect: () => client.deactivate(),
  }
}
