// The ladder: a hundred instruments in a keyed room, for one who keeps up and for one who reads slowly.
import { LIMITS, byTest, clip, compact, el, keep, word } from "./base.js";
import { Link, tokens } from "./link.js";
import { SlowLink, canReadSlowly } from "./slow.js";

const ROOM = new URLSearchParams(location.search).get("room") || "ladder";
const NAMES = ["HORN", "TUBA", "OBOE", "LYRE", "DRUM", "FIFE", "HARP", "GONG", "BELL", "VIOL"];
const ITEMS = NAMES.flatMap((name) => Array.from({ length: 10 }, (_, i) => name + i));
const TICK_MS = 50, SLOW_INTERVAL_MS = 2000;

const number = (n) => Math.round(n).toLocaleString("en");
const ms = (n) => (n === undefined ? "–" : n >= 10_000 ? `${(n / 1000).toFixed(1)} s` : `${Math.round(n)} ms`);

function trouble(text) {
  const line = byTest("trouble");
  line.hidden = text === "";
  line.textContent = text;
}

// What the server says where the room cannot be used as it is.
function refused(reply) {
  if (reply.code === "bad_options") {
    return trouble(`The room ${clip(ROOM)} is not keyed here. Start the server with --room 'match=${clip(ROOM)},keyed=true', or name another room: /ladder?room=NAME`);
  }
  trouble(clip(word(reply.message) || word(reply.code) || "refused", 200));
}

// One subscription of the room, and what is shown of it.
class Board {
  #items = new Map(); // item → { seq, price, cell, value }
  #dirty = new Set();
  #frame = 0;
  #ages = [];
  #counts = { received: 0, unsent: 0 };
  #waiting = null; // what comes in front of `joined`
  #position = null;
  #tuning = false;
  #joined = false;
  #wanted;

