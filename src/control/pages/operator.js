// The operator's page: what the node carries, who is where, and what an operator may do about it.
import { LIMITS, byTest, clip, el, plural, shown, word } from "./base.js";
import { agree, api, ask, fill, on } from "./ask.js";
import { load } from "./load.js";

const path = encodeURIComponent;

on("rooms", async () => {
  const rooms = [];
  let after = "", pages = 0;
  do {
    const page = await api(`rooms?match=${path(byTest("match").value)}&limit=1000${after === "" ? "" : `&after=${path(after)}`}`);
    rooms.push(...page.rooms);
    after = word(page.next);
    pages++;
  } while (after !== "" && pages < LIMITS.roomPages);
  rooms.sort((a, b) => b.members - a.members);
  fill(byTest("rooms-table"), ["room", "members", "users here"],
    rooms.slice(0, LIMITS.roomsShown).map((room) => [opener(room.roomId, lookAtRoom), room.members, room.users]));
  const all = after === "" ? "" : " that were looked at; narrow the pattern to see others";
  byTest("rooms-note").textContent =
    `${Math.min(rooms.length, LIMITS.roomsShown)} of ${plural(rooms.length, "room")}${all}, the largest first`;
  return "";
});

let room = "";

async function lookAtRoom(name) {
  room = name;
  byTest("room").value = name;
  const [present, history] = await Promise.all([api(`rooms/${path(name)}/presence`), api(`rooms/${path(name)}/history?limit=20`)]);
  byTest("room-detail").hidden = false;
  byTest("room-name").textContent = name;
  byTest("room-present").textContent = `${plural(present.count, "user")}${present.approximate ? ", approximately" : ""}`;
  byTest("room-users").replaceChildren(...present.users.slice(0, LIMITS.usersShown).map((user) => {
    const item = el("li");
    item.append(opener(user, lookAtUser));
    return item;
  }));
  byTest("room-messages").replaceChildren(...(history.messages ?? []).map((message) => {
    const item = el("li"), from = el("bdi", "", clip(word(message.from)));
    item.append(from, " ", el("code", "", clip(shown(message.content), LIMITS.shownChars)));
    return item;
  }));
  byTest("room-name").focus();
}

on("room", () => lookAtRoom(byTest("room").value));

on("kick", async () => {
  const user = byTest("kick-user").value, reason = byTest("kick-reason").value;
  if (!(await agree(`Remove ${user} from ${room}? They are told, and may join again.`, "Remove"))) return "";
  const query = reason === "" ? "" : `?reason=${path(reason)}`;
  await api(`rooms/${path(room)}/users/${path(user)}${query}`, "DELETE");
  await lookAtRoom(room);
  return `${user} was removed from ${room}`;
});

on("forget", async () => {
  if (!(await agree(`Delete the history of ${room}? Nothing brings it back.`, "Delete"))) return "";
  await api(`rooms/${path(room)}/history`, "DELETE");
  await lookAtRoom(room);
  return `the history of ${room} was deleted`;
});

let user = "";

async function lookAtUser(name) {
  user = name;
  byTest("user").value = name;
  const { connections } = await api(`users/${path(name)}`);
  byTest("user-detail").hidden = false;
  byTest("user-name").textContent = `${name}: ${plural(connections.length, "connection")}`;
  fill(byTest("connections"), ["client id", "node", "since", "rooms"],
    connections.map(({ clientId, node, since, rooms }) => [clientId, node, new Date(since).toLocaleString(), rooms.join(", ")]));
  byTest("user-name").focus();
}

on("user", () => lookAtUser(byTest("user").value));

on("disconnect", async () => {
  const revoke = byTest("revoke").checked;
  const also = revoke ? " Tokens made until now are refused." : " They may connect again.";
  if (!(await agree(`End all connections of ${user}?${also}`, "End them"))) return "";
  await api(`users/${path(user)}/connections${revoke ? "?revoke=true" : ""}`, "DELETE");
  await lookAtUser(user);
  return `the connections of ${user} were ended`;
});

/** A button with a name that opens what it names. */
function opener(name, open) {
  const button = el("button", "", clip(name));
  button.type = "button";
  button.addEventListener("click", () => open(name).catch((error) => load.fail(error)));
  return button;
}

const kind = byTest("kind");
kind.addEventListener("change", () => { byTest("target-label").hidden = kind.value === "broadcast"; });

on("publish", async () => {
  const text = byTest("content").value, from = byTest("from").value, target = byTest("target").value;
  let content = text;
  try { content = JSON.parse(text); } catch { /* it is sent as text */ }
  const whom = { publish: { roomId: target }, private: { toUser: target }, broadcast: {} }[kind.value];
  const answer = await api(kind.value, "POST", { ...whom, content, ...(from === "" ? {} : { from }) });
  return answer.offset === undefined ? "published" : `published at offset ${answer.offset}`;
});

on("doctor", async () => {
  const { findings } = await ask("console/doctor");
  fill(byTest("findings"), ["check", "level", "read", "means", "mend"],
    findings.map(({ check, level, read, means, mend }) => [
      check, level === "bites" ? el("span", "bites", "bites") : level, read, means, mend === null ? "" : el("code", "", mend),
    ]));
  const bites = findings.filter(({ level }) => level === "bites").length;
  return bites === 0 ? `${plural(findings.length, "finding")}, none that bites` : `${plural(bites, "finding")} of ${findings.length} will bite`;
});

load.start();
