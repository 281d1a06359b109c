// One user's connection, and how the page gets in.
import { LIMITS, word } from "./base.js";

const FINAL = new Set([1000, 1008, 4001, 4009]); // the server said no: only a person tries again

// How the server lets clients in: "none" asks for no token, "made" makes one for this page, "asked" wants one from elsewhere.
export const tokens = {
  how: "none",
  required: false,

  async learn() {
    try {
      const reply = await fetch("console/tokens", { cache: "no-store", signal: AbortSignal.timeout(3000) });
      if (!reply.ok) return;
      const { tokens, required } = await reply.json();
      this.how = word(tokens) || "none";
      this.required = this.how === "asked" && required === true;
    } catch { /* connecting will tell */ }
  },

  // The token to connect with: none, the one that was pasted, or a new one.
  async of(user, pasted) {
    if (this.how !== "made") return this.how === "asked" ? pasted : "";
    const reply = await fetch("console/token", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Fanfare-Console": "1" },
      body: JSON.stringify({ sub: user }),
      cache: "no-store",
      signal: AbortSignal.timeout(3000),
    });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    return word((await reply.json()).token);
  },
};

// Where a user connects, and with which subprotocols: beside this page, wherever a proxy has put it.
export function address(user, token) {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  if (token === "") url.search = user === "" ? "" : `?userId=${encodeURIComponent(user)}`;
  // As a subprotocol a token is in no log of URLs.
  return { url, protocols: token === "" ? [] : ["fanfare.v1", `bearer.${token}`] };
}

// One user's connection: offline → connecting → online → (lost) waiting → connecting … until `close`.
export class Link {
  #ws = null;
  #user = "";
  #pasted = "";
  #dialing = null;
  #welcomed = false;
  #tries = 0;
  #timers = new Set();
  state = "offline";

  // `on.state(state, info)` and `on.message(object)`; nothing else leaves a link.
  constructor(on) { this.on = on; }

  open(user, pasted) {
    // Where tokens are made, nobody is anonymous.
    this.#user = user === "" && tokens.how === "made" ? `guest-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}` : user;
    this.#pasted = pasted;
    this.#welcomed = false;
    this.#tries = 0;
    this.#dial();
  }

  close() {
    this.#drop(1000);
    this.#enter("offline", { asked: true });
  }

  get congested() { return this.#ws !== null && this.#ws.bufferedAmount > LIMITS.bufferedBytes; }

  send(message) {
    if (this.state !== "online" || this.#ws.readyState !== WebSocket.OPEN) return false;
    this.#ws.send(JSON.stringify(message));
    return true;
  }

  async #dial() {
    this.#drop();
    const dialing = this.#dialing = {};
    this.#enter("connecting", {});
    this.#after(LIMITS.welcomeMs, () => this.state === "connecting" && this.#lost(1006, ""));
    let ws;
    try {
      const token = await tokens.of(this.#user, this.#pasted);
      if (this.#dialing !== dialing) return;
      const { url, protocols } = address(this.#user, token);
      // What is no token is no name of a subprotocol either, and throws.
      ws = new WebSocket(url, protocols);
    } catch {
      if (this.#dialing === dialing) this.#lost(1006, "");
      return;
    }
    this.#ws = ws;
    ws.onmessage = (e) => this.#receive(e.data);
    ws.onclose = (e) => this.#lost(e.code, e.reason);
  }

  // A token that this page was made lasts some minutes; the next one comes before its end.
  async #refresh() {
    const ws = this.#ws;
    const token = await tokens.of(this.#user, "").catch(() => "");
    if (token !== "" && this.#ws === ws) this.send({ type: "refresh", token });
  }

  #receive(data) {
    this.heard = true;
    let message;
    try { message = JSON.parse(data); } catch { return; }
    if (message === null || typeof message !== "object") return;
    if (message.type === "expiring" && tokens.how === "made") this.#refresh();
    if (message.type === "welcome" && this.state === "connecting") {
      this.#welcomed = true;
      this.#after(LIMITS.stableMs, () => { this.#tries = 0; });
      this.#watch(Math.max(Number(message.heartbeat) || 30000, 1000));
      this.#enter("online", { client: word(message.clientId), user: word(message.userId) });
    } else this.on.message(message);
  }

  // A half-open connection never tells the browser, so silence is probed once per heartbeat.
  #watch(ms) {
    this.heard = true;
    let asked = false;
    const beat = () => {
      if (!this.heard && asked) return this.#lost(1006, "");
      asked = !this.heard;
      this.heard = false;
      if (asked) this.send({ type: "ping" });
      this.#after(ms, beat);
    };
    this.#after(ms, beat);
  }

  #lost(code, reason) {
    const news = this.state === "online" || this.#tries === 0; // failed retries are not worth a line each
    this.#drop(1000);
    if (FINAL.has(code) && !(code === 4001 && tokens.how === "made")) return this.#enter("offline", { code });
    // A page is not told why a request is refused.
    if (tokens.how === "asked" && this.#pasted !== "" && !this.#welcomed) return this.#enter("offline", { refused: true });
    // Full jitter spreads a crowd; a server that goes away has jittered its own hint already.
    let ms = Math.random() * Math.min(LIMITS.backoffCapMs, LIMITS.backoffBaseMs * 2 ** Math.min(this.#tries++, 16));
    if (code === 1001) {
      try {
        const hint = JSON.parse(reason).retry_ms;
        if (Number.isFinite(hint) && hint >= 0) ms = Math.min(hint, LIMITS.retryCapMs);
      } catch { /* no hint */ }
    }
    this.#enter("waiting", { code, at: Date.now() + ms, news });
    this.#after(ms, () => this.#dial());
  }

  #drop(code) {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#dialing = null;
    const ws = this.#ws;
    this.#ws = null;
    if (ws === null) return;
    ws.onmessage = ws.onclose = null;
    ws.close(code);
  }

  #after(ms, run) {
    const timer = setTimeout(() => { this.#timers.delete(timer); run(); }, ms);
    this.#timers.add(timer);
  }

  #enter(state, info) {
    this.state = state;
    this.on.state(state, info);
  }
}
