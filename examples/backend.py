"""A backend that decides who may connect to fanfare, and which rooms may be joined. Python's standard library is enough.

    python3 examples/backend.py 3000
    fanfare serve --auth.connect_url http://127.0.0.1:3000/connect --auth.join_url http://127.0.0.1:3000/join
"""

import http.cookies
import http.server
import json
import sys

# Whatever your application knows its users by.
SESSIONS = {"s-alice": "alice", "s-bob": "bob"}
MEMBERS = {"team": {"alice", "bob"}, "board": {"alice"}}


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Connections are kept: one question costs no handshake.

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        decide = {"/connect": self.connect, "/join": self.join}.get(self.path)
        self.answer(*decide(question)) if decide else self.answer(404, {})

    def connect(self, question):
        cookie = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        session = cookie["session"].value if "session" in cookie else None
        if session not in SESSIONS:
            return 401, {}
        may = {"publish": ["*"], "presence": ["*"], "private": True}
        return 200, {"user": SESSIONS[session], "fanfare": may}

    def join(self, question):
        def allowed(room):
            return question["user"] in MEMBERS.get(room, ())

        if "roomIds" in question:
            return 200, {"allow": [room for room in question["roomIds"] if allowed(room)]}
        return 200, {"allow": allowed(question["roomId"])}

    def answer(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Backend) as server:
        server.serve_forever()
