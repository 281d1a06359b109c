# Keeps an order book that a keyed room has, through lost connections, and proves it right:
#   pip install websockets && python book.py ws://127.0.0.1:8080 book.ACME [INTERVAL_MS]
# Ends with 1 where its book is not the publisher's.
import json
import random
import sys
import time
import zlib

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

server, room, interval = (sys.argv[1:] + ["ws://127.0.0.1:8080", "book.ACME", "100"][len(sys.argv) - 1 :])[:3]
RETRY_S, RETRY_S_MAX = 0.1, 5.0


class Book:
    def __init__(self):
        self.sides = {"bid": {}, "ask": {}}  # price in ticks → size
        self.seqs = {}  # item → its last seq
        self.position = None  # what the book is as of; None: nothing
        self.counts = {"checks": 0, "messages": 0, "unsent": 0, "recovered": 0, "anew": 0}

    def joined(self, message, waiting):
        """All that came in front of `joined` goes into the book: only that says whether the old book is to be kept."""
        if message.get("recovered") is not True:
            self.sides = {"bid": {}, "ask": {}}
            self.seqs = {}
            self.counts["anew"] += 1
        else:
            self.counts["recovered"] += 1
        self.position = {"epoch": message["epoch"], "offset": message["offset"]}
        for update in waiting:
            self.apply(update)
        self.position["offset"] = message["offset"]

    def apply(self, update):
        item, seq = update["item"], update["seq"]
        self.counts["messages"] += 1
        # How many updates of this item were left out for newer ones.
        self.counts["unsent"] += seq - self.seqs.get(item, seq - 1) - 1
        self.seqs[item] = seq
        self.position["offset"] = update["offset"]
        if item == "check":
            return None if update.get("removed") else self.verify(update["content"], update["offset"])
        side, price = item.split(" ")
        if update.get("removed"):
            self.sides[side].pop(int(price), None)
            del self.seqs[item]
        else:
            self.sides[side][int(price)] = update["content"]

    def verify(self, expected, offset):
        """The publisher sends this last in each command, and updates come by offset: all in front of it is here."""
        bids = sorted(self.sides["bid"].items(), reverse=True)
        asks = sorted(self.sides["ask"].items())
        found = zlib.crc32(",".join(f"{price}:{size}" for price, size in bids + asks).encode())
        if found != expected:
            print(f"WRONG at offset {offset}: {found} is not {expected}", flush=True)
            sys.exit(1)
        self.counts["checks"] += 1
        best = f"{bids[0][0] if bids else '-'} | {asks[0][0] if asks else '-'}"
        print(f"right at offset {offset}: {best}, {len(bids) + len(asks)} levels {json.dumps(self.counts)}", flush=True)


def follow(book):
    """Until the connection ends; whether it was joined."""
    waiting = []
    try:
        with connect(f"{server}/?userId=book") as socket:
            join = {"type": "join_room", "roomId": room, "mode": "latest", "interval": int(interval), "id": 1}
            socket.send(json.dumps(join if book.position is None else join | {"since": book.position}))
            for text in socket:
                message = json.loads(text)
                if message["type"] == "room_msg" and waiting is not None:
                    waiting.append(message)
                elif message["type"] == "room_msg":
                    book.apply(message)
                elif message["type"] == "joined":
                    book.joined(message, waiting)
                    waiting = None
                elif message["type"] == "error":
                    sys.exit(f"{message['code']}: {message['message']}")
    except (ConnectionClosed, InvalidHandshake, OSError):
        pass
    return waiting is None


book, tries = Book(), 0
while True:
    tries = 0 if follow(book) else tries + 1
    # A later try waits longer, at random, so that a crowd does not come back at once.
    time.sleep(random.random() * min(RETRY_S_MAX, RETRY_S * 2**tries))