  constructor(side, title, what, interval, LinkOf) {
    const root = document.querySelector("template").content.cloneNode(true).firstElementChild;
    this.ui = {};
    for (const e of root.querySelectorAll("[data-test]")) {
      this.ui[e.dataset.test] = e;
      e.dataset.test = `${side}-${e.dataset.test}`;
    }
    this.root = root;
    this.side = side;
    root.dataset.test = `${side}-pane`;
    const heading = root.querySelector("h2");
    heading.textContent = title;
    heading.id = `${side}-title`;
    root.setAttribute("aria-labelledby", heading.id);
    this.ui.what.textContent = what;
    this.#wanted = interval;
    for (const item of ITEMS) this.#row(item);
    document.querySelector("main").append(root);
    this.link = new LinkOf({ state: (state, info) => this.#state(state, info), message: (m) => this.#message(m) });
  }

  // One change is asked for at a time; the newest wish follows the answer.
  tune(interval) {
    this.#wanted = interval;
    if (!this.#joined || this.#tuning) return;
    this.#tuning = this.link.send({ type: "tune", roomId: ROOM, interval, id: interval });
  }

  #row(item) {
    const cell = el("li"), value = el("b", "", "–");
    cell.append(el("span", "", item), value);
    this.ui.rows.append(cell);
    this.#items.set(item, { seq: 0, price: NaN, shown: NaN, cell, value });
  }

  #state(state, info) {
    this.ui.state.textContent = state === "waiting" ? `back soon${info.code ? ` (${info.code})` : ""}` : state;
    if (state !== "online") return void (this.#joined = this.#tuning = false);
    this.#waiting = [];
    const since = this.#position ?? undefined;
    this.link.send({ type: "join_room", roomId: ROOM, mode: "latest", interval: this.#wanted, since, id: "join" });
  }

  #message(message) {
    const { type } = message;
    if (type === "room_msg" && message.roomId === ROOM) {
      if (this.#waiting !== null) keep(this.#waiting, message, LIMITS.ladderWaiting);
      else this.#apply(message);
    } else if (type === "joined") this.#enter(message);
    else if (type === "ack") this.#tuned(message);
    else if (type === "stale" || type === "live") this.root.classList.toggle("stale", type === "stale");
    else if (type === "error") {
      this.#tuning = false;
      refused(message);
    }
  }

  #enter({ epoch, offset, recovered, interval }) {
    trouble("");
    if (recovered !== true) for (const item of this.#items.values()) item.seq = 0;
    this.#position = { epoch: word(epoch), offset: 0 };
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const message of waiting) this.#apply(message, true);
    this.#position.offset = Number(offset) || 0;
    this.#joined = true;
    this.root.dataset.joined = "true";
    if (interval !== this.#wanted) this.tune(this.#wanted);
  }

  #tuned({ id, offset }) {
    this.#tuning = false;
    if (this.#position !== null) this.#position.offset = Number(offset) || this.#position.offset;
    this.root.dataset.interval = id;
    if (id !== this.#wanted) this.tune(this.#wanted);
  }

  // The age of a value that was there before says nothing of how fast it came.
  #apply({ item, seq, offset, content, removed }, isOld = false) {
    const known = this.#items.get(item);
    this.#position.offset = offset;
    if (known === undefined) return;
    this.#counts.received++;
    if (known.seq > 0) this.#counts.unsent += Math.max(0, seq - known.seq - 1);
    known.seq = seq;
    known.price = removed === true ? NaN : Number(content?.p);
    const age = Date.now() - Number(content?.t);
    if (!isOld && Number.isFinite(age)) keep(this.#ages, Math.max(0, age), LIMITS.ages);
    this.#dirty.add(known);
    this.#frame ||= requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    for (const item of this.#dirty) {
      item.cell.className = item.price > item.shown ? "up" : item.price < item.shown ? "down" : "";
      item.value.textContent = Number.isFinite(item.price) ? item.price.toFixed(2) : "–";
      item.shown = item.price;
    }
    this.#dirty.clear();
  }

  // Once a second.
  measure() {
    const { received, unsent } = this.#counts;
    const ages = this.#ages.sort((a, b) => a - b), at = (part) => ages[Math.floor(part * (ages.length - 1))];
    this.ui.received.textContent = compact(received);
    this.ui.unsent.textContent = received + unsent === 0 ? "–" : `${Math.round((100 * unsent) / (received + unsent))} %`;
    this.ui["age-half"].textContent = ms(at(0.5));
    this.ui["age-most"].textContent = ms(at(0.99));
    this.ui.offset.textContent = this.#position === null ? "–" : number(this.#position.offset);
    this.#ages = [];
    this.#counts = { received: 0, unsent: 0 };
  }
}

// A random walk of each instrument, published by a connection of its own.
const feed = {
  button: byTest("feed"),
  prices: new Map(ITEMS.map((item) => [item, 50 + Math.random() * 200])),
  rate: 1000,
  timer: 0,
  owed: 0,
  pending: 0,
  stored: 0,

  start() {
    this.link = new Link({ state: () => { this.pending = 0; }, message: (m) => this.hear(m) });
  },

  hear(message) {
    if (message.type !== "ack" && message.type !== "error") return;
    this.pending = Math.max(0, this.pending - 1);
    if (message.type === "ack") this.stored += Number(message.id) || 0;
    else refused(message);
  },

  toggle() {
    if (this.timer !== 0) clearInterval(this.timer);
    this.timer = this.timer === 0 ? setInterval(() => this.step(), TICK_MS) : 0;
    this.button.setAttribute("aria-pressed", this.timer !== 0);
    this.button.textContent = this.timer !== 0 ? "Stop the feed" : "Start the feed";
  },

  // Some commands at a time are under way: where the server is slower than the slider says, so is the feed.
  step() {
    if (this.link.state !== "online" || this.pending >= LIMITS.feedPending) return;
    this.owed = Math.min(this.owed + (this.rate * TICK_MS) / 1000, LIMITS.feedUpdates);
    const updates = [];
    for (; this.owed >= 1; this.owed--) {
      const item = ITEMS[Math.floor(Math.random() * ITEMS.length)];
      const price = Math.max(1, this.prices.get(item) * (1 + (Math.random() - 0.5) * 0.004));
      this.prices.set(item, price);
      updates.push({ item, content: { p: Number(price.toFixed(2)), t: Date.now() } });
    }
    if (this.link.send({ type: "room_msgs", roomId: ROOM, updates, id: updates.length })) this.pending++;
  },

  measure() {
    byTest("published").textContent = `${number(this.stored)} stored /s`;
    this.stored = 0;
  },
};

const FAST = "The newest value of each instrument, in rounds. The slider says how often, while the subscription runs.";
const SLOW = canReadSlowly
  ? "The same subscription without an interval, but the page reads its socket slowly. What is in the socket grows old; behind it the server keeps nothing, and sends the newest values next."
  : "This browser reads every socket at once, so this pane cannot stall one: it only asks for a long interval. Chromium shows more.";
const fast = new Board("fast", "Keeps up", FAST, 100, Link);
const slow = new Board("slow", "Reads slowly", SLOW, canReadSlowly ? 0 : SLOW_INTERVAL_MS, canReadSlowly ? SlowLink : Link);

function knobs() {
  const interval = Object.assign(el("input"), { type: "range", min: "0", max: "2000", step: "50", value: "100", id: "interval" });
  const shown = el("output", "num", "100 ms");
  const label = Object.assign(el("label", "", "interval"), { htmlFor: "interval" });
  interval.dataset.test = "interval";
  shown.dataset.test = "interval-shown";
  shown.htmlFor = "interval";
  interval.addEventListener("input", () => {
    shown.textContent = `${interval.value} ms`;
    fast.tune(Number(interval.value));
  });
  fast.root.querySelector(".knob").append(label, interval, shown);
  const pace = Object.assign(el("select"), { id: "pace", disabled: !canReadSlowly });
  pace.dataset.test = "pace";
  for (const [value, text] of [["500", "500 messages a second"], ["100", "100 messages a second"], ["bursts", `nothing for ${LIMITS.burstS - 2} s, then all`], ["all", "at once"]]) {
    pace.append(Object.assign(el("option", "", text), { value }));
  }
  const apply = () => { slow.link.pace = pace.value === "all" ? Infinity : Number(pace.value) || pace.value; };
  pace.addEventListener("change", apply);
  apply();
  slow.root.querySelector(".knob").append(Object.assign(el("label", "", "reads"), { htmlFor: "pace" }), pace);
}

function open(pasted) {
  for (const [link, user] of [[fast.link, "ladder-fast"], [slow.link, "ladder-slow"], [feed.link, "ladder-feed"]]) link.open(user, pasted);
}

byTest("room").textContent = clip(ROOM);
byTest("rate").addEventListener("input", (e) => {
  feed.rate = Number(e.target.value);
  byTest("rate-shown").textContent = number(feed.rate);
});
byTest("key-form").addEventListener("submit", (e) => {
  e.preventDefault();
  open(byTest("token").value.trim());
});
feed.button.addEventListener("click", () => feed.toggle());
feed.start();
knobs();
setInterval(() => [fast, slow, feed].forEach((part) => part.measure()), 1000);
tokens.learn().then(() => {
  byTest("key-form").hidden = tokens.how !== "asked";
  if (!tokens.required) open("");
});
