// Bun with its native publish and subscribe (uWebSockets inside). With `deflate` behind the port it compresses what is
// published into rooms, for everyone who agreed.
const port = Number(process.argv[2]);
const deflate = process.argv[3] === "deflate";
const users = new Map();

const server = Bun.serve({
  hostname: "127.0.0.1",
  port,
  fetch(request, server) {
    const at = request.url.indexOf("userId=");
    if (request.url.includes("/echo") && server.upgrade(request, { data: { echo: true } })) return undefined;
    const clientId = crypto.randomUUID();
    const userId = at < 0 ? clientId : decodeURIComponent(request.url.slice(at + 7).split("&", 1)[0]);
    if (server.upgrade(request, { data: { clientId, userId } })) return undefined;
    return new Response("not a WebSocket", { status: 400 });
  },
  websocket: {
    perMessageDeflate: deflate,
    idleTimeout: 0,
    open(socket) {
      const { echo, clientId, userId } = socket.data;
      if (echo) return;
      users.set(userId, socket);
      socket.send(JSON.stringify({ type: "welcome", clientId, userId, heartbeat: 30000 }));
    },
    message(socket, data) {
      if (socket.data.echo) {
        socket.send(data);
        return;
      }
      const message = JSON.parse(data);
      const from = socket.data.userId;
      switch (message.type) {
        case "room_msg": {
          const { roomId, content } = message;
          socket.publish(roomId, JSON.stringify({ type: "room_msg", roomId, from, content, time: Date.now() }), deflate);
          break;
        }
        case "private_msg": {
          const { toUser, content } = message;
          users.get(toUser)?.send(JSON.stringify({ type: "private_msg", from, content, time: Date.now() }));
          break;
        }
        case "join_room": {
          const { roomId, id } = message;
          socket.subscribe(roomId);
          if (id !== undefined) socket.send(JSON.stringify({ type: "joined", id, roomId }));
          break;
        }
        case "ping":
          socket.send('{"type":"pong"}');
          break;
      }
    },
    close(socket) {
      users.delete(socket.data.userId);
    },
  },
});
console.log(`listening on ${server.port}`);
