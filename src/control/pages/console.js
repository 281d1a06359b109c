// The console page: two panes, a price feed, and the node's counters.
import { LIMITS, byTest, clip, compact, duration, el, keep, spark } from "./base.js";
import { tokens } from "./link.js";
import { MARKET, Pane } from "./pane.js";

// A random walk of made-up symbols, published by the first pane that is in the market room.
const feed = {
  button: byTest("feed-toggle"),
  prices: { HORN: 148.2, TUBA: 63.75, OBOE: 312.4, LYRE: 21.18, DRUM: 87.9, FIFE: 9.64 },
  timer: 0,

  toggle() {
    if (this.timer !== 0) return this.stop();
    for (const pane of panes) if (pane.online) pane.want(MARKET);
    this.timer = setInterval(() => this.step(), 100);
    this.refresh();
  },

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.refresh();
  },

  step() {
    if (!panes.some((pane) => pane.rooms.has(MARKET))) return this.stop();
    for (const symbol in this.prices) {
      const noise = Math.random() + Math.random() + Math.random() - 1.5;
      this.prices[symbol] = Math.max(0.5, Number((this.prices[symbol] * (1 + noise * 0.004)).toFixed(3)));
    }
    panes.find((pane) => pane.online && pane.rooms.get(MARKET)?.joined)?.publish(this.prices);
  },

  refresh() {
    const on = this.timer !== 0;
    this.button.setAttribute("aria-pressed", on);
    this.button.lastElementChild.textContent = on ? "Stop price feed" : "Start price feed";
    this.button.disabled = !on && !panes.some((pane) => pane.online);
  },
};

// The node's counters, polled once a second; rates are differences over the server's own clock.
const METRICS = ["connections", "messages_in", "messages_out", "bytes_in", "bytes_out"];
const node = {
  table: document.getElementById("stats"),
  form: byTest("key-form"),
  rows: [],
  before: null,

  listen() {
    this.form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.poll();
    });
  },

  async poll() {
    try {
      const key = byTest("key").value.trim();
      const headers = key === "" ? {} : { Authorization: `Bearer ${key}` };
      const reply = await fetch("stats", { headers, cache: "no-store", signal: AbortSignal.timeout(3000) });
      const refused = reply.status === 401 || reply.status === 403;
      if (refused && key !== "") byTest("key-why").textContent = reply.status === 403 ? "This key may not read." : "This is no key of this server.";
      this.form.hidden = !refused;
      // Asked again when a person gives another key.
      if (refused) return;
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      this.show(await reply.json());
      this.table.classList.remove("stale");
    } catch {
      this.before = null;
      this.table.classList.add("stale");
      byTest("stat-uptime").textContent = "· no answer";
    }
    setTimeout(() => this.poll(), 1000);
  },

  show(stats) {
    const reactors = stats.reactors.slice(0, LIMITS.reactors);
    if (this.rows.length !== reactors.length + 1) this.build(reactors.length);
    const total = Object.fromEntries(METRICS.map((m) => [m, stats.reactors.reduce((sum, r) => sum + r[m], 0)]));
    total.connections = stats.connections;
    const now = { ms: stats.uptime_ms, counts: [total, ...reactors] };
    // After a restart the counters begin anew: no rate until there are two readings again.
    const seconds = this.before === null ? 0 : (now.ms - this.before.ms) / 1000;
    for (const [i, cells] of this.rows.entries()) {
      for (const [k, metric] of METRICS.entries()) {
        const count = now.counts[i][metric], { value, line, values } = cells[k];
        if (metric !== "connections" && !(seconds > 0)) continue;
        const shownValue = metric === "connections" ? count : Math.max(0, (count - this.before.counts[i][metric]) / seconds);
        keep(values, shownValue, LIMITS.statPoints);
        value.textContent = compact(shownValue, metric.startsWith("bytes"));
        line.draw(values, LIMITS.statPoints);
      }
    }
    this.before = now;
    byTest("stat-version").textContent = `fanfare ${clip(String(stats.version), 20)}`;
    byTest("stat-uptime").textContent = `· up ${duration(stats.uptime_ms / 1000)}`;
  },

  build(count) {
    this.before = null;
    this.table.tHead.rows[1]?.remove();
    this.table.tBodies[0].replaceChildren();
    this.rows = [];
    for (let i = -1; i < count; i++) {
      const row = (i < 0 ? this.table.tHead : this.table.tBodies[0]).insertRow();
      const label = el("th", "", i < 0 ? "all" : `reactor ${i}`);
      label.scope = "row";
      row.append(label);
      this.rows.push(METRICS.map((metric) => {
        const value = el("b", "num", "–"), line = spark(0), box = el("div");
        value.dataset.test = (i < 0 ? "stat-" : `stat-reactor-${i}-`) + metric.replace("_", "-");
        box.append(value, line);
        row.insertCell().append(box);
        return { value, line, values: [] };
      }));
    }
  },
};

const panes = [];
const left = new URLSearchParams(location.search).get("user") ?? "alice";
const right = left === "bob" ? "alice" : "bob";
const changed = () => feed.refresh();
panes.push(new Pane("left", left, right, changed), new Pane("right", right, left, changed));
tokens.learn().then(() => {
  for (const pane of panes) {
    if (tokens.how === "asked") pane.askForToken();
    if (!tokens.required) pane.connect();
  }
});
feed.button.addEventListener("click", () => feed.toggle());
setInterval(() => panes.forEach((pane) => pane.feedBoard.measure()), 1000);
node.listen();
node.poll();
// A newcomer types at once; on a touch screen this would only raise the keyboard.
if (matchMedia("(min-width: 861px) and (hover: hover)").matches) panes[0].ui.message.focus({ preventScroll: true });
