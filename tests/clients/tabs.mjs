// Tabs of one Chromium profile, each with connections to several hubs by every transport, at the same time:
// node tabs.mjs '{"program": "/usr/bin/chromium", "url": "http://…", "page": "http://…", …}'
// The options are those of `Tabs` in tests/browser.rs; the report is its `Lives`.
import { within } from './attempt.mjs';
import { sleep, commandLine, watchNegotiations, withChromium } from './chromium.mjs';

const options = commandLine();
const [chat, notifications] = options.hubs;

// All tabs share the six HTTP/1.1 connections that a browser opens to a host: event streams and polls hold one each,
// so there are no more than four of them at a time, and a fifth while one is replaced. WebSockets do not count.
const plan = [
  ...[0, 1].flatMap((tab) => [chat, notifications, chat, notifications].map((hub) => ({ tab, hub, transport: 'WebSockets' }))),
  ...['ServerSentEvents', 'LongPolling'].flatMap((transport) => [
    { tab: 0, hub: chat, transport },
    { tab: 1, hub: notifications, transport },
  ]),
];

/// Runs in each page.
function install() {
  globalThis.lives = [];
  globalThis.open = async (number, url, transport) => {
    const connection = new globalThis.signalR.HubConnectionBuilder()
      .configureLogging(globalThis.signalR.LogLevel.None)
      .withUrl(url, { transport: globalThis.signalR.HttpTransportType[transport] })
      .build();
    const life = { connection, heard: [], cut: null, stopping: false };
    globalThis.lives[number] = life;
    connection.on('message', (user, text) => life.heard.push(text));
    connection.onclose((error) => {
      if (!life.stopping) life.cut = error ? String(error.message ?? error) : 'closed by the other side';
    });
    await connection.start();
    return connection.connectionId;
  };
  globalThis.close = async (number) => {
    globalThis.lives[number].stopping = true;
    await globalThis.lives[number].connection.stop();
  };
}

class Life {
  constructor({ tab, hub, transport }, number, tabs) {
    Object.assign(this, { tab, hub, transport, negotiatedPod: null, pods: [], missed: [], error: null, cut: null });
    this.expected = [];
    this.number = number;
    this.in = tabs[tab];
  }

  async try(step, ms = options.tryMs) {
    if (this.error) return;
    try {
      await within(ms, step());
    } catch (error) {
      this.error = String(error.message ?? error).split('\n', 1)[0];
    }
  }

  open() {
    return this.try(async () => {
      const place = [this.number, options.url + this.hub, this.transport];
      this.id = await this.in.page.evaluate((place) => globalThis.open(...place), place);
      this.negotiatedPod = await this.in.negotiations.podOf(this.id);
    });
  }

  ask() {
    return this.try(async () => {
      const me = await this.in.page.evaluate((number) => globalThis.lives[number].connection.invoke('WhoAmI'), this.number);
      this.pods.push(me.pod);
      if (me.connectionId !== this.id) throw new Error(`the client is ${this.id}, to the hub it is ${me.connectionId}`);
    });
  }

  say(text) {
    const invoke = ([number, text]) => globalThis.lives[number].connection.invoke('Send', 'somebody', text);
    return this.try(() => this.in.page.evaluate(invoke, [this.number, text]));
  }

  async look() {
    const { heard, cut } = await this.in.page.evaluate((number) => {
      const { heard, cut } = globalThis.lives[number];
      return { heard, cut };
    }, this.number);
    this.missed = this.expected.filter((text) => heard.filter((other) => other === text).length !== 1);
    this.cut = cut;
  }

  async close() {
    await this.look();
    await this.try(() => this.in.page.evaluate((number) => globalThis.close(number), this.number));
    this.closed = true;
  }

  toJSON() {
    const { tab, hub, transport, negotiatedPod, pods, missed, error, cut } = this;
    return { tab, hub, transport, negotiatedPod, pods, missed, error, cut };
  }
}

async function openTab(context) {
  const page = await context.newPage();
  const negotiations = watchNegotiations(page);
  await page.goto(new URL('/healthz', options.page).href);
  await page.addScriptTag({ url: new URL('/signalr.min.js', options.page).href });
  await page.evaluate(install);
  return { page, negotiations };
}

async function live(newContext) {
  const context = await newContext();
  const tabs = [await openTab(context), await openTab(context)];
  const lives = plan.map((place, number) => new Life(place, number, tabs));
  const present = () => lives.filter((life) => !life.error && !life.closed);
  const each = (act) => Promise.all(present().map(act));
  const speak = async (life, text) => {
    await each((other) => other.expected.push(text));
    await life.say(text);
    // It goes from pod to pod, and by the next poll.
    const deadline = performance.now() + options.tryMs;
    do {
      await each((other) => other.look());
      if (present().every((other) => other.missed.length === 0)) return;
      await sleep(100);
    } while (performance.now() < deadline);
  };

  if (options.inTurn) for (const life of lives) await life.open();
  else await Promise.all(lives.map((life) => life.open()));
  for (let round = 0; round < 2; round++) await each((life) => life.ask());

  // Others take the places of those that held a connection of HTTP/1.1, each on the other hub, before they go.
  for (const old of lives.slice(8)) {
    const place = { ...old, hub: old.hub === chat ? notifications : chat };
    const fresh = new Life(place, lives.length, tabs);
    lives.push(fresh);
    await fresh.open();
    await each((life) => life.ask());
    await old.close();
  }
  // From each tab by each transport, to all of both tabs.
  for (const life of lives.filter(({ number }) => number === 0 || number === 4 || number >= plan.length)) {
    await speak(life, `${life.transport} of connection ${life.number}`);
  }
  for (let round = 0; round < 2; round++) {
    await sleep(options.restMs);
    await each((life) => life.ask());
  }
  await each((life) => life.close());
  return { lives };
}

// Some builds block third-party cookies by themselves, in profiles like these; this makes all of them do it.
await withChromium(options, live, ['--test-third-party-cookie-phaseout']);
