// Keeps an order book that a keyed room has, through lost connections, and proves it right:
//   npm install ws && node book.mjs ws://127.0.0.1:8080 book.ACME [INTERVAL_MS]
// Ends with 1 where its book is not the publisher's.
import { crc32 } from "node:zlib";
import WebSocket from "ws";

const [server = "ws://127.0.0.1:8080", room = "book.ACME", interval = "100"] = process.argv.slice(2);
const RETRY_MS = 100, RETRY_MS_MAX = 5_000;
const book = { bid: new Map(), ask: new Map() }; // price in ticks → size
const seqs = new Map(); // item → its last seq
const counts = { checks: 0, messages: 0, unsent: 0, recovered: 0, anew: 0 };
let position = null; // what the book is as of; null: nothing
let tries = 0;

function forget() {
  book.bid.clear();
  book.ask.clear();
  seqs.clear();
}

function apply({ item, seq, offset, content, removed }) {
  counts.messages++;
  // How many updates of this item were left out for newer ones.
  if (seqs.has(item)) counts.unsent += seq - seqs.get(item) - 1;
  seqs.set(item, seq);
  position.offset = offset;
  if (item === "check") return removed ? undefined : verify(content, offset);
  const [side, price] = item.split(" ");
  if (removed) {
    book[side].delete(Number(price));
    seqs.delete(item);
  } else book[side].set(Number(price), content);
}

/** The publisher sends this last in each command, and updates come by offset: whoever has got it has all in front of it. */
function verify(expected, offset) {
  const bids = [...book.bid].sort(([a], [b]) => b - a), asks = [...book.ask].sort(([a], [b]) => a - b);
  const found = crc32([...bids, ...asks].map(([price, size]) => `${price}:${size}`).join(","));
  if (found !== expected) {
    console.log(`WRONG at offset ${offset}: ${found} is not ${expected}`);
    process.exit(1);
  }
  counts.checks++;
  const best = `${bids[0]?.[0] ?? "-"} | ${asks[0]?.[0] ?? "-"}`;
  console.log(`right at offset ${offset}: ${best}, ${bids.length + asks.length} levels ${JSON.stringify(counts)}`);
}

function connect() {
  const socket = new WebSocket(`${server}/?userId=book`);
  // What comes in front of `joined` goes into the book with `joined`: only that says whether the old book is to be kept.
  let waiting = [];
  socket.on("open", () => {
    const since = position ?? undefined;
    socket.send(JSON.stringify({ type: "join_room", roomId: room, mode: "latest", interval: Number(interval), since, id: 1 }));
  });
  socket.on("message", (data) => {
    const message = JSON.parse(data.toString());
    if (message.type === "room_msg") {
      if (waiting !== null) waiting.push(message);
      else apply(message);
    } else if (message.type === "joined") {
      const { epoch, offset, recovered } = message;
      if (recovered !== true) forget();
      position = { epoch, offset };
      waiting.forEach(apply);
      waiting = null;
      position = { epoch, offset };
      tries = 0;
      if (recovered === true) counts.recovered++;
      else counts.anew++;
    } else if (message.type === "error") {
      console.log(`${message.code}: ${message.message}`);
      process.exit(1);
    }
  });
  socket.on("error", () => {});
  // A later try waits longer, at random, so that a crowd does not come back at once.
  socket.on("close", () => setTimeout(connect, Math.random() * Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** tries++)));
}

connect();
