// What a JavaScript client does here, the same in Node and in a page: connect, ask the hub who it is, report.
// It imports nothing, so that a page can be given it as text.

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/// What `promise` gives, or an error when that takes longer.
export function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// By MessagePack the hub of the tests sends objects as JSON text, with the names as .NET has them.
function object(answer) {
  const entries = Object.entries(typeof answer === 'string' ? JSON.parse(answer) : answer);
  return Object.fromEntries(entries.map(([key, value]) => [key[0].toLowerCase() + key.slice(1), value]));
}

function expect(what, expected, found) {
  if (found !== expected) throw new Error(`${what} is ${found} and not ${expected}`);
}

/// How many numbers a stream carries.
const numbers = 50;

/// The hub asks back, and numbers come down in a stream and go up again in another, each at once.
async function converse(connection) {
  expect('the client result', 'the answer to life', await connection.invoke('AskBack', 'life'));
  let up;
  const sum = connection.invoke('Sum', { subscribe: (observer) => { up = observer; } });
  // It fails with the stream down, which is what the report is to say.
  sum.catch(() => {});
  let expected = 0;
  await new Promise((complete, error) => connection.stream('Count', numbers).subscribe({
    next(number) {
      if (number !== expected) error(new Error(`the next number is ${number} and not ${expected}`));
      expected++;
      up.next(number);
    },
    complete,
    error,
  }));
  up.complete();
  expect('how many numbers came', numbers, expected);
  expect('the sum', (numbers * (numbers - 1)) / 2, await sum);
}

/// The test lets nobody through before it is ready.
async function pass(gate) {
  if (gate) await fetch(gate);
}

async function prove(connection, options, seen) {
  connection.on('answer', (question) => `the answer to ${question}`);
  await connection.start();
  seen.connectionId = connection.connectionId;
  const me = object(await connection.invoke('WhoAmI'));
  seen.answeredPod = me.pod;
  seen.transport = me.transport;
  const text = `hello ${Math.random()} äöü`;
  expect('the echo', text, await connection.invoke('Echo', text));
  for (let round = 0; round < (options.rounds ?? 0); round++) {
    await pass(options.gate);
    await converse(connection);
    const later = object(await connection.invoke('WhoAmI'));
    expect('the pod later', me.pod, later.pod);
    expect('the id later', me.connectionId, later.connectionId);
  }
  if (!options.skipNegotiation && me.connectionId !== connection.connectionId) {
    throw new Error(`the client is ${connection.connectionId}, to the hub it is ${me.connectionId}`);
  }
}

async function attempt(options, build) {
  const seen = { ok: false, negotiatedPod: null, answeredPod: null, connectionId: null, transport: null, error: null, cut: null };
  const began = performance.now();
  const connection = build(options, seen);
  let stopping = false;
  const cut = new Promise((resolve) => connection.onclose((error) => {
    if (!stopping) seen.cut = error ? String(error.message ?? error) : 'closed by the other side';
    resolve();
  }));
  try {
    await within(options.tryMs, prove(connection, options, seen));
    seen.ok = true;
  } catch (error) {
    seen.error = String(error.message ?? error);
  }
  seen.milliseconds = Math.round(performance.now() - began);
  if (seen.ok && options.holdMs) {
    options.onHold?.();
    await Promise.race([sleep(options.holdMs), cut, ...(options.released ? [options.released] : [])]);
    // A connection that the other side has ended may not know it yet: this finds out.
    if (options.released) await Promise.race([cut, within(options.tryMs, connection.invoke('WhoAmI')).catch(() => {})]);
  }
  if (seen.ok) await pass(options.gate);
  stopping = true;
  await within(options.tryMs, connection.stop()).catch(() => {});
  return seen;
}

/// Makes all the connections; `build(options, seen)` makes one and may note things in `seen`.
export async function attempts(options, build) {
  const tries = [];
  let next = 0;
  const worker = async () => {
    while (next < options.connects) {
      const number = next++;
      tries[number] = await attempt(options, build);
    }
  };
  await Promise.all(Array.from({ length: options.parallel }, worker));
  return tries;
}

/// The report on all tries. One whose answer came from another pod than the negotiated one has failed.
export function report(options, tries) {
  for (const one of tries) {
    if (one.ok && !options.skipNegotiation && one.negotiatedPod !== one.answeredPod) {
      one.ok = false;
      one.error = `${one.negotiatedPod} negotiated, ${one.answeredPod} answered`;
    }
  }
  return { tried: tries.length, connected: tries.filter((one) => one.ok).length, tries };
}
