// Runs a k6 script without k6: node k6.mjs '{"script": "…/signalr.js", "users": 20, "environment": {"URL": "http://…"}}'
// Each user runs the script's default function once, all at the same time. The report has the values of each metric.
// What stands in for k6's modules is in `k6/`: as much of them as the script needs.
import { register } from 'node:module';
import { pathToFileURL } from 'node:url';
import { metrics } from './k6/metrics.mjs';

const options = JSON.parse(process.argv[2]);
const folder = new URL('./k6/', import.meta.url).href;
const hooks = `
  const folder = ${JSON.stringify(folder)};
  export const resolve = (name, context, next) => name.startsWith('k6/')
    ? { url: folder + name.slice(3) + '.mjs', shortCircuit: true } : next(name, context);
  // k6 takes every script for a module.
  export const load = (url, context, next) => url === ${JSON.stringify(pathToFileURL(options.script).href)}
    ? next(url, { ...context, format: 'module' }) : next(url, context);
`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

globalThis.__ENV = options.environment;
// Standard output is for the report.
console.log = console.error;
const script = await import(pathToFileURL(options.script));
await Promise.all(Array.from({ length: options.users }, () => script.default()));
process.stdout.write(JSON.stringify({ thresholds: Object.keys(script.options.thresholds), metrics }));
process.exit(0);
