// Publishes an order book that changes all the time into a keyed room, one item for each price level:
//   npm install ws && node publisher.mjs ws://127.0.0.1:8080 book.ACME
// The room has to be keyed: fanfare serve --room 'match=book.*,keyed=true'
import { crc32 } from "node:zlib";
import WebSocket from "ws";

const [server = "ws://127.0.0.1:8080", room = "book.ACME"] = process.argv.slice(2);
const DEPTH = 40, CHANGES = 20, PAUSE_MS = 20, RETRY_MS = 250;
const book = { bid: new Map(), ask: new Map() }; // price in ticks → size
let middle = 10_000;

const random = (below) => Math.floor(Math.random() * below);
const item = (side, price) => `${side} ${price}`;

/** What a reader has to come to: all levels, best first. It is the last update of each command. */
function check() {
  const bids = [...book.bid].sort(([a], [b]) => b - a), asks = [...book.ask].sort(([a], [b]) => a - b);
  return { item: "check", content: crc32([...bids, ...asks].map(([price, size]) => `${price}:${size}`).join(",")) };
}

/** Levels come, change and go around a middle that moves. */
function step() {
  const updates = new Map();
  middle += random(3) - 1;
  for (let i = 0; i < CHANGES; i++) {
    const side = random(2) === 0 ? "bid" : "ask";
    const price = side === "bid" ? middle - 1 - random(DEPTH) : middle + 1 + random(DEPTH);
    if (random(3) === 0) book[side].delete(price);
    else book[side].set(price, 1 + random(500));
    updates.set(item(side, price), { item: item(side, price), ...value(side, price) });
  }
  // What the middle has passed was traded; what it left behind was cancelled.
  for (const [side, sign] of [["bid", 1], ["ask", -1]]) {
    for (const price of book[side].keys()) {
      const distance = (middle - price) * sign;
      if (distance > 0 && distance <= 2 * DEPTH) continue;
      book[side].delete(price);
      updates.set(item(side, price), { item: item(side, price), remove: true });
    }
  }
  return [...updates.values(), check()];
}

function value(side, price) {
  const size = book[side].get(price);
  return size === undefined ? { remove: true } : { content: size };
}

/** All levels. What is not named goes behind them, so the check is not among them: it comes with the next command. */
function whole() {
  return ["bid", "ask"].flatMap((side) => [...book[side]].map(([price, size]) => ({ item: item(side, price), content: size })));
}

function connect() {
  const socket = new WebSocket(`${server}/?userId=feed`);
  const publish = (updates, replace) => socket.send(JSON.stringify({ type: "room_msgs", roomId: room, updates, replace, id: 1 }));
  // Nobody knows what became of the last command: the book as it is takes the place of whatever is there.
  socket.on("open", () => publish(whole(), true));
  socket.on("message", (data) => {
    const message = JSON.parse(data.toString());
    // The next command goes when the last one is stored: a server that is slow slows its feed down.
    if (message.type === "ack") setTimeout(() => socket.readyState === WebSocket.OPEN && publish(step(), false), PAUSE_MS);
    if (message.type === "error") throw new Error(`${message.code}: ${message.message}`);
  });
  socket.on("error", () => {});
  socket.on("close", () => setTimeout(connect, RETRY_MS * (1 + Math.random())));
}

connect();
