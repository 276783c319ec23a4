// Visitors who chat on the page of examples/chat for some time, and pictures of what two of them see near the end:
// node pictures.mjs '{"program": "/usr/bin/chromium", "page": "http://…/?without=…", "seconds": 150, "folder": "…"}'
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep, commandLine, withChromium } from './chromium.mjs';

const options = commandLine();
let arrived = 0;
let end;
let allArrived;
const everybody = new Promise((resolve) => { allArrived = resolve; });
const visitors = [
  { name: 'Ada', picture: 'page.png', shape: { viewport: { width: 1000, height: 800 } } },
  { name: 'Grace', picture: 'page-phone.png', shape: { viewport: { width: 375, height: 1000 }, colorScheme: 'dark' } },
  { name: 'Alan', shape: {} },
  { name: 'Edsger', shape: {} },
];
const lines = ['Which pod are you on?', 'I see you.', 'Still here.', 'One of us has moved.', 'And nobody lost a message.'];

async function visit({ name, picture, shape }, number, newContext) {
  const page = await (await newContext(shape)).newPage();
  // Only who is in the picture compares.
  await page.goto(picture ? options.page : new URL('/', options.page).href);
  await page.locator('#user').fill(name);
  for (const transport of ['ServerSentEvents', 'LongPolling', 'WebSockets', 'WebSockets']) {
    await page.locator(`[data-transport="${transport}"]`).click();
    await sleep(2000 + 1000 * number);
  }
  await page.locator('#summary', { hasText: '5 connected' }).waitFor();
  arrived += 1;
  if (arrived === visitors.length) {
    end = Date.now() + options.seconds * 1000;
    writeFileSync(options.arrived, '');
    allArrived();
  }
  await everybody;
  for (let said = 0; Date.now() < end - 15_000; said += 1) {
    await page.locator('#text').fill(lines[said % lines.length]);
    await page.locator('button.go').click();
    await sleep(5000 + 500 * number);
  }
  if (picture) await page.screenshot({ path: join(options.folder, picture), fullPage: shape.viewport.width > 375 });
  // Some say goodbye before the end.
  await page.locator('.close').first().click();
  await sleep(Math.max(0, end - Date.now()));
}

await withChromium(options, async (newContext) => {
  await Promise.all(visitors.map((visitor, number) => visit(visitor, number, newContext)));
  return {};
});
