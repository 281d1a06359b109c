// What a pane shows of messages: the list, and the price board.
import { LIMITS, clip, el, keep, spark, svg } from "./base.js";

const CALM = matchMedia("(prefers-reduced-motion: reduce)");
const icon = (name) => svg("svg", { "aria-hidden": "true" }, svg("use", { href: "#" + name }));

// The same user has the same hue in every pane and tab (FNV-1a; the seed keeps the first few names apart).
function hueOf(name) {
  let h = 416349;
  for (const c of name) h = Math.imul(h ^ c.codePointAt(0), 0x01000193) >>> 0;
  return (h >>> 7) % 360;
}

export function named(e, name) {
  e.style.setProperty("--h", hueOf(name));
  return e;
}

// The message list of a pane: painted once per animation frame, at most LIMITS.lines long.
export class Stream {
  #queue = [];
  #last = null;
  #stuck = true;
  #frame = 0;

  constructor(root, latest) {
    this.root = root;
    this.latest = latest;
    root.addEventListener("scroll", () => {
      this.#stuck = root.scrollHeight - root.scrollTop - root.clientHeight < 30;
      if (this.#stuck) latest.hidden = true;
    });
    new ResizeObserver(() => this.#stuck && this.#toEnd()).observe(root);
    latest.addEventListener("click", () => { this.#toEnd(); root.focus(); });
  }

  // `kind` is room, private, broadcast, notice or error; only the first three have a `from`.
  add(kind, entry) {
    const line = { kind, at: Date.now(), count: 1, ...entry };
    // A notice mixes names with our words: a name must not turn the rest of the line around.
    if (line.from === undefined) line.text = line.text.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
    const last = this.#queue.at(-1) ?? this.#last;
    if (last && line.from === undefined && last.kind === kind && last.text === line.text) {
      last.count++;
      if (last.root) last.root.textContent = `${last.text} ×${last.count}`;
      return last;
    }
    keep(this.#queue, line, LIMITS.lines);
    this.#frame ||= requestAnimationFrame(() => this.#paint());
    return line;
  }

  #paint() {
    this.#frame = 0;
    const batch = document.createDocumentFragment();
    for (const line of this.#queue) {
      batch.append(line.from === undefined ? this.#aside(line) : this.#said(line));
      this.#last = line;
    }
    this.#queue = [];
    this.root.append(batch);
    while (this.root.childElementCount > LIMITS.lines) this.root.firstElementChild.remove();
    if (this.#stuck) this.#toEnd();
    else this.latest.hidden = false;
  }

  #aside(line) {
    line.root = el("div", `line ${line.kind}`, line.count > 1 ? `${line.text} ×${line.count}` : line.text);
    return line.root;
  }

  #said(line) {
    const last = this.#last;
    const same = last && last.kind === line.kind && last.from === line.from && last.where === line.where && last.own === line.own;
    const root = named(el("div", `line ${line.kind}`), line.from);
    this.root.classList.remove("fresh");
    root.classList.toggle("own", Boolean(line.own));
    const tag = el("span", "tag");
    if (line.kind === "private") tag.append(icon("lock"), line.own ? "to " : "private", line.own ? el("bdi", "", clip(line.where)) : "");
    else if (line.kind === "broadcast") tag.append(icon("horn"), "everyone");
    else tag.textContent = "#" + clip(line.where);
    const meta = el("div", "meta");
    meta.append(el("bdi", "ink", clip(line.from) || "?"), tag, el("time", "num", new Date(line.at).toLocaleTimeString([], { hourCycle: "h23" })));
    if (same && line.at - last.at < 60000) {
      root.classList.add("cont");
      meta.className = "sr";
    }
    const said = el("div", "said");
    said.append(el("div", "text", clip(line.text, LIMITS.shownChars)), line.mark ?? "");
    root.append(meta, said);
    return root;
  }

  #toEnd() {
    this.#stuck = true;
    this.latest.hidden = true;
    this.root.scrollTop = this.root.scrollHeight;
  }
}

// The price board of a pane; it shows what arrived, whoever sent it.
export class Ticker {
  #quotes = new Map();
  #ticks = 0;
  #since = performance.now();
  #drawn = 0;
  #frame = 0;

  constructor(rate, quotes) { Object.assign(this, { rate, quotes }); }

  // True if `content` is a price message; at most LIMITS.symbols symbols are ever shown.
  take(content) {
    const prices = content?.prices;
    if (prices === null || typeof prices !== "object") return false;
    for (const [symbol, price] of Object.entries(prices).slice(0, LIMITS.symbols)) {
      if (!Number.isFinite(price)) continue;
      const quote = this.#quotes.get(symbol) ?? this.#list(symbol);
      if (quote) keep(quote.values, price, LIMITS.quotePoints);
    }
    this.#ticks++;
    this.#frame ||= requestAnimationFrame((now) => this.#draw(now));
    return true;
  }

  measure() {
    const now = performance.now(), rate = (this.#ticks * 1000) / (now - this.#since);
    this.rate.textContent = `${Math.round(rate)} ticks/s`;
    this.#ticks = 0;
    this.#since = now;
  }

  #list(symbol) {
    if (this.#quotes.size >= LIMITS.symbols) return undefined;
    const quote = { values: [], root: el("div", "quote"), price: el("strong", "num"), change: el("small", "num"), line: spark() };
    const head = el("div");
    head.append(el("b", "", clip(symbol, 8)), quote.change);
    quote.root.append(head, quote.price, quote.line);
    this.quotes.append(quote.root);
    this.#quotes.set(symbol, quote);
    return quote;
  }

  #draw(now) {
    this.#frame = 0;
    if (CALM.matches && now - this.#drawn < 1000) return; // reduced motion: once a second is enough
    this.#drawn = now;
    for (const { values, root, price, change, line } of this.#quotes.values()) {
      if (values.length === 0) continue;
      const last = values.at(-1), percent = (last / values[0] - 1) * 100;
      root.className = last < values[0] ? "quote down" : "quote up";
      price.textContent = clip(last.toFixed(2), 10);
      change.textContent = `${last < values[0] ? "▼" : "▲"} ${Math.abs(percent).toFixed(1)}%`;
      line.draw(values, LIMITS.quotePoints);
    }
  }
}
