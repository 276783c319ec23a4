// Uses the page of examples/chat as people do, in two tabs: node chat.mjs '{"program": "/usr/bin/chromium", "url": "http://…"}'
// The report is `ChatPages` in tests/browser.rs.
import { commandLine, withChromium } from './chromium.mjs';

const options = commandLine();

const texts = (page, selector) => page.locator(selector).allTextContents();

async function openTab(context, hub) {
  const page = await context.newPage();
  await page.goto(`${options.url}/?hub=${hub}`);
  for (const transport of ['ServerSentEvents', 'LongPolling']) await page.locator(`[data-transport="${transport}"]`).click();
  await page.locator('#summary', { hasText: '3 connected' }).waitFor();
  return page;
}

async function say(page, text) {
  await page.locator('#text').fill(text);
  await page.locator('button.go').click();
}

await withChromium(options, async (newContext) => {
  const context = await newContext();
  const tabs = [await openTab(context, 'chat'), await openTab(context, 'notifications')];
  // The first row's radio button is chosen at the start; each tab then speaks and listens by another transport.
  await tabs[1].locator('#connections input[type=radio]').nth(2).check();
  await say(tabs[0], 'hello from the first');
  await say(tabs[1], 'hello from the second');
  for (const tab of tabs) {
    for (const text of ['hello from the first', 'hello from the second']) await tab.locator('#log > div', { hasText: text }).waitFor();
  }
  // Every connection asks its hub who it is, every three seconds.
  for (const tab of tabs) {
    await tab.waitForFunction(() => [...document.querySelectorAll('#connections .answers')].every((answers) => answers.textContent >= 2));
  }
  return {
    states: (await Promise.all(tabs.map((tab) => texts(tab, '#connections .state')))).flat(),
    errors: (await Promise.all(tabs.map((tab) => texts(tab, '#connections .error')))).flat().filter((text) => text !== ''),
    logs: await Promise.all(tabs.map(async (tab) => (await texts(tab, '#log > div')).length)),
  };
});
