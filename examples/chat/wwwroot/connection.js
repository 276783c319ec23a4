// One connection of the page and its card. It never gives up, and shows which pod it is on.

/** `?hub=notifications` picks another hub. */
export const hub = new URLSearchParams(location.search).get("hub") ?? "chat";

export const names = { WebSockets: "WebSockets", ServerSentEvents: "Server-sent events", LongPolling: "Long polling" };

export const element = (id) => document.getElementById(id);

export function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Relative to the page, so that it works under a path prefix; or to another gateway. */
export function connectionTo(transport, gateway = document.baseURI) {
  return new signalR.HubConnectionBuilder()
    .withUrl(new URL(hub, gateway).href, { transport: signalR.HttpTransportType[transport] })
    .configureLogging(signalR.LogLevel.None) // the page shows errors
    .build();
}

/** A pod's name in its colour, which is the same in each tab. Names that differ in the last character are far from each other. */
export function podLabel(pod) {
  let hash = 0;
  for (const character of pod) hash = (hash * 31 + character.codePointAt(0)) % 1_000_003;
  return make("span", { className: "pod", textContent: pod, style: `--hue: ${(hash * 137.508) % 360}` });
}

export const message = (error) => String(error?.message ?? error ?? "");

const second = () => new Promise((resolve) => setTimeout(resolve, 1000));

export class Connection {
  /** `page.changed(connection)` and `page.said(connection, user, text, pod)` are called for what happens. */
  constructor(transport, page) {
    this.transport = transport;
    this.page = page;
    this.answers = 0;
    this.hub = connectionTo(transport);
    this.hub.on("message", (user, text, pod) => page.said(this, user, text, pod));
    this.hub.onclose((error) => this.ended?.(error));

    this.card = element("card").content.firstElementChild.cloneNode(true);
    const part = (name) => this.card.querySelector(`.${name}`);
    this.parts = Object.fromEntries(["pods", "state", "answers", "id", "error"].map((name) => [name, part(name)]));
    this.radio = this.card.querySelector("input");
    part("transport").textContent = names[transport];
    part("close").setAttribute("aria-label", `Close this ${names[transport]} connection`);
    part("close").addEventListener("click", () => this.close());
    element("connections").append(this.card);
  }

  get live() { return this.hub.state === signalR.HubConnectionState.Connected; }

  /** From the first try until the visitor closes it. */
  async stayConnected() {
    while (!this.closed) {
      const end = new Promise((resolve) => { this.ended = resolve; });
      const verb = this.pod ? "Reconnecting" : "Connecting";
      try {
        this.show(verb, "wait");
        await this.hub.start();
        await this.ask();
        this.error = await end;
      } catch (error) {
        this.error = error;
        await this.hub.stop();
      }
      await this.pause(this.pod ? "Reconnecting" : "Not connected");
    }
  }

  /** One to five seconds, at random: pages that lost the same pod do not come back at the same moment. */
  async pause(state) {
    for (let seconds = 1 + Math.floor(Math.random() * 5); seconds > 0 && !this.closed; seconds -= 1) {
      this.show(`${state}, next try in ${seconds} s`, "wait");
      await second();
    }
  }

  /** By server-sent events and long polling each question is a request of its own, and must reach the same pod. */
  async ask() {
    const { pod, connectionId } = await this.hub.invoke("WhoAmI");
    if (connectionId !== this.id) {
      this.parts.pods.replaceChildren(...(this.pod && this.pod !== pod ? [podLabel(this.pod), " → "] : []), podLabel(pod));
    }
    this.pod = pod;
    this.id = this.parts.id.textContent = connectionId;
    this.parts.answers.textContent = ++this.answers;
    this.error = null;
    this.show("Connected", "good");
  }

  async askAgain() {
    try {
      await this.ask();
    } catch (error) {
      this.error = error;
      if (this.live) this.show("Connected", "good");
    }
  }

  show(state, is) {
    this.parts.state.textContent = state;
    this.parts.state.dataset.is = is;
    this.parts.error.textContent = message(this.error);
    this.parts.error.hidden = !this.error;
    this.page.changed(this);
  }

  async close() {
    this.closed = true;
    this.card.remove();
    this.page.changed(this);
    await this.hub.stop();
  }
}
