# pip install websockets && python python_client.py ws://127.0.0.1:8080 alice
import json
import sys
from urllib.parse import quote

from websockets.sync.client import connect

server, user = (sys.argv[1:] + ["ws://127.0.0.1:8080", "alice"][len(sys.argv) - 1 :])[:2]
with connect(f"{server}/?userId={quote(user, safe='')}") as socket:
    socket.send(json.dumps({"type": "join_room", "roomId": "lobby"}))
    socket.send(json.dumps({"type": "room_msg", "roomId": "lobby", "content": f"hello from {user}"}))
    for message in socket:
        print(message, flush=True)
