// Has @microsoft/signalr say what its script says, and reports every message that went by:
// node messages.mjs '{"url": "http://…", "script": "everything", "protocols": {"/chat": "json"}, "connections": 4}'
// The options are `Talk` in tests/metrics/messages.rs, the report is `Wire` for each hub.
import { createRequire } from 'node:module';
import { watchedWebSocket } from './wire.mjs';

const require = createRequire(import.meta.url);
const signalr = require('@microsoft/signalr');
const { MessagePackHubProtocol } = require('@microsoft/signalr-protocol-msgpack');

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(ready) {
  while (!ready()) await sleep(20);
}

/// One of each type of message that a client and a hub of .NET Core 3.1 can say, and pings while nobody speaks.
async function everything(connection, hub, all) {
  await connection.invoke('Echo', 'a "quoted" \\ {"type":7} äöü 👋');
  await connection.invoke('Echo', 'x'.repeat(20_000));
  await connection.send('Echo', 'nobody waits for the answer');
  await connection.invoke('NoSuchMethod').catch(() => {});
  const numbers = new signalr.Subject();
  const sum = connection.invoke('Sum', numbers);
  for (const number of [1, 2, 3, 4]) numbers.next(number);
  numbers.complete();
  if (await sum !== 10) throw new Error('the hub cannot count');
  await new Promise((complete, error) => connection.stream('Count', 5).subscribe({ next() {}, complete, error }));
  const endless = connection.stream('Count', 20_000);
  const subscription = endless.subscribe({ next: () => subscription.dispose(), complete() {}, error() {} });
  await all('ready to hear everybody');
  await connection.invoke('Send', 'ann', 'to everybody');
  await all('spoke');
  await until(() => hub.wire.sent.invocation === hub.connections * hub.speakers && hub.wire.sent.completion === hub.connections * 7);
  await until(() => [hub.wire.received, hub.wire.sent].every(({ ping }) => ping >= hub.connections * 2));
}

/// The hub drops the WebSocket, after the client has reported that it got all answers so far.
async function resumed(connection, { wire }) {
  for (let call = 0; call < 3; call++) await connection.invoke('Echo', 'before');
  await until(() => wire.received.ack > 0);
  await connection.invoke('Drop');
  const acks = wire.received.ack;
  for (let call = 0; call < 2; call++) await connection.invoke('Echo', 'after');
  await until(() => wire.received.ack > acks);
}

/// `ws` compresses messages of 1 KiB and more.
async function compressed(connection) {
  for (const length of [10, 2_000, 20, 3_000, 4_000]) await connection.invoke('Echo', 'x'.repeat(length));
}

const scripts = { everything, resumed, compressed };

function connect(options, path, Watched) {
  const builder = new signalr.HubConnectionBuilder().configureLogging({ log() {} }).withUrl(options.url + path, {
    transport: signalr.HttpTransportType.WebSockets,
    WebSocket: Watched,
  });
  if (options.protocols[path] === 'messagepack') builder.withHubProtocol(new MessagePackHubProtocol());
  if (options.script === 'resumed') builder.withStatefulReconnect();
  const connection = builder.build();
  if (options.script === 'everything') connection.keepAliveIntervalInMilliseconds = 1_000;
  connection.on('message', () => {});
  return connection;
}

/// Waits until as many callers have come to the same point.
function barrier(callers) {
  const points = new Map();
  return (name) => {
    const waiting = points.get(name) ?? [];
    points.set(name, waiting);
    return new Promise((resolve) => {
      waiting.push(resolve);
      if (waiting.length === callers) waiting.forEach((go) => go());
    });
  };
}

const options = JSON.parse(process.argv[2]);
const paths = Object.keys(options.protocols);
const speakers = paths.length * options.connections;
const all = barrier(speakers);
const report = {};

await Promise.all(paths.map(async (path) => {
  const { Watched, wire } = watchedWebSocket();
  const hub = { wire, connections: options.connections, speakers };
  const connections = Array.from({ length: options.connections }, () => connect(options, path, Watched));
  await Promise.all(connections.map(async (connection) => {
    await connection.start();
    await scripts[options.script](connection, hub, all);
  }));
  await Promise.all(connections.map((connection) => connection.stop()));
  // A goodbye of the hub may still be on its way.
  await Promise.all(wire.closed);
  report[path] = { received: wire.received, sent: wire.sent };
}));
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
