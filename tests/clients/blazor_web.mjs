// Visitors of a Blazor Web App in Chromium: node blazor_web.mjs '{"program": "/usr/bin/chromium", "url": "http://…", …}'
import { within } from './attempt.mjs';
import { commandLine } from './chromium.mjs';
import { receive, text, Visit } from './visits.mjs';

const { tryMs } = commandLine();

class WebVisit extends Visit {
  constructor(number) {
    super(number);
    // Frames as the hub sees them: `received` are from the browser.
    Object.assign(this, { resumed: false, resumedPod: null, returned: false, returnedPods: [], frames: { sent: 0, received: 0 } });
  }

  async begin(newContext, wire) {
    await super.begin(async () => {
      const context = await newContext();
      context.on('page', (page) => page.on('websocket', (socket) => {
        socket.on('framesent', () => { this.frames.received += 1; });
        socket.on('framereceived', () => { this.frames.sent += 1; });
      }));
      return context;
    }, wire);
  }

  async explore() {
    await this.pauseAndResume();
    await this.navigate();
  }

  /// The circuit ends, its state goes to the browser, and a new circuit starts from it. Not after a cut: Blazor 10.0 then takes
  /// the circuit for one that is paused already.
  async pauseAndResume() {
    const call = (name) => within(tryMs, this.page.evaluate((name) => globalThis.Blazor[name](), name));
    const paused = await call('pauseCircuit');
    await this.page.locator('#components-reconnect-modal.components-reconnect-paused').waitFor({ state: 'attached' });
    this.resumed = paused && await call('resumeCircuit');
    await this.countUp();
    this.resumedPod = await text(this.page, 'circuit-pod');
  }

  /// To the static page by enhanced navigation, and back: the document stays, its content changes.
  async navigate() {
    await this.page.locator('nav a', { hasText: 'About' }).click();
    await this.page.locator('#static-pod').waitFor();
    this.returnedPods.push(await text(this.page, 'static-pod'));
    await this.page.locator('nav a', { hasText: 'Counter' }).click();
    await this.page.locator('#increment:enabled').waitFor();
    this.returnedPods.push(await text(this.page, 'page-pod'), await text(this.page, 'circuit-pod'));
    this.count = 0;
    await this.countUp();
    this.returned = await this.page.evaluate(() => globalThis.before === true);
  }
}

await receive(WebVisit);
