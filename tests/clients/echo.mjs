// A WebSocket server that returns what it gets, compressed (RFC 7692) where the client wants it: node echo.mjs '{"port": 8080}'
// NODE_PATH names the node_modules, which only CommonJS's resolution honours: hence `createRequire`.
import { createRequire } from 'node:module';

const { Server } = createRequire(import.meta.url)('ws');

const { port } = JSON.parse(process.argv[2]);
const server = new Server({ host: '127.0.0.1', port, perMessageDeflate: true });
server.on('connection', (socket) => {
  // Version 7 hands text over as a string, and so returns it as text.
  socket.on('message', (message) => socket.send(message));
  // What breaks the protocol is answered by `ws` itself.
  socket.on('error', () => {});
});
