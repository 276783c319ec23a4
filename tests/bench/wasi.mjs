// Runs a program for WASI, with this process's CPU time as its clock: node --single-threaded wasi.mjs PROGRAM.wasm [ARGUMENT…]
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...rest] });
const { wasi_snapshot_preview1: system } = wasi.getImportObject();
const clock_time_get = (_clock, _precision, pointer) => {
  const { user, system } = process.cpuUsage();
  new DataView(memory.buffer).setBigUint64(pointer, BigInt(user + system) * 1000n, true);
  return 0;
};
// The filter's library declares what Envoy offers. Nothing here calls it.
const env = new Proxy({}, { get: (_, name) => () => { throw new Error(`${name} needs Envoy`); } });
const imports = { wasi_snapshot_preview1: { ...system, clock_time_get }, env };
const { instance } = await WebAssembly.instantiate(await readFile(program), imports);
// Without `_initialize`, by which Envoy starts the filter: a program has `_start` only.
const { memory, _start } = instance.exports;
wasi.start({ exports: { memory, _start } });
