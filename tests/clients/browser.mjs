// Drives @microsoft/signalr in Chromium: node browser.mjs '{"program": "/usr/bin/chromium", "page": "http://…/", …}'
// The options are those of `BrowserClient` in tests/testbed/src/clients.rs, and the browser to use.
import { readFile } from 'node:fs/promises';
import { report } from './attempt.mjs';
import { commandLine, watchNegotiations, withChromium } from './chromium.mjs';

/// Runs in the page, with the bundle that the hub serves.
function connectAll(options) {
  return globalThis.attempts(options, () =>
    new globalThis.signalR.HubConnectionBuilder()
      .configureLogging(globalThis.signalR.LogLevel.None)
      .withUrl(options.url + options.hub, {
        transport: globalThis.signalR.HttpTransportType[options.transport],
        ...(options.accessToken && { accessTokenFactory: () => options.accessToken }),
      })
      .build());
}

const options = commandLine();

await withChromium(options, async (newContext) => {
  // A test may have made the gateway's certificate.
  const page = await (await newContext({ ignoreHTTPSErrors: true })).newPage();
  const negotiations = watchNegotiations(page);
  await page.goto(options.page);
  await page.addScriptTag({ url: new URL('/signalr.min.js', options.page).href });
  const shared = await readFile(new URL('./attempt.mjs', import.meta.url), 'utf8');
  await page.addScriptTag({ type: 'module', content: `${shared}\nglobalThis.attempts = attempts;` });
  // Modules run later than the script tag that brings them.
  await page.waitForFunction(() => globalThis.attempts);
  const tries = await page.evaluate(connectAll, options);
  for (const one of tries) one.negotiatedPod = await negotiations.podOf(one.connectionId);
  return report(options, tries);
});
