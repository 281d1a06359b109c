// A receiver of fanfare's webhooks. Node without packages is enough.
//
//     WEBHOOK_SECRET=… node examples/webhook_receiver.mjs 3000
//     FANFARE_WEBHOOK="url=http://127.0.0.1:3000/,secret=$WEBHOOK_SECRET" fanfare serve

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const secret = process.env.WEBHOOK_SECRET;
const oldMs = 5 * 60 * 1000; // An attempt that is older was recorded by someone.
const seen = new Map(); // Ids of events that were handled, and when: keep them as long as fanfare may send them again.

function isGenuine(signature, body) {
  const fields = Object.fromEntries(signature.split(",").map((field) => field.split("=")));
  const expected = createHmac("sha256", secret).update(`${fields.t}.`).update(body).digest();
  const given = Buffer.from(fields.v1 ?? "", "hex");
  const isFresh = Math.abs(Date.now() - Number(fields.t)) < oldMs;
  return isFresh && given.length === expected.length && timingSafeEqual(given, expected);
}

function handle(event) {
  console.log(event.event, event.roomId ?? event.userId);
}

async function receive(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (!isGenuine(request.headers["x-fanfare-signature"] ?? "", body)) return response.writeHead(401).end();
  for (const event of JSON.parse(body).events) {
    if (seen.has(event.id)) continue;
    handle(event);
    seen.set(event.id, Date.now());
  }
  for (const [id, at] of seen) if (Date.now() - at > 3_600_000) seen.delete(id);
  response.writeHead(204).end(); // Only now: what is not answered with 2xx comes again.
}

createServer(receive).listen(Number(process.argv[2]), "127.0.0.1");
