// Counts SignalR's messages where they meet the WebSocket, by type, without the code of the client that wrote them.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');
const { decode } = require('@msgpack/msgpack');

/// By their numbers in the hub protocol.
const names = [
  'handshake', 'invocation', 'stream_item', 'completion', 'stream_invocation', 'cancel_invocation', 'ping', 'close', 'ack', 'sequence',
];

/// The types in text: JSON records, each with 0x1E behind it.
const inText = (text) => text.split('\x1e').slice(0, -1).map((record) => names[JSON.parse(record).type ?? 0]);

/// The types in bytes: MessagePack's arrays, each with its length before it, in groups of 7 bits.
function inBytes(bytes) {
  const found = [];
  let at = 0;
  while (at < bytes.length) {
    let length = 0;
    let shift = 0;
    do {
      length |= (bytes[at] & 0x7f) << shift;
      shift += 7;
    } while (bytes[at++] & 0x80);
    found.push(names[decode(bytes.subarray(at, at + length))[0]]);
    at += length;
  }
  return found;
}

/// The types in the first bytes of a hub of MessagePack: its answer to the handshake is JSON.
function inFirstBytes(bytes) {
  const end = bytes[0] === '{'.charCodeAt() ? bytes.indexOf(0x1e) + 1 : 0;
  return [...inText(String.fromCharCode(...bytes.subarray(0, end))), ...inBytes(bytes.subarray(end))];
}

/// A WebSocket for the client, and what goes by on all of its kind. As a hub sees it: `received` is from the client.
export function watchedWebSocket() {
  const wire = { received: {}, sent: {}, closed: [] };
  const count = (types, found) => found.forEach((type) => { types[type] = (types[type] ?? 0) + 1; });
  class Watched extends WebSocket {
    constructor(...args) {
      super(...args);
      let first = true;
      this.on('message', (data) => {
        const read = typeof data === 'string' ? inText : first ? inFirstBytes : inBytes;
        count(wire.sent, read(typeof data === 'string' ? data : new Uint8Array(data)));
        first = false;
      });
      wire.closed.push(new Promise((closed) => this.on('close', closed)));
    }

    send(data, ...rest) {
      count(wire.received, typeof data === 'string' ? inText(data) : inBytes(new Uint8Array(data)));
      super.send(data, ...rest);
    }
  }
  return { Watched, wire };
}
