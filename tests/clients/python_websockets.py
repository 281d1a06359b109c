"""PyPI `websockets` against fanfare: python python_websockets.py ws://127.0.0.1:PORT

Prints what was received; exits with 1 and a traceback where a count is wrong.
"""

import json
import os
import sys
from urllib.parse import quote

from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

BASE = sys.argv[1]
ROOM_MESSAGES = 500
PATIENCE_S = 15


# Bytes of messages sent so far by all that agreed on compression, before compression.
deflated_bytes = 0


def tally(socket, *parts):
    global deflated_bytes
    if extensions(socket):
        deflated_bytes += sum(len(part.encode() if isinstance(part, str) else part) for part in parts)


def extensions(socket):
    return [extension.name for extension in socket.protocol.extensions]


def connected(url, **options):
    """A connection. With TLS this client reads on one thread while it writes on another, from the first record on; now and then
    OpenSSL then keeps the request to itself (the socket has sent the handshake's bytes and no more). It begins again.
    """
    for attempt in range(5):
        try:
            return connect(url, open_timeout=3 if attempt < 4 else PATIENCE_S, **options)
        except TimeoutError:
            if not url.startswith("wss:") or attempt == 4:
                raise


class Peer:
    """One connection that sends and receives JSON."""

    def __init__(self, user, **options):
        self.socket = connected(f"{BASE}/?userId={quote(user, safe='')}", **options)
        self.welcome = self.recv()
        assert self.welcome["type"] == "welcome", self.welcome

    def send(self, **command):
        text = json.dumps(command)
        tally(self.socket, text)
        self.socket.send(text)

    def recv(self):
        message = self.socket.recv(timeout=PATIENCE_S)
        assert isinstance(message, str), "a binary message on a JSON connection"
        return json.loads(message)

    def expect(self, kind):
        """The first message of this type; those before it are dropped."""
        while True:
            message = self.recv()
            assert message["type"] != "error", message
            if message["type"] == kind:
                return message

    def join(self, room):
        self.send(type="join_room", roomId=room, id=1)
        self.expect("joined")


def filler(n):
    """From nothing to 20 KB: below and above the size from which the server compresses."""
    return f"message {n}, fanfare 🦀 " * (n * 2 if n % 10 == 0 else 0)


def main():
    counts = dict.fromkeys(["welcome", "room_msg", "private_msg", "private", "broadcast", "raw", "pong", "refused"], 0)

    alice = Peer("alice", subprotocols=["fanfare.v1"])
    zoe = Peer("zoë 🦀 +&=")
    plain_zoe = Peer("zoë 🦀 +&=", compression=None)
    counts["welcome"] = 3
    assert zoe.welcome["userId"] == "zoë 🦀 +&=", zoe.welcome
    assert alice.socket.subprotocol == "fanfare.v1", alice.socket.subprotocol
    assert extensions(alice.socket) == ["permessage-deflate"], extensions(alice.socket)
    assert extensions(zoe.socket) == ["permessage-deflate"], extensions(zoe.socket)
    assert extensions(plain_zoe.socket) == [], extensions(plain_zoe.socket)

    zoe.join("den")
    plain_zoe.join("den")
    for n in range(ROOM_MESSAGES):
        alice.send(type="room_msg", roomId="den", content={"n": n, "filler": filler(n)})
    for member in (zoe, plain_zoe):
        for n in range(ROOM_MESSAGES):
            message = member.expect("room_msg")
            assert message["from"] == "alice", message
            assert message["content"] == {"n": n, "filler": filler(n)}, (n, message)
            counts["room_msg"] += 1

    alice.send(type="private_msg", toUser="zoë 🦀 +&=", content="to both")
    for member in (zoe, plain_zoe):
        assert member.expect("private_msg")["content"] == "to both"
        counts["private_msg"] += 1
    alice.send(type="private", to=plain_zoe.welcome["clientId"], data=[1, 2, 3])
    assert plain_zoe.expect("private")["data"] == [1, 2, 3]
    counts["private"] += 1
    alice.send(type="broadcast", data={"tick": 1})
    for peer in (alice, zoe, plain_zoe):
        assert peer.expect("broadcast")["data"] == {"tick": 1}
        counts["broadcast"] += 1

    # An iterable is sent as one message in fragments.
    parts = ['{"type":"pi', "", 'ng","id":"in pieces"}']
    tally(alice.socket, *parts)
    alice.socket.send(parts)
    assert alice.expect("pong")["id"] == "in pieces"
    assert alice.socket.ping("payload").wait(PATIENCE_S), "no pong frame"
    counts["pong"] = 2

    # Raw rooms, with the usual windows, with the smallest, and plain. Four of the messages are worth compressing.
    smallest = ClientPerMessageDeflateFactory(
        server_max_window_bits=9, client_max_window_bits=9, client_no_context_takeover=True
    )
    for room, agreed, options in (
        ("usual", ["permessage-deflate"], {}),
        ("smallest", ["permessage-deflate"], {"compression": None, "extensions": [smallest]}),
        ("plain", [], {"compression": None}),
    ):
        with connected(f"{BASE}/raw/{room}?echo=1", **options) as raw:
            assert extensions(raw) == agreed, (room, extensions(raw))
            for message in (
                "text", bytes([0, 255, 128]), "z" * 10_000, b"\x07" * 10_000, os.urandom(20_000), "fanfare 🦀 " * 20_000,
            ):
                tally(raw, message)
                raw.send(message)
                assert raw.recv(timeout=PATIENCE_S) == message, "the same bytes and the same opcode"
                counts["raw"] += 1

    for target, status in (("/?userId=", 400), ("/nope", 404)):
        try:
            connected(BASE + target)
        except InvalidStatus as refusal:
            assert refusal.response.status_code == status, (target, refusal)
            counts["refused"] += 1

    for peer in (alice, zoe, plain_zoe):
        peer.socket.close()
        assert peer.socket.close_code == 1000, peer.socket.close_code

    counts["deflated_bytes"] = deflated_bytes
    print(json.dumps(counts))


main()
