"""A receiver of fanfare's webhooks. Python's standard library is enough.

    WEBHOOK_SECRET=… python3 examples/webhook_receiver.py 3000
    FANFARE_WEBHOOK="url=http://127.0.0.1:3000/,secret=$WEBHOOK_SECRET" fanfare serve
"""

import hashlib
import hmac
import http.server
import json
import os
import sys
import time

SECRET = os.environ["WEBHOOK_SECRET"].encode()
OLD_MS = 5 * 60 * 1000  # An attempt that is older was recorded by someone.
seen = {}  # Ids of events that were handled, and when: keep them as long as fanfare may send them again.


def is_genuine(signature, body):
    fields = dict(field.partition("=")[::2] for field in signature.split(","))
    sent = fields.get("t", "")
    expected = hmac.new(SECRET, sent.encode() + b"." + body, hashlib.sha256).hexdigest()
    is_fresh = sent.isdecimal() and abs(time.time() * 1000 - int(sent)) < OLD_MS
    return is_fresh and hmac.compare_digest(fields.get("v1", ""), expected)


def handle(event):
    print(event["event"], event.get("roomId") or event["userId"], flush=True)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Connections are kept.

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not is_genuine(self.headers.get("X-Fanfare-Signature", ""), body):
            return self.answer(401)
        for event in json.loads(body)["events"]:
            if event["id"] not in seen:
                handle(event)
                seen[event["id"]] = time.monotonic()
        for id in [id for id, at in seen.items() if time.monotonic() - at > 3600]:
            del seen[id]
        self.answer(204)  # Only now: what is not answered with 2xx comes again.

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver) as server:
        server.serve_forever()
