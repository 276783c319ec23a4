// Drives @microsoft/signalr: node signalr.mjs '{"url": "http://127.0.0.1:8080", "hub": "/chat", …}'
// The options are those of `NodeClient` in tests/testbed/src/clients.rs; one JSON report goes to stdout.
// NODE_PATH names the node_modules, which only CommonJS's resolution honours: hence `createRequire`.
import { existsSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { attempts, report } from './attempt.mjs';

const require = createRequire(import.meta.url);
const signalr = require('@microsoft/signalr');
const { MessagePackHubProtocol } = require('@microsoft/signalr-protocol-msgpack');

const silent = { log() {} };

/// Cookies and headers are the client's own business; this only watches, and takes cookies out if asked to.
class WatchedHttpClient extends signalr.DefaultHttpClient {
  constructor(refuseCookies, seen) {
    const real = globalThis.fetch;
    // The client takes the global `fetch` when it is constructed, and wraps it with its cookie jar.
    globalThis.fetch = async (url, init) => {
      const headers = new Headers(init.headers);
      if (refuseCookies) headers.delete('cookie');
      const response = await real(url, { ...init, headers });
      if (new URL(url).pathname.endsWith('/negotiate')) seen.negotiatedPod = response.headers.get('x-pod');
      return response;
    };
    try {
      super(silent);
    } finally {
      globalThis.fetch = real;
    }
    this.refuseCookies = refuseCookies;
  }

  // What goes into the `Cookie` header of WebSockets and event streams.
  getCookieString(url) {
    return this.refuseCookies ? '' : super.getCookieString(url);
  }
}

function build(options, seen) {
  const builder = new signalr.HubConnectionBuilder().configureLogging(silent).withUrl(options.url + options.hub, {
    transport: signalr.HttpTransportType[options.transport],
    skipNegotiation: options.skipNegotiation,
    headers: options.headers,
    ...(options.accessToken && { accessTokenFactory: () => options.accessToken }),
    httpClient: new WatchedHttpClient(options.cookies === 'refused', seen),
  });
  if (options.protocol === 'messagepack') builder.withHubProtocol(new MessagePackHubProtocol());
  if (options.statefulReconnect) builder.withStatefulReconnect();
  return builder.build();
}

/// Writes the file `held` as soon as every connection is held, and lets go of them all when there is a file `release`.
function watchHold(options) {
  let held = 0;
  options.onHold = () => {
    held += 1;
    if (held === options.connects) writeFileSync(options.held, '');
  };
  options.released = new Promise((release) => {
    setInterval(() => { if (existsSync(options.release)) release(); }, 20);
  });
}

const options = JSON.parse(process.argv[2]);
if (options.trustsAnyCertificate) process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
if (options.held) watchHold(options);
const tries = await attempts(options, build);
// Kept-alive connections of `fetch` would hold the process for seconds.
process.stdout.write(`${JSON.stringify(report(options, tries))}\n`, () => process.exit(0));
