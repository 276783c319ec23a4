// Drives @microsoft/signalr in Chromium: node browser.mjs '{"program": "/usr/bin/chromium", "page": "http://…/", …}'
// The options are those of `BrowserClient` in tests/testbed/src/clients.rs, and the browser to use.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { report } from './attempt.mjs';

const { chromium } = createRequire(import.meta.url)('playwright-core');

// Nothing here may ask the outside world for anything.
const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/// Runs in the page, with the bundle that the hub serves.
function connectAll(options) {
  return globalThis.attempts(options, () =>
    new globalThis.signalR.HubConnectionBuilder()
      .configureLogging(globalThis.signalR.LogLevel.None)
      .withUrl(options.url + options.hub, { transport: globalThis.signalR.HttpTransportType[options.transport] })
      .build());
}

async function main() {
  const { program, environment, ...options } = JSON.parse(process.argv[2]);
  const browser = await chromium.launch({ executablePath: program, args: flags, env: { ...process.env, ...environment } });
  try {
    const page = await browser.newPage();
    // A page of another site cannot read the header; the browser can.
    const negotiations = [];
    page.on('response', (response) => {
      if (!new URL(response.url()).pathname.endsWith('/negotiate') || response.request().method() !== 'POST') return;
      const noted = response.json().then((body) => [body.connectionId, response.headers()['x-pod']]);
      negotiations.push(noted.catch(() => []));
    });
    await page.goto(options.page);
    await page.addScriptTag({ url: new URL('/signalr.min.js', options.page).href });
    const shared = await readFile(new URL('./attempt.mjs', import.meta.url), 'utf8');
    await page.addScriptTag({ type: 'module', content: `${shared}\nglobalThis.attempts = attempts;` });
    // Modules run later than the script tag that brings them.
    await page.waitForFunction(() => globalThis.attempts);
    const tries = await page.evaluate(connectAll, options);
    const pods = new Map(await Promise.all(negotiations));
    for (const one of tries) one.negotiatedPod = pods.get(one.connectionId) ?? null;
    process.stdout.write(report(options, tries));
  } finally {
    await browser.close();
  }
}

await main();
