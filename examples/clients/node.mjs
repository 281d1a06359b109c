// npm install ws && node node.mjs ws://127.0.0.1:8080 alice
import WebSocket from "ws";

const [server = "ws://127.0.0.1:8080", user = "alice"] = process.argv.slice(2);
const socket = new WebSocket(`${server}/?userId=${encodeURIComponent(user)}`);
const send = (command) => socket.send(JSON.stringify(command));
socket.on("open", () => {
  send({ type: "join_room", roomId: "lobby" });
  send({ type: "room_msg", roomId: "lobby", content: `hello from ${user}` });
});
socket.on("message", (data) => console.log(data.toString()));
socket.on("close", (code) => console.log(`closed with ${code}`));
