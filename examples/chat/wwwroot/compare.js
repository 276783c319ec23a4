// The same connections through this gateway and through one without the filter.
import { connectionTo, element, make, message, names } from "./connection.js";

const TRIES = 10;

/** Without the filter a connection may wait for a pod that does not know it: it gets so long. */
const PATIENCE_MS = 5000;

export function offerComparison(gateway) {
  for (const [transport, name] of Object.entries(names)) element("by").append(make("option", { value: transport, textContent: name }));
  const compare = async () => {
    element("compare").disabled = true;
    element("outcome").textContent = "";
    const transport = element("by").value;
    const [good, other] = await Promise.all([series("with", transport), series("without", transport, gateway)]);
    element("outcome").textContent = `${good.connected} of ${TRIES} with the filter, ${other.connected} without.${other.error ? ` The first error without: ${other.error}` : ""}`;
    element("compare").disabled = false;
  };
  element("compare").addEventListener("click", compare);
  element("by").addEventListener("change", compare);
  element("other").href = gateway;
  element("comparison").hidden = false;
  compare();
}

async function series(row, transport, gateway) {
  const outcome = { connected: 0, error: null };
  element(row).replaceChildren();
  for (let tries = 0; tries < TRIES; tries += 1) {
    const error = await attempt(transport, gateway);
    outcome.connected += error ? 0 : 1;
    outcome.error ??= error;
    element(row).append(make("span", error ? { className: "mark bad", textContent: "✗" } : { className: "mark good", textContent: "✓" }));
  }
  return outcome;
}

/** Why it failed, or nothing. */
async function attempt(transport, gateway) {
  const connection = connectionTo(transport, gateway);
  const answer = connection.start().then(() => connection.invoke("WhoAmI"));
  let timer;
  const late = (_, reject) => { timer = setTimeout(() => reject(new Error("no answer")), PATIENCE_MS); };
  try {
    await (gateway ? Promise.race([answer, new Promise(late)]) : answer);
    return null;
  } catch (error) {
    return message(error);
  } finally {
    clearTimeout(timer);
    connection.stop();
  }
}
