// A pane: one user, the rooms they are in, and what is said there.
import { LIMITS, bytesOf, clip, el, plural, shown, word } from "./base.js";
import { Link, tokens } from "./link.js";
import { Stream, Ticker, named } from "./stream.js";

const LOBBY = "lobby";
export const MARKET = "market";
const CLOSES = {
  1000: "closed by the server", 1001: "the server is going away", 1006: "connection lost", 1008: "refused by policy", 1009: "message too big",
  1011: "server error", 1013: "server is full", 4001: "token expired", 4008: "too slow to keep up", 4009: "replaced by a newer connection of this user",
};
const reason = (reply) => clip(word(reply.message) || word(reply.code) || "refused", 200);

// One user: a link, the rooms they want to be in, and everything shown of both.
export class Pane {
  #pending = new Map();
  #next = 1;
  #countdown = 0;
  #shown = "";
  ui = {}; // the pane's elements by their data-test name, without the side
  rooms = new Map(); // room id → { joined, users, count, chip, timer, asked }; survives reconnects
  selected = null;
  self = "";

  // `changed` is called whenever what the pane can do may have changed.
  constructor(side, user, peer, changed) {
    this.changed = changed;
    const root = document.querySelector("template").content.cloneNode(true).firstElementChild;
    for (const e of root.querySelectorAll("[data-test]")) {
      this.ui[e.dataset.test] = e;
      e.dataset.test = `${side}-${e.dataset.test}`;
    }
    root.dataset.test = `${side}-pane`;
    this.root = root;
    this.side = side;
    document.querySelector("main").append(root);
    this.feedBoard = new Ticker(this.ui.ticks, this.ui.quotes);
    this.lines = new Stream(this.ui.stream, this.ui.latest);
    this.link = new Link({ state: (s, info) => this.#state(s, info), message: (m) => this.#message(m) });
    this.ui.user.value = user;
    this.ui.to.value = peer;
    this.#listen();
    this.#name(user);
    this.want(LOBBY);
  }

  get online() { return this.link.state === "online"; }

  connect() {
    const user = this.ui.user.value;
    if (bytesOf(user) > LIMITS.userBytes) return this.#fail(`a user id has at most ${LIMITS.userBytes} bytes`);
    // A lone surrogate has no UTF-8 form and no URL would carry it.
    try { encodeURIComponent(user); } catch { return this.#fail("this user id is not valid Unicode"); }
    const pasted = this.ui.token.value.trim();
    if (tokens.required && pasted === "") {
      this.#fail("this server asks for a token: paste one above (fanfare token makes them)");
      return this.ui.token.focus();
    }
    this.link.open(user, pasted);
  }

  // Where the server asks for a token that it does not make, that names the user.
  askForToken() {
    this.ui.token.hidden = false;
    this.ui.user.hidden = true;
  }

  // Joins now if online, and again after every reconnect.
  want(id) {
    if (!this.rooms.has(id)) {
      if (this.rooms.size >= LIMITS.rooms) return this.#fail(`this page joins at most ${LIMITS.rooms} rooms`);
      this.rooms.set(id, { joined: false, users: [], count: 0, chip: this.#chip(id), timer: 0, asked: 0 });
      if (this.online) this.#join(id);
    }
    this.selected ??= id;
    this.#render();
  }

  // Publishes prices without an id: ten acks a second would tell nobody anything.
  publish(prices) {
    if (this.link.congested) return;
    const content = { prices };
    if (this.link.send({ type: "room_msg", roomId: MARKET, content })) this.feedBoard.take(content);
  }

  #listen() {
    const on = (act, run) => {
      const e = this.root.querySelector(`[data-act=${act}]`);
      e.addEventListener(e.tagName === "FORM" ? "submit" : "click", (event) => { event.preventDefault(); run(); });
    };
    on("connect", () => (this.link.state === "offline" ? this.connect() : this.link.close()));
    on("join", () => {
      const id = this.ui.room.value.trim();
      if (id === "") return this.ui.room.focus();
      this.ui.room.value = "";
      this.want(id);
      if (this.rooms.has(id)) this.#select(id);
    });
    on("room", () => {
      const roomId = this.selected;
      if (roomId !== null) this.#say("room", roomId, (content) => ({ type: "room_msg", roomId, content }));
    });
    on("private", () => {
      const toUser = this.ui.to.value;
      if (toUser === "") return this.ui.to.focus();
      this.#say("private", toUser, (content) => ({ type: "private_msg", toUser, content }));
    });
    on("broadcast", () => this.#say("broadcast", "", (content) => ({ type: "broadcast", content })));
    // Enter in the recipient field means: privately.
    this.ui.to.addEventListener("keydown", (e) => {
      if (e.key !== "Enter" || e.isComposing) return;
      e.preventDefault();
      this.ui.private.click();
    });
    this.ui.user.addEventListener("input", () => this.#name(this.ui.user.value));
  }

  // The server echoes nothing to its sender (but a private message to oneself), so the page shows it here.
  #say(kind, where, command) {
    const text = this.ui.message.value;
    this.ui.message.focus();
    if (text.trim() === "" || !this.online) return;
    this.ui.message.value = "";
    const mark = el("span", "mark");
    const toSelf = kind === "private" && where === this.self;
    if (!toSelf) this.lines.add(kind, { from: this.self, where, text, own: true, mark });
    this.#request(command(text), (reply) => {
      const bad = reply.type === "error";
      if (bad && toSelf) this.#fail(`not sent: ${reason(reply)}`);
      mark.textContent = bad ? `not sent: ${reason(reply)}` : "✓";
      mark.title = bad ? "" : "accepted by the server";
      mark.classList.toggle("bad", bad);
    });
  }

  #request(command, done) {
    if (this.#pending.size >= LIMITS.pending) this.#pending.delete(this.#pending.keys().next().value);
    const id = this.#next++;
    if (this.link.send({ ...command, id })) this.#pending.set(id, done);
  }

  #join(id) {
    this.#request({ type: "join_room", roomId: id }, (reply) => {
      const room = this.rooms.get(id);
      if (room === undefined) return;
      if (reply.type === "error") {
        this.#fail(`could not join #${clip(id)}: ${reason(reply)}`);
        return this.#forget(id);
      }
      room.joined = true;
      this.#askPresence(id);
      this.#render();
    });
  }

