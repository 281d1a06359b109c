// The server that tutorials write with npm's ws: parse, walk over all clients, stringify for each of them. With
// `deflate` behind the port compression is on, and its options are the defaults.
import { WebSocketServer, WebSocket } from "ws";
import { randomUUID } from "node:crypto";

const port = Number(process.argv[2]);
const perMessageDeflate = process.argv[3] === "deflate";
const wss = new WebSocketServer({ host: "127.0.0.1", port, perMessageDeflate }, () =>
  console.log(`listening on ${port}`),
);

wss.on("connection", (socket, request) => {
  if (request.url.startsWith("/echo")) {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
    socket.on("error", () => {});
    return;
  }
  socket.clientId = randomUUID();
  socket.userId = new URL(request.url, "http://localhost").searchParams.get("userId") ?? socket.clientId;
  socket.rooms = new Set();
  socket.send(
    JSON.stringify({ type: "welcome", clientId: socket.clientId, userId: socket.userId, heartbeat: 30000 }),
  );

  socket.on("error", console.error);
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    switch (message.type) {
      case "join_room":
        socket.rooms.add(message.roomId);
        if (message.id !== undefined) {
          socket.send(JSON.stringify({ type: "joined", id: message.id, roomId: message.roomId }));
        }
        break;
      case "room_msg":
        wss.clients.forEach((client) => {
          if (client !== socket && client.readyState === WebSocket.OPEN && client.rooms.has(message.roomId)) {
            client.send(
              JSON.stringify({
                type: "room_msg",
                roomId: message.roomId,
                from: socket.userId,
                content: message.content,
                time: Date.now(),
              }),
            );
          }
        });
        break;
      case "private_msg":
        wss.clients.forEach((client) => {
          if (client.userId === message.toUser && client.readyState === WebSocket.OPEN) {
            client.send(
              JSON.stringify({
                type: "private_msg",
                from: socket.userId,
                content: message.content,
                time: Date.now(),
              }),
            );
          }
        });
        break;
      case "ping":
        socket.send(JSON.stringify({ type: "pong" }));
        break;
    }
  });
});
