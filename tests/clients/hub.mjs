// A stand-in for an ASP.NET Core hub: stateful reconnect came with .NET 8, compressed WebSockets with .NET 6, and the only SDK
// in the registries of the tests is .NET Core 3.1. It says no more than the tests need; the protocols that write its messages
// are those of Microsoft's client: node hub.mjs '{"port": 8080, "deflate": {"threshold": 1024}}'
// `deflate` are options of `ws`; `false` refuses compression.
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');
const { JsonHubProtocol, MessageType } = require('@microsoft/signalr');
const { MessagePackHubProtocol } = require('@microsoft/signalr-protocol-msgpack');

const silent = { log() {} };
const protocols = { json: new JsonHubProtocol(), messagepack: new MessagePackHubProtocol() };
const options = JSON.parse(process.argv[2]);
const sessions = new Map();

/// One connection, which may outlive its WebSocket.
class Session {
  constructor(id, isStateful) {
    Object.assign(this, { id, isStateful, protocol: null, socket: null, heard: 0, said: 0, dropped: false });
  }

  hear(data) {
    if (this.protocol) {
      for (const message of this.protocol.parseMessages(data, silent)) this.take(message);
    } else {
      this.protocol = protocols[JSON.parse(data.slice(0, -1)).protocol];
      this.socket.send(this.protocol.name === 'json' ? '{}\x1e' : Buffer.from('{}\x1e'));
    }
  }

  take(message) {
    if (message.type === MessageType.Close) this.socket.close();
    if (message.type === MessageType.Sequence) {
      this.heard = message.sequenceId - 1;
      this.say({ type: MessageType.Sequence, sequenceId: this.said + 1 });
    }
    if (message.type === MessageType.Invocation) this.answer(message);
  }

  answer({ invocationId, target, arguments: [text] }) {
    if (target === 'Drop' && !this.dropped) {
      this.dropped = true;
      this.socket.terminate();
      return;
    }
    this.heard += 1;
    this.said += 1;
    const me = { pod: 'stand-in', connectionId: this.id, transport: 'WebSockets' };
    this.say({ type: MessageType.Completion, invocationId, result: target === 'WhoAmI' ? me : text ?? 'done' });
    if (this.isStateful) this.say({ type: MessageType.Ack, sequenceId: this.heard });
  }

  say(message) {
    this.socket.send(this.protocol.writeMessage(message));
  }
}

function negotiate(url, response) {
  const id = randomBytes(16).toString('base64url');
  const useStatefulReconnect = url.searchParams.get('useStatefulReconnect') === 'true';
  sessions.set(id, new Session(id, useStatefulReconnect));
  const availableTransports = [{ transport: 'WebSockets', transferFormats: ['Text', 'Binary'] }];
  response.setHeader('content-type', 'application/json').setHeader('x-pod', 'stand-in');
  response.end(JSON.stringify({ negotiateVersion: 1, connectionId: id, connectionToken: id, availableTransports, useStatefulReconnect }));
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://hub');
  if (url.pathname.endsWith('/negotiate')) {
    negotiate(url, response);
  } else if (url.pathname === '/signalr.min.js') {
    createReadStream(require.resolve('@microsoft/signalr/dist/browser/signalr.min.js')).pipe(response);
  } else {
    response.end('ok');
  }
});

new WebSocket.Server({ server, perMessageDeflate: options.deflate }).on('connection', (socket, request) => {
  const session = sessions.get(new URL(request.url, 'http://hub').searchParams.get('id'));
  session.socket = socket;
  socket.binaryType = 'arraybuffer';
  socket.on('message', (data) => session.hear(data));
});
server.listen(options.port, '127.0.0.1');
