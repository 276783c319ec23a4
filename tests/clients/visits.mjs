// Visits to a page of Blazor with a circuit, in Chromium behind a wire that can be cut: what blazor.mjs and blazor_web.mjs share.
// The options are those of `Visitors` in tests/blazor/visits.rs; the report is its `Visits`.
import { EventEmitter, once } from 'node:events';
import net from 'node:net';
import { within } from './attempt.mjs';
import { commandLine, withChromium } from './chromium.mjs';

const options = commandLine();

/// A wire between the browsers and the gateway that can be cut: neither side gets a farewell.
async function layWire(to) {
  const ends = new Set();
  const answered = new EventEmitter();
  const server = net.createServer((near) => {
    const far = net.connect(to.port, to.hostname);
    let leaving = null;
    near.on('data', (bytes) => {
      const text = bytes.toString('latin1');
      if (text.startsWith('POST /_blazor/disconnect')) [, leaving] = /visitor=(\w+)/.exec(text) ?? [];
    });
    // Without pipelining, what comes next on this connection is the answer.
    far.on('data', () => {
      if (leaving) answered.emit(leaving);
      leaving = null;
    });
    for (const [one, other] of [[near, far], [far, near]]) {
      ends.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        ends.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise((resolve) => server.listen(0, to.hostname, resolve));
  return {
    url: `http://${to.hostname}:${server.address().port}`,
    /// The gateway's answer to this visitor's next farewell: the page that sends it does not wait for that.
    farewell: (visitor) => within(options.tryMs, once(answered, visitor)),
    cut: () => ends.forEach((end) => end.resetAndDestroy()),
    close: () => server.close(),
  };
}

export const text = (page, id) => page.locator(`#${id}`).textContent();

/// One visitor, who counts in the circuit, and on in it as long as it is there.
export class Visit {
  constructor(number) {
    Object.assign(this, { visitor: `v${number}`, pagePod: null, circuitPod: null, kept: false, error: null });
    this.count = 0;
  }

  /// A browser profile of its own, known in the pods' logs by a cookie: the farewell bears nothing else of its own.
  async begin(newContext, wire) {
    this.context = await newContext();
    await this.context.addCookies([{ name: 'visitor', value: this.visitor, url: wire.url }]);
    this.page = await this.context.newPage();
    await this.page.goto(new URL('/counter', wire.url).href);
    await this.page.locator('#increment:enabled').waitFor();
    this.pagePod = await text(this.page, 'page-pod');
    this.circuitPod = await text(this.page, 'circuit-pod');
    await this.countUp();
    await this.countUp();
    await this.page.evaluate(() => { globalThis.before = true; });
    this.kept = true;
  }

  async countUp() {
    this.count += 1;
    await this.page.locator('#increment').click();
    await this.page.locator('#count', { hasText: new RegExp(`^${this.count}$`) }).waitFor();
  }

  /// What else there is to see of this kind of page.
  async explore() {}

  /// The wire is cut: will the same circuit come back, with its count, into the same page?
  async survive() {
    this.kept = false;
    // Newer versions of Blazor reload the page when the circuit is not found.
    const outcome = await this.page.waitForFunction(() => {
      if (!globalThis.before) return 'reloaded';
      const { classList } = document.getElementById('components-reconnect-modal');
      return ['hide', 'failed', 'rejected'].find((state) => classList.contains(`components-reconnect-${state}`));
    });
    if (await outcome.jsonValue() !== 'hide') return;
    await this.countUp();
    this.kept = await text(this.page, 'circuit-pod') === this.circuitPod;
  }

  /// Leaves the page, so that it says goodbye. A page without its circuit may not.
  async end(wire) {
    await Promise.all([this.kept ? wire.farewell(this.visitor) : null, this.page.goto('about:blank')]);
  }

  async try(step, ...given) {
    if (this.error) return;
    try {
      await this[step](...given);
    } catch (error) {
      this.error = `${step}: ${String(error.message ?? error).split('\n', 1)[0]}`;
    }
  }

  toJSON() {
    const { context, page, count, ...report } = this;
    return report;
  }
}

/// Lets visitors of this kind come and go, `atOnce` at a time, and reports their visits.
export async function receive(VisitOfKind) {
  await withChromium(options, async (newContext) => {
    const wire = await layWire(new URL(options.url));
    const visits = [];
    // Visitors who all happen to be sent to one pod prove nothing, so then more of them come.
    const enough = () => visits.length >= options.visitors
      && (new Set(visits.map(({ pagePod }) => pagePod)).size > 1 || visits.some(({ error }) => error));
    try {
      while (!enough()) {
        const group = Array.from({ length: options.atOnce }, (_, number) => new VisitOfKind(visits.length + number));
        visits.push(...group);
        const all = (step, ...given) => Promise.all(group.map((visit) => visit.try(step, ...given)));
        await all('begin', newContext, wire);
        await all('explore');
        if (options.cut) {
          wire.cut();
          await all('survive');
        }
        await all('end', wire);
        await Promise.all(group.map((visit) => visit.context.close()));
      }
    } finally {
      wire.close();
      wire.cut();
    }
    return { visits };
  });
}
