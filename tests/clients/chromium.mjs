// Chromium for the drivers: started as the testbed says, and watched.
import { createRequire } from 'node:module';

const { chromium } = createRequire(import.meta.url)('playwright-core');

// Nothing here may ask the outside world for anything.
const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/// The options on the command line: `program` and `environment` are Chromium's, `tryMs` bounds each wait in it, the
/// rest is the driver's own.
export function commandLine() {
  return JSON.parse(process.argv[2]);
}

/// Runs `drive` with a function that makes a fresh profile in Chromium, and writes what it returns as the report.
export async function withChromium({ program, environment, tryMs }, drive, more = []) {
  const env = { ...process.env, ...environment };
  const browser = await chromium.launch({ executablePath: program, args: [...flags, ...more], env, timeout: tryMs });
  const newContext = async (options) => {
    const context = await browser.newContext(options);
    // Else Playwright gives up every wait after 30 seconds.
    context.setDefaultTimeout(tryMs);
    return context;
  };
  try {
    process.stdout.write(`${JSON.stringify(await drive(newContext))}\n`);
  } finally {
    await browser.close();
  }
}

/// Notes which pod negotiated which connection. A page of another site cannot read the header; the browser can.
export function watchNegotiations(page) {
  const pods = new Map();
  const noted = [];
  page.on('response', (response) => {
    if (!new URL(response.url()).pathname.endsWith('/negotiate') || response.request().method() !== 'POST') return;
    const note = response.json().then((body) => pods.set(body.connectionId, response.headers()['x-pod']));
    noted.push(note.catch(() => {}));
  });
  return { podOf: async (id) => (await Promise.all(noted), pods.get(id) ?? null) };
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
