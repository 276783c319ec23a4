// The comparison on the page of examples/chat, by each transport in turn, on a phone:
// node comparison.mjs '{"program": "/usr/bin/chromium", "page": "http://…/?without=…"}'
// The report is `Comparison` in tests/browser.rs.
import { commandLine, withChromium } from './chromium.mjs';
import { look } from './looks.mjs';

const options = commandLine();

await withChromium(options, async (newContext) => {
  const page = await (await newContext({ viewport: { width: 375, height: 800 } })).newPage();
  await page.goto(options.page);
  const outcomes = {};
  for (const transport of ['WebSockets', 'ServerSentEvents', 'LongPolling']) {
    // The first begins by itself.
    if (transport !== 'WebSockets') await page.locator('#by').selectOption(transport);
    await page.locator('#outcome', { hasText: 'with the filter' }).waitFor();
    const good = (row) => page.locator(`#${row} .good`).count();
    outcomes[transport] = [await good('with'), await good('without')];
  }
  const faults = await look(page);
  await page.goto(new URL('/', options.page).href);
  await page.locator('#summary', { hasText: 'connected, on' }).waitFor();
  return { outcomes, faults, hiddenElsewhere: await page.locator('#comparison').isHidden() };
});
