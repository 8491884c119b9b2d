#!/usr/bin/python3
"""A stand-in for the application: says what it was asked, counts it, and hangs up on request."""

import collections
import http.server
import json
import pathlib
import sys

port = int(sys.argv[1])
received = collections.Counter()


class Application(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/app/received":
            return self.reply(received)
        received[self.command] += 1
        if pathlib.Path(f"/run/hang-up-{port}").exists():
            self.close_connection = True
            return None
        return self.reply({"port": port, "path": self.path, "headers": dict(self.headers)})

    do_GET = do_POST = answer  # noqa: N815

    def reply(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", port), Application).serve_forever()
