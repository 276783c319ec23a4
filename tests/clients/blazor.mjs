// Visitors of a Blazor Server page in Chromium: node blazor.mjs '{"program": "/usr/bin/chromium", "url": "http://…", …}'
// The options are those of `Visitors` in tests/blazor.rs; the report is its `Visits`.
import net from 'node:net';
import { within } from './attempt.mjs';
import { sleep, told, withChromium } from './chromium.mjs';

const options = told();

/// A wire between the browser and the gateway that can be cut: neither side gets a farewell.
async function layWire(to) {
  const ends = new Set();
  let farewells = 0;
  const server = net.createServer((near) => {
    const far = net.connect(to.port, to.hostname);
    near.on('data', (bytes) => { farewells += bytes.includes('POST /_blazor/disconnect') ? 1 : 0; });
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
    farewells: () => farewells,
    cut: () => ends.forEach((end) => end.resetAndDestroy()),
    close: () => server.close(),
  };
}

const text = (page, id) => page.locator(`#${id}`).textContent();

async function countUp(page, expected) {
  await page.locator('#increment').click();
  await page.locator('#count', { hasText: new RegExp(`^${expected}$`) }).waitFor();
}

class Visit {
  constructor(browser, number) {
    Object.assign(this, { browser, visitor: `v${number}`, pagePod: null, circuitPod: null, kept: false, error: null });
  }

  /// A browser profile of its own, known in the pods' logs by a cookie: the farewell bears nothing else of its own.
  async begin(url) {
    const context = await this.browser.newContext();
    await context.addCookies([{ name: 'visitor', value: this.visitor, url }]);
    this.page = await context.newPage();
    await this.page.goto(new URL('/counter', url).href);
    await this.page.locator('#increment:enabled').waitFor();
    this.pagePod = await text(this.page, 'page-pod');
    this.circuitPod = await text(this.page, 'circuit-pod');
    await countUp(this.page, 1);
    await countUp(this.page, 2);
    await this.page.evaluate(() => { globalThis.before = true; });
  }

  /// The wire is cut: will the same circuit come back, with its count, into the same page?
  async survive() {
    // Newer versions of Blazor reload the page when the circuit is not found.
    const outcome = await this.page.waitForFunction(() => {
      const { classList } = document.getElementById('components-reconnect-modal');
      const states = ['hide', 'failed', 'rejected'].filter((state) => classList.contains(`components-reconnect-${state}`));
      return globalThis.before ? states[0] : 'reloaded';
    });
    if (await outcome.jsonValue() !== 'hide') return;
    await countUp(this.page, 3);
    this.kept = await text(this.page, 'circuit-pod') === this.circuitPod;
  }

  /// Leaves the page, so that it says goodbye.
  async end() {
    await this.page.goto('about:blank');
  }

  async try(step) {
    if (this.error) return;
    try {
      await within(options.tryMs, step());
    } catch (error) {
      this.error = String(error.message ?? error).split('\n', 1)[0];
    }
  }

  toJSON() {
    const { visitor, pagePod, circuitPod, kept, error } = this;
    return { visitor, pagePod, circuitPod, kept, error };
  }
}

await withChromium(options, async (browser) => {
  const wire = await layWire(new URL(options.url));
  const visits = Array.from({ length: options.visitors }, (_, number) => new Visit(browser, number));
  const all = (act) => Promise.all(visits.map((visit) => visit.try(() => act(visit))));
  try {
    await all((visit) => visit.begin(wire.url));
    wire.cut();
    await all((visit) => visit.survive());
    await all((visit) => visit.end());
    // Sent while the page goes, and lost if the browser goes, too; nothing in the browser tells when they have arrived.
    for (let left = 50; left > 0 && wire.farewells() < visits.length; left--) await sleep(100);
    await sleep(300);
  } finally {
    wire.close();
    wire.cut();
  }
  return { visits };
});