  #leave(id) {
    if (this.online) {
      this.#request({ type: "leave_room", roomId: id }, (reply) => reply.type === "error" && this.#fail(reason(reply)));
      this.#note(`you left #${clip(id)}`);
    }
    this.#forget(id);
    this.ui.room.focus();
  }

  #forget(id) {
    const room = this.rooms.get(id);
    if (room === undefined) return;
    clearTimeout(room.timer);
    room.chip.remove();
    this.rooms.delete(id);
    if (this.selected === id) this.selected = this.rooms.keys().next().value ?? null;
    this.#render();
  }

  #select(id) {
    this.selected = id;
    this.#askPresence(id);
    this.#render();
  }

  // However many notices come, a room is asked at most once per LIMITS.presenceMs.
  #askPresence(id) {
    const room = this.rooms.get(id);
    if (room === undefined || !room.joined || room.timer !== 0) return;
    room.timer = setTimeout(() => {
      room.timer = 0;
      room.asked = Date.now();
      this.#request({ type: "presence", roomId: id }, (reply) => {
        if (reply.type !== "presence") return;
        room.users = Array.isArray(reply.users) ? reply.users.filter((u) => typeof u === "string").sort() : [];
        room.count = Number(reply.count) || 0;
        this.#render();
      });
    }, Math.max(50, room.asked + LIMITS.presenceMs - Date.now()));
  }

  #state(state, info) {
    this.ui.state.textContent = { offline: "offline", connecting: "connecting", online: "online", waiting: "reconnecting" }[state];
    this.ui.state.dataset.state = state;
    this.ui.user.readOnly = state !== "offline";
    if (tokens.how === "asked") {
      this.ui.token.hidden = state === "online";
      this.ui.user.hidden = state !== "online";
    }
    this.ui.connect.textContent = state === "offline" ? "Connect" : "Disconnect";
    clearInterval(this.#countdown);
    if (state === "online") {
      this.self = info.user;
      if (tokens.how === "asked") this.ui.user.value = info.user;
      this.#name(info.user);
      this.#note("connected");
      for (const id of this.rooms.keys()) this.#join(id);
    } else if (state !== "connecting") {
      const why = `${CLOSES[info.code] ?? "connection closed"} (${info.code})`;
      if (info.asked) this.#note("disconnected");
      else if (info.refused) this.#fail("not let in: is the token good? (fanfare token --inspect tells)");
      else if (state === "offline") this.#fail(why);
      else if (info.news) this.#fail(`${why}, reconnecting`);
    }
    if (state !== "online") {
      this.#pending.clear();
      for (const room of this.rooms.values()) {
        clearTimeout(room.timer);
        Object.assign(room, { joined: false, users: [], count: 0, timer: 0 });
      }
    }
    const { client } = this.ui;
    client.textContent = state === "online" ? clip(info.client, 8) : "";
    client.title = state === "online" ? `client id ${clip(info.client)}` : "";
    if (state === "waiting") {
      const tick = () => { client.textContent = `in ${Math.max(0, Math.ceil((info.at - Date.now()) / 1000))} s`; };
      tick();
      this.#countdown = setInterval(tick, 500);
    }
    this.#render();
  }

  #message(m) {
    const roomId = word(m.roomId), room = "#" + clip(roomId);
    const line = { from: word(m.from), where: roomId, text: shown("content" in m ? m.content : m.data), at: Number.isFinite(m.time) ? m.time : Date.now() };
    switch (m.type) {
      case "room_msg":
        if (roomId !== MARKET || !this.feedBoard.take(m.content)) this.lines.add("room", line);
        return;
      case "private_msg":
      case "private":
        return this.lines.add("private", line);
      case "broadcast":
        return this.lines.add("broadcast", line);
      case "system":
        this.#note(`${clip(line.text, LIMITS.shownChars)} · ${room}`);
        return this.#askPresence(roomId);
      case "left":
        this.#fail(`removed from ${room}: ${clip(word(m.reason))}`);
        return this.#forget(roomId);
      case "gap":
        return this.#fail(`messages in ${room} were lost`);
    }
    const done = this.#pending.get(m.id);
    this.#pending.delete(m.id);
    if (done) done(m);
    else if (m.type === "error") this.#fail(reason(m));
  }

  #note(text) { this.lines.add("notice", { text }); }
  #fail(text) { this.lines.add("error", { text }); }

  #name(name) {
    named(this.root, name);
    this.ui.avatar.textContent = [...name][0] ?? "?";
    this.root.setAttribute("aria-label", `Pane of ${clip(name) || "an anonymous user"}`);
  }

  #chip(id) {
    const chip = el("span", "chip"), pick = el("button", "", "#" + clip(id)), leave = el("button", "", "×");
    pick.dataset.test = `${this.side}-select`;
    leave.dataset.test = `${this.side}-leave`;
    pick.dataset.room = leave.dataset.room = id;
    pick.type = leave.type = "button";
    leave.setAttribute("aria-label", `Leave room ${clip(id)}`);
    pick.addEventListener("click", () => this.#select(id));
    leave.addEventListener("click", () => this.#leave(id));
    chip.append(pick, leave);
    this.ui.rooms.insertBefore(chip, this.ui.rooms.lastElementChild);
    return chip;
  }

  #render() {
    for (const [id, room] of this.rooms) {
      room.chip.classList.toggle("on", id === this.selected);
      room.chip.classList.toggle("wait", !room.joined);
      room.chip.firstElementChild.setAttribute("aria-pressed", id === this.selected);
    }
    const name = this.selected === null ? null : "#" + clip(this.selected);
    this.ui.message.placeholder = name === null ? "Join a room to write in it" : `Message ${name}`;
    this.ui.send.textContent = name === null ? "Send" : `Send to ${name}`;
    this.ui.send.disabled = !this.online || name === null;
    this.ui.private.disabled = this.ui.broadcast.disabled = !this.online;
    this.ui.ticker.hidden = !this.rooms.get(MARKET)?.joined;
    this.#renderPeople(this.rooms.get(this.selected), name);
    this.changed();
  }

  // Rebuilt only when something changed, so that keyboard focus stays where it is.
  #renderPeople(room, name) {
    const key = room === undefined ? "" : JSON.stringify([name, room.joined, room.count, room.users.slice(0, LIMITS.people)]);
    if (key === this.#shown) return;
    this.#shown = key;
    const parts = [];
    if (!room?.joined) parts.push(el("span", "soft", name === null ? "in no room" : `not in ${name} yet`));
    else {
      parts.push(el("span", "soft", `${plural(room.count, "user")} in ${name}`));
      for (const user of room.users.slice(0, LIMITS.people)) parts.push(this.#person(user));
      if (room.count > LIMITS.people) parts.push(el("span", "soft", `and ${room.count - LIMITS.people} more`));
    }
    this.ui.presence.replaceChildren(...parts);
  }

  #person(user) {
    const e = named(el("button", "ink"), user);
    e.type = "button";
    e.dataset.test = `${this.side}-person`;
    e.append(el("bdi", "", clip(user)));
    if (user === this.self) e.append(" (you)");
    e.title = "write to this user privately";
    e.addEventListener("click", () => { this.ui.to.value = user; this.ui.message.focus(); });
    return e;
  }
}
