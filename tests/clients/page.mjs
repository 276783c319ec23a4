// The page of examples/chat on a phone and on a desk, light and dark, while its gateway restarts and finds one pod left:
// node page.mjs '{"program": "/usr/bin/chromium", "url": "http://…", "admin": "http://…"}'
// The gateway ends when it is asked to at `admin`, and the test starts it again. The report is a list of `PageVisit` in
// tests/browser.rs.
import { commandLine, withChromium } from './chromium.mjs';
import { look } from './looks.mjs';

const options = commandLine();
const screens = [375, 1280].flatMap((width) => ['light', 'dark'].map((colorScheme) => ({ width, colorScheme })));

class Visit {
  constructor({ width, colorScheme }) {
    Object.assign(this, { screen: `${width} px, ${colorScheme}`, faults: [], errors: [], moves: [], waited: false });
    this.shape = { viewport: { width, height: 800 }, colorScheme };
  }

  async begin(newContext) {
    this.page = await (await newContext(this.shape)).newPage();
    this.page.on('pageerror', (error) => this.errors.push(String(error)));
    // While the gateway is away, the browser itself reports each request that fails.
    this.page.on('console', (said) => said.type() === 'error' && !this.away && this.errors.push(said.text()));
    await this.page.goto(options.url);
    for (const transport of ['ServerSentEvents', 'LongPolling']) await this.open(transport);
    await this.connected(3);
    // Else nobody moves when one pod is left.
    for (this.connections = 3; new Set(await this.pods()).size < 2; this.connections += 1) {
      await this.open('WebSockets');
      await this.connected(this.connections + 1);
    }
    await this.page.locator('#text').fill('a'.repeat(200));
    await this.page.locator('button.go').click();
    await this.page.locator('#log > div').waitFor();
    await this.look();
  }

  open(transport) {
    return this.page.locator(`[data-transport="${transport}"]`).click();
  }

  connected(count, where = '') {
    return this.page.locator('#summary', { hasText: `${count} connected, on ${where}` }).waitFor();
  }

  pods() {
    return this.page.locator('#connections .pods').allTextContents();
  }

  async look() {
    this.faults.push(...await look(this.page));
  }

  async survive() {
    // Between tries a second passes at least, and the text is there as long.
    await this.page.locator('#connections .state', { hasText: /^Reconnecting, next try in [1-5] s$/ }).first().waitFor();
    this.waited = true;
    await this.look();
    await this.connected(this.connections, '1 pod');
    this.away = false;
    this.moves = await this.pods();
    await this.look();
  }

  toJSON() {
    const { screen, faults, errors, moves, waited } = this;
    return { screen, faults, errors, moves, waited };
  }
}

await withChromium(options, async (newContext) => {
  const visits = screens.map((screen) => new Visit(screen));
  for (const visit of visits) await visit.begin(newContext);
  for (const visit of visits) visit.away = true;
  const survivals = visits.map((visit) => visit.survive());
  await fetch(`${options.admin}/quitquitquit`, { method: 'POST' });
  await Promise.all(survivals);
  return visits;
});
