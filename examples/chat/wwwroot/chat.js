// The page: its connections, and the chat by the one that is selected.
import { offerComparison } from "./compare.js";
import { Connection, element, make, podLabel } from "./connection.js";

let connections = [];
let chosen = null;

const page = {
  changed() {
    connections = connections.filter((connection) => !connection.closed);
    // The chat moves on to a connection that works.
    const stays = connections.includes(chosen);
    if (!stays || !chosen.live) choose(connections.find((connection) => connection.live) ?? (stays ? chosen : connections[0]));
    summarise();
  },
  said(connection, user, text, pod) {
    if (connection !== chosen) return;
    const log = element("log");
    log.append(make("div", {}, podLabel(pod), make("span", {}, make("strong", { textContent: `${user} ` }), text)));
    while (log.children.length > 200) log.firstChild.remove();
    log.scrollTop = log.scrollHeight;
  },
};

function choose(connection) {
  chosen = connection ?? null;
  if (chosen) chosen.radio.checked = true;
}

function summarise() {
  const live = connections.filter((connection) => connection.live && connection.pod);
  const pods = new Set(live.map((connection) => connection.pod)).size;
  element("summary").textContent = live.length ? `${live.length} connected, on ${pods} ${pods === 1 ? "pod" : "pods"}` : "None connected";
  const full = connections.filter((connection) => connection.transport !== "WebSockets").length >= 4;
  element("full").hidden = !full;
  for (const button of document.querySelectorAll("[data-transport]")) button.disabled = full && button.dataset.transport !== "WebSockets";
}

function open(transport) {
  const connection = new Connection(transport, page);
  connection.radio.addEventListener("change", () => choose(connection));
  connections.push(connection);
  connection.stayConnected();
}

/** An address that the page was given, such as `?metrics=http://localhost:9902/stats/prometheus`. */
function given(name) {
  const url = URL.parse(new URLSearchParams(location.search).get(name));
  return ["http:", "https:"].includes(url?.protocol) ? url.href : null;
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem("user", element("user").value);
  if (!chosen?.live) {
    element("summary").textContent = "No connection to send by: open one";
    return;
  }
  try {
    await chosen.hub.invoke("Send", element("user").value, element("text").value);
    element("text").value = "";
  } catch (error) {
    chosen.error = error;
    chosen.show("Connected", "good");
  }
});
element("user").value = sessionStorage.getItem("user") ?? `guest-${Math.floor(Math.random() * 900) + 100}`;

for (const name of ["metrics", "dashboard"].filter(given)) {
  Object.assign(element(name), { href: given(name), hidden: false });
  element("links").hidden = false;
}

if (window.signalR) {
  for (const button of document.querySelectorAll("[data-transport]")) button.addEventListener("click", () => open(button.dataset.transport));
  setInterval(() => connections.forEach((connection) => connection.live && connection.askAgain()), 3000);
  open("WebSockets");
  if (given("without")) offerComparison(given("without"));
} else {
  element("summary").textContent = "signalr.min.js is missing: see the sample's README";
}
