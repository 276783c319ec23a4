// Drives @microsoft/signalr: node signalr.mjs '{"url": "http://127.0.0.1:8080", "hub": "/chat", …}'
// The options are those of `NodeClient` in tests/testbed/src/clients.rs; one JSON report goes to stdout.
// NODE_PATH names the node_modules, which only CommonJS's resolution honours: hence `createRequire`.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const signalr = require('@microsoft/signalr');
const { MessagePackHubProtocol } = require('@microsoft/signalr-protocol-msgpack');

const silent = { log() {} };

/// Cookies and headers are the client's own business; this only watches, and takes cookies out if told to.
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
    skipNegotiation: options.skipNegotiation ?? false,
    headers: options.headers ?? {},
    httpClient: new WatchedHttpClient(options.cookies === 'refused', seen),
  });
  if (options.protocol === 'messagepack') builder.withHubProtocol(new MessagePackHubProtocol());
  if (options.statefulReconnect) builder.withStatefulReconnect();
  return builder.build();
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// MessagePack keeps the names of .NET's properties, JSON makes them camel case.
function lowerFirst(object) {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key[0].toLowerCase() + key.slice(1), value]));
}

async function prove(connection, options, seen) {
  await connection.start();
  seen.connectionId = connection.connectionId;
  const me = lowerFirst(await connection.invoke('WhoAmI'));
  seen.answeredPod = me.pod;
  seen.transport = me.transport;
  const text = `hello ${Math.random()} äöü`;
  const echo = await connection.invoke('Echo', text);
  if (echo !== text) throw new Error(`the echo of "${text}" is "${echo}"`);
  if (options.skipNegotiation) return;
  if (me.pod !== seen.negotiatedPod) throw new Error(`${seen.negotiatedPod} negotiated, ${me.pod} answered`);
  if (me.connectionId !== connection.connectionId) {
    throw new Error(`the client is ${connection.connectionId}, to the hub it is ${me.connectionId}`);
  }
}

async function attempt(options) {
  const seen = { ok: false, negotiatedPod: null, answeredPod: null, connectionId: null, transport: null, error: null, cut: null };
  const began = performance.now();
  const connection = build(options, seen);
  let stopping = false;
  connection.onclose((error) => {
    if (!stopping) seen.cut = error ? String(error.message ?? error) : 'closed by the other side';
  });
  try {
    await within(options.tryMs ?? 10000, prove(connection, options, seen));
    seen.ok = true;
  } catch (error) {
    seen.error = String(error.message ?? error);
  }
  seen.milliseconds = Math.round(performance.now() - began);
  if (seen.ok && options.holdMs) await sleep(options.holdMs);
  stopping = true;
  await within(5000, connection.stop()).catch(() => {});
  return seen;
}

async function main() {
  const options = JSON.parse(process.argv[2]);
  const connects = options.connects ?? 60;
  const tries = new Array(connects);
  let next = 0;
  const worker = async () => {
    while (next < connects) {
      const number = next++;
      tries[number] = await attempt(options);
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.parallel ?? 10, connects) }, worker));
  const report = { tried: connects, connected: tries.filter((one) => one.ok).length, tries };
  // Kept-alive connections of `fetch` would hold the process for seconds.
  process.stdout.write(JSON.stringify(report) + '\n', () => process.exit(0));
}

await main();
