// npm `ws` against fanfare: node node_ws.mjs ws://127.0.0.1:PORT
// Prints what was received; exits with 1 and a message where a count is wrong.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { Peer, deadline } from "./peer.mjs";

const base = process.argv[2];
const ROOM_MESSAGES = 500;
deadline(60_000);

const counts = { welcome: 0, room_msg: 0, private_msg: 0, private: 0, broadcast: 0, raw: 0, pong: 0, closed: 0, deflated_bytes: 0 };

// Two connections of bob: one offers permessage-deflate, as ws does by default, and one does not.
const alice = await Peer.connect(base, "alice", { protocols: ["fanfare.v1"] });
const bob = await Peer.connect(base, "bob");
const plainBob = await Peer.connect(base, "bob", { perMessageDeflate: false });
counts.welcome = 3;
assert.equal(alice.socket.protocol, "fanfare.v1", "the subprotocol is echoed");
for (const peer of [alice, bob]) assert.equal(peer.socket.extensions, "permessage-deflate", "compression is agreed on");
assert.equal(plainBob.socket.extensions, "", "no extension that was not offered");

await bob.join("den");
await plainBob.join("den");
// From 2 bytes to 20 KB: below and above the size from which the server compresses.
const filler = (n) => `message ${n}, fanfare 🦀 `.repeat(n % 10 === 0 ? n * 2 : 0);
for (let n = 0; n < ROOM_MESSAGES; n++) {
  alice.send({ type: "room_msg", roomId: "den", content: { n, filler: filler(n) } });
}
for (const member of [bob, plainBob]) {
  for (let n = 0; n < ROOM_MESSAGES; n++) {
    const { from, content } = await member.type("room_msg");
    assert.equal(from, "alice");
    assert.deepEqual(content, { n, filler: filler(n) }, "in order, each once");
    counts.room_msg++;
  }
}

alice.send({ type: "private_msg", toUser: "bob", content: "to both" });
for (const member of [bob, plainBob]) {
  assert.equal((await member.type("private_msg")).content, "to both");
  counts.private_msg++;
}
alice.send({ type: "private", to: plainBob.welcome.clientId, data: [1, 2, 3] });
assert.deepEqual((await plainBob.type("private")).data, [1, 2, 3]);
counts.private++;
alice.send({ type: "broadcast", data: { tick: 1 } });
for (const peer of [alice, bob, plainBob]) {
  assert.deepEqual((await peer.type("broadcast")).data, { tick: 1 });
  counts.broadcast++;
}

// A message in fragments, then a ping frame and a JSON ping.
const text = JSON.stringify({ type: "ping", id: "in pieces" });
alice.sendAsIs(text.slice(0, 5), { fin: false });
alice.sendAsIs(text.slice(5, 9), { fin: false });
alice.sendAsIs(text.slice(9), { fin: true });
assert.equal((await alice.type("pong")).id, "in pieces");
alice.socket.ping("payload");
assert.equal(String((await once(alice.socket, "pong"))[0]), "payload");
counts.pong = 2;

// Raw rooms, with the usual windows, with the smallest, and plain. Four of the messages are worth compressing.
const smallest = { threshold: 0, serverMaxWindowBits: 9, clientMaxWindowBits: 9, clientNoContextTakeover: true };
const raws = [];
for (const [room, options] of Object.entries({ usual: {}, smallest: { perMessageDeflate: smallest }, plain: { perMessageDeflate: false } })) {
  const raw = await Peer.open(`${base}/raw/${room}?echo=1`, options);
  assert.equal(raw.socket.extensions, room === "plain" ? "" : "permessage-deflate");
  for (const message of [
    "text", Buffer.from([0, 255, 128]), "z".repeat(10_000), Buffer.alloc(10_000, 7), randomBytes(20_000), "fanfare 🦀 ".repeat(20_000),
  ]) {
    raw.sendAsIs(message);
    const { data, binary } = await raw.next();
    assert.equal(binary, Buffer.isBuffer(message), "the opcode is kept");
    assert.deepEqual(data, message);
    counts.raw++;
  }
  raws.push(raw);
}

for (const peer of [alice, bob, plainBob, ...raws]) {
  await peer.close();
  assert.equal(peer.closed.code, 1000, "the close code comes back");
  counts.closed++;
}
counts.deflated_bytes = Peer.deflatedBytes;
console.log(JSON.stringify(counts));
process.exit(0);
