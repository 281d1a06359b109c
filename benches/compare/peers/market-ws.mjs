// Rooms of last values on npm's ws. With `corked` behind the port, what a round sends to a subscriber is one write; without it
// each value is sent by itself, as one writes it first.
import { WebSocketServer, WebSocket } from "ws";
import { marketRooms, userOf, welcome } from "./market-rooms.mjs";

const port = Number(process.argv[2]);
const corked = process.argv[3] === "corked";
const text = { binary: false, fin: true, mask: false, compress: false };

const command = marketRooms(
  (socket, message) => {
    if (socket.readyState === WebSocket.OPEN) socket.send(message, text);
  },
  (socket, sends) => {
    if (corked) socket._socket.cork();
    sends();
    if (corked) socket._socket.uncork();
  },
);

const wss = new WebSocketServer(
  { host: "127.0.0.1", port, perMessageDeflate: false, clientTracking: false, skipUTF8Validation: true, backlog: 4096 },
  () => console.log(`listening on ${port}`),
);

wss.on("connection", (socket, request) => {
  const userId = userOf(request.url);
  const leaves = [];
  socket.send(welcome(userId));
  socket.on("message", (data) => {
    const leave = command(socket, userId, JSON.parse(data));
    if (leave !== undefined) leaves.push(leave);
  });
  // What a client does wrong ends its connection, and without a listener the process.
  socket.on("error", () => {});
  socket.on("close", () => leaves.forEach((leave) => leave()));
});
