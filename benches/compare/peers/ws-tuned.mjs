// npm's ws as well as it goes: sets of members per room, one stringify and one shared buffer per message, sockets by
// user. With `deflate` behind the port it compresses as the example in its README does, but small messages as well.
import { WebSocketServer, WebSocket } from "ws";
import { randomUUID } from "node:crypto";

const port = Number(process.argv[2]);
const rooms = new Map();
const users = new Map();
const deflate = process.argv[3] === "deflate";
const text = { binary: false, fin: true, mask: false, compress: deflate };
const perMessageDeflate = deflate && {
  zlibDeflateOptions: { chunkSize: 1024, memLevel: 7, level: 3 },
  zlibInflateOptions: { chunkSize: 10 * 1024 },
  clientNoContextTakeover: true,
  serverNoContextTakeover: true,
  serverMaxWindowBits: 10,
  concurrencyLimit: 10,
  threshold: 0,
};

const wss = new WebSocketServer(
  { host: "127.0.0.1", port, perMessageDeflate, clientTracking: false, skipUTF8Validation: true, backlog: 4096 },
  () => console.log(`listening on ${port}`),
);

function add(map, key, socket) {
  let members = map.get(key);
  if (members === undefined) map.set(key, (members = new Set()));
  members.add(socket);
}

function remove(map, key, socket) {
  const members = map.get(key);
  members?.delete(socket);
  if (members?.size === 0) map.delete(key);
}

function publish(members, except, message) {
  if (members === undefined) return;
  const frame = Buffer.from(JSON.stringify(message));
  for (const member of members) {
    if (member !== except && member.readyState === WebSocket.OPEN) member.send(frame, text);
  }
}

wss.on("connection", (socket, request) => {
  if (request.url.startsWith("/echo")) {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
    socket.on("error", () => {});
    return;
  }
  const clientId = randomUUID();
  const at = request.url.indexOf("userId=");
  const userId = at < 0 ? clientId : decodeURIComponent(request.url.slice(at + 7).split("&", 1)[0]);
  const joined = new Set();
  add(users, userId, socket);
  socket.send(JSON.stringify({ type: "welcome", clientId, userId, heartbeat: 30000 }));

  socket.on("message", (data) => {
    const message = JSON.parse(data);
    switch (message.type) {
      case "room_msg": {
        const { roomId, content } = message;
        publish(rooms.get(roomId), socket, { type: "room_msg", roomId, from: userId, content, time: Date.now() });
        break;
      }
      case "private_msg": {
        const { toUser, content } = message;
        publish(users.get(toUser), null, { type: "private_msg", from: userId, content, time: Date.now() });
        break;
      }
      case "join_room": {
        const { roomId, id } = message;
        joined.add(roomId);
        add(rooms, roomId, socket);
        if (id !== undefined) socket.send(JSON.stringify({ type: "joined", id, roomId }));
        break;
      }
      case "ping":
        socket.send('{"type":"pong"}');
        break;
    }
  });

  // What a client does wrong ends its connection, and without a listener the process.
  socket.on("error", () => {});
  socket.on("close", () => {
    remove(users, userId, socket);
    for (const roomId of joined) remove(rooms, roomId, socket);
  });
});
