// Stands in for k6/websockets, whose WebSocket is a browser's with headers: so is the one of the package `ws`.
import { createRequire } from 'node:module';

const WebSocket = createRequire(import.meta.url)('ws');

class StandIn extends WebSocket {
  constructor(url, protocols, { headers }) {
    super(url, protocols ?? [], { headers });
  }
}

export { StandIn as WebSocket };
