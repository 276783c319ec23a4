// Lets @microsoft/signalr connect where a limit refuses it, and reports what the client reports to its application:
// node refused.mjs '{"url": "http://…/chat", "transport": "WebSockets", "skipNegotiation": false}'
// With `program`, `environment` and `page` in Chromium, in that page, else in Node. The report is `Refused` in tests/limits/clients.rs.
import { createRequire } from 'node:module';
import { commandLine, withChromium } from './chromium.mjs';

const options = commandLine();

/// Runs in Node or in the page, so it uses nothing from around it.
async function connect(signalR, { url, transport, skipNegotiation }) {
  const connection = new signalR.HubConnectionBuilder()
    .configureLogging(signalR.LogLevel.None)
    .withUrl(url, { transport: signalR.HttpTransportType[transport], skipNegotiation })
    .build();
  try {
    await connection.start();
    await connection.stop();
    return { error: null };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
}

if (options.program) {
  await withChromium(options, async (newContext) => {
    const page = await (await newContext()).newPage();
    await page.goto(options.page);
    await page.addScriptTag({ url: new URL('/signalr.min.js', options.page).href });
    await page.evaluate(`globalThis.connect = ${connect}`);
    return page.evaluate((options) => globalThis.connect(globalThis.signalR, options), options);
  });
} else {
  const report = await connect(createRequire(import.meta.url)('@microsoft/signalr'), options);
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
}
