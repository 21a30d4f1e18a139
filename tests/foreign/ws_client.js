// A WebSocket client that is driven over standard input and output, a line of JSON each way, so that
// the same checks run with Node's `ws` as with Python's clients. Payloads are base64.
//
// usage: node ws_client.js URL [AUTHORITY]

"use strict";

const fs = require("fs");
const readline = require("readline");
const WebSocket = require("ws");

const [url, authority] = process.argv.slice(2);
const options = authority ? { ca: fs.readFileSync(authority) } : {};
const socket = new WebSocket(url, "stomp", options);

function tell(event) {
  process.stdout.write(JSON.stringify(event) + "\n");
}

socket.on("open", () => tell({ open: socket.protocol }));
socket.on("message", (data, isBinary) => tell({ message: data.toString("base64"), isBinary }));
socket.on("pong", (data) => tell({ pong: data.toString("base64") }));
socket.on("ping", () => tell({ ping: true }));
socket.on("error", (error) => tell({ error: String(error) }));
socket.on("close", (code) => {
  tell({ close: code });
  process.exitCode = 0;
  process.stdin.destroy();
});

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  const payload = Buffer.from(order.payload || "", "base64");
  if (order.order === "text") socket.send(payload.toString("utf8"));
  else if (order.order === "binary") socket.send(payload);
  else if (order.order === "ping") socket.ping(payload);
  else if (order.order === "terminate") socket.terminate();
});
