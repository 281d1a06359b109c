// A connection that is read slowly, so that its socket fills and the server has to leave values out.
import { LIMITS, word } from "./base.js";
import { address, tokens } from "./link.js";

const AGAIN_MS = 1000;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// An ordinary WebSocket cannot be left unread: the browser takes whatever comes and keeps it for the page. A
// WebSocketStream is read when it is asked for, and what nobody asks for stays in the socket.
export const canReadSlowly = typeof globalThis.WebSocketStream === "function";

// The same interface as a Link, beside `pace`: which messages may be read in a second, or "bursts".
export class SlowLink {
  #writer = null;
  #generation = 0;
  state = "offline";
  pace = Infinity;

  constructor(on) { this.on = on; }

  open(user, pasted) {
    const mine = ++this.#generation;
    this.#run(mine, user, pasted);
  }

  send(message) {
    if (this.#writer === null) return false;
    this.#writer.write(JSON.stringify(message)).catch(() => {});
    return true;
  }

  async #run(mine, user, pasted) {
    while (this.#generation === mine) {
      try { await this.#connection(mine, user, pasted); } catch { /* the next one tells */ }
      this.#writer = null;
      this.#enter("waiting");
      await wait(AGAIN_MS);
    }
  }

  async #connection(mine, user, pasted) {
    this.#enter("connecting");
    const { url, protocols } = address(user, await tokens.of(user, pasted));
    const { readable, writable } = await new WebSocketStream(url, { protocols }).opened;
    const reader = readable.getReader();
    this.#writer = writable.getWriter();
    for (let read = 1; this.#generation === mine; read++) {
      const { value, done } = await reader.read();
      if (done) return;
      this.#take(value);
      await this.#rest(read);
    }
  }

  // One long pause after many messages holds the socket up as short ones would, and timers are not finer than some ms.
  async #rest(read) {
    if (this.pace === "bursts") {
      const second = Math.floor(performance.now() / 1000) % LIMITS.burstS;
      if (second < LIMITS.burstS - 2) await wait((LIMITS.burstS - 2 - second) * 1000);
    } else if (this.pace !== Infinity && read % Math.ceil(this.pace / 20) === 0) await wait(50);
  }

  #take(data) {
    let message;
    try { message = JSON.parse(data); } catch { return; }
    if (message === null || typeof message !== "object") return;
    if (message.type === "welcome") this.#enter("online", { user: word(message.userId) });
    else this.on.message(message);
  }

  #enter(state, info = {}) {
    this.state = state;
    this.on.state(state, info);
  }
}
