// Rooms of last values on Bun's WebSocket server. With `corked` behind the port, what a round sends to a subscriber is one
// write; without it each value is sent by itself, as one writes it first.
import { marketRooms, userOf, welcome } from "./market-rooms.mjs";

const corked = process.argv[3] === "corked";
const command = marketRooms(
  (socket, text) => socket.send(text),
  (socket, sends) => (corked ? socket.cork(sends) : sends()),
);

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    if (server.upgrade(request, { data: { userId: userOf(request.url), leaves: [] } })) return undefined;
    return new Response("not a WebSocket", { status: 400 });
  },
  websocket: {
    idleTimeout: 0,
    open(socket) {
      socket.send(welcome(socket.data.userId));
    },
    message(socket, data) {
      const leave = command(socket, socket.data.userId, JSON.parse(data));
      if (leave !== undefined) socket.data.leaves.push(leave);
    },
    close(socket) {
      for (const leave of socket.data.leaves) leave();
    },
  },
});
console.log(`listening on ${server.port}`);
