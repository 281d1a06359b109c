// The load of this node and of the cluster, asked for once a second. Rates are differences over the server's own clock.
import { LIMITS, byTest, clip, compact, duration, el, keep, spark, word } from "./base.js";
import { Refused, ask, fill, showKey, speak } from "./ask.js";

const ms = (us) => (us === undefined || us === null ? "–" : `${us < 10_000 ? (us / 1000).toFixed(2) : Math.round(us / 1000)} ms`);

// What a tile shows: a counter's rate, or a value as it is. `of` takes the whole answer of /stats.
const TILES = [
  { name: "connections", test: "connections", of: (stats) => stats.connections },
  { name: "deliveries/s", test: "deliveries", rate: true, of: (stats) => sum(stats, "deliveries") },
  { name: "messages in/s", test: "messages-in", rate: true, of: (stats) => sum(stats, "messages_in") },
  { name: "bytes out/s", test: "bytes-out", rate: true, bytes: true, of: (stats) => sum(stats, "bytes_out") },
  { name: "latency p50", test: "latency-p50", of: (stats) => stats.delivery_latency_us?.p50, show: ms },
  { name: "latency p99", test: "latency-p99", of: (stats) => stats.delivery_latency_us?.p99, show: ms },
  { name: "turn p99", test: "turn-p99", of: (stats) => stats.turn_us?.p99, show: ms },
  { name: "memory", test: "memory", bytes: true, of: (stats) => stats.resident_bytes },
  { name: "queued for slow consumers", test: "queued", bytes: true, of: (stats) => sum(stats, "queue_bytes") },
];

const sum = (stats, name) => stats.reactors.reduce((total, reactor) => total + reactor[name], 0);

export const load = {
  tiles: [],
  before: null,
  timer: 0,

  start() {
    byTest("tiles").append(...TILES.map(({ name, test }) => {
      const tile = el("div", "tile"), value = el("b", "num", "–"), line = spark(0);
      value.dataset.test = `tile-${test}`;
      tile.append(el("span", "", name), value, line);
      this.tiles.push({ value, line, values: [] });
      return tile;
    }));
    byTest("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.poll();
    });
    this.poll();
  },

  async poll() {
    clearTimeout(this.timer);
    try {
      const stats = await ask("stats");
      byTest("key-form").hidden = byTest("key").value === "";
      byTest("tiles").classList.remove("stale");
      this.show(stats);
    } catch (error) {
      this.before = null;
      byTest("tiles").classList.add("stale");
      // It is asked again when a person gives another key.
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) return showKey(error.message);
      byTest("uptime").textContent = "· no answer";
    }
    this.timer = setTimeout(() => this.poll(), 1000);
  },

  show(stats) {
    byTest("version").textContent = `fanfare ${clip(word(stats.version), 20)}`;
    byTest("uptime").textContent = `· up ${duration(stats.uptime_ms / 1000)}`;
    const now = { ms: stats.uptime_ms, values: TILES.map(({ of }) => of(stats)), reactors: stats.reactors };
    // After a restart the counters begin anew: no rate until there are two readings again.
    const before = this.before !== null && now.ms > this.before.ms ? this.before : null;
    for (const [at, { rate, bytes, show }] of TILES.entries()) {
      const tile = this.tiles[at];
      if (rate && before === null) continue;
      const value = rate ? perSecond(now.values[at], before.values[at], now.ms - before.ms) : now.values[at];
      tile.value.textContent = show ? show(value) : value === undefined ? "–" : compact(value, bytes);
      keep(tile.values, Number(value) || 0, LIMITS.statPoints);
      tile.line.draw(tile.values, LIMITS.statPoints);
    }
    this.showReactors(now, before);
    this.showNodes(stats.cluster?.nodes ?? []);
    this.before = now;
  },

  showReactors(now, before) {
    const rows = now.reactors.slice(0, LIMITS.reactors).map((reactor, at) => {
      const rate = before === null ? "–" : compact(perSecond(reactor.deliveries, before.reactors[at]?.deliveries ?? 0, now.ms - before.ms));
      return [at, reactor.connections, rate, ms(reactor.delivery_latency_us?.p50),
        ms(reactor.delivery_latency_us?.p99), ms(reactor.turn_us?.p99), compact(reactor.history_bytes ?? 0, true), compact(reactor.queue_bytes, true)];
    });
    fill(byTest("reactors"), ["reactor", "connections", "deliveries/s", "latency p50", "latency p99", "turn p99", "histories", "queued"], rows);
  },

  showNodes(nodes) {
    byTest("nodes-box").hidden = nodes.length === 0;
    fill(byTest("nodes"), ["node", "connections", "deliveries/s", "latency p99", "turn p99", "memory"], nodes.slice(0, LIMITS.nodes).map((node) => [
      clip(word(node.node)) + (node.own ? " (this one)" : ""), node.connections, compact(node.deliveries_per_s ?? 0),
      ms(node.delivery_latency_p99_us), ms(node.turn_p99_us), compact(node.resident_bytes ?? 0, true),
    ]));
  },

  /** Tells what went wrong where no form asked. */
  fail(error) {
    if (error instanceof Refused && error.status === 401) showKey(error.message);
    speak(error.message);
  },
};

const perSecond = (now, before, elapsedMs) => Math.max(0, ((now - before) * 1000) / elapsedMs);
