#!/usr/bin/python3
"""Server number N to balance: HTTP on 808N, HTTPS on 844N, TCP on 330N, and what a database says of itself on 920N.

It is unhealthy on 808N and 844N while /run/server-N/sick exists, and answers /write and /read on 920N with 200 while a file of that name does;
so it does with the challenges of a certificate authority on 840N. On 8442 it has a certificate of another name. On 330N it is silent to a PING
while /run/server-N/mute exists.
"""

import http.server
import json
import pathlib
import socketserver
import ssl
import sys
import threading
import time

NUMBER = int(sys.argv[1])
SWITCHES = pathlib.Path(f"/run/server-{NUMBER}")


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        own = (("Content-Length", str(len(body))), ("X-Served-By", f"web{NUMBER}"), ("X-Served-Path", self.path))
        for name, value in (*own, *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Web(Handler):
    """Answers with the headers that it has received."""

    def do_GET(self):
        if self.path == "/health":
            return self.answer(503 if (SWITCHES / "sick").exists() else 200)
        if self.path.startswith("/slow"):
            time.sleep(2)
        seen = {name.lower(): self.headers.get_all(name) for name in self.headers}
        kind = ("Content-Type", "application/json")
        session = "x" * 200 + f"of-web{NUMBER}"
        headers = {"/login": ("Set-Cookie", f"SESSION={session}"), "/framed": ("X-Frame-Options", "DENY")}
        return self.answer(
            200, json.dumps(seen).encode(), [kind, headers[self.path]] if self.path in headers else [kind]
        )

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        return self.answer(200)

    def do_OPTIONS(self):
        return self.answer(200)

    do_TRACE = do_OPTIONS  # noqa: N815


class State(Handler):
    missing = 503

    def do_GET(self):
        return self.answer(
            200 if (SWITCHES / self.path.rpartition("/")[2].partition("?")[0]).exists() else self.missing
        )

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        return self.do_GET()


class Challenge(State):
    missing = 404


class Database(socketserver.StreamRequestHandler):
    """Says who it is, then whatever it hears."""

    def handle(self):
        self.wfile.write(f"database{NUMBER}\n".encode())
        for line in self.rfile:
            if line != b"PING\r\n":
                self.wfile.write(line)
            elif not (SWITCHES / "mute").exists():
                self.wfile.write(b"+PONG\r\n")


class DatabaseServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


SWITCHES.mkdir(exist_ok=True)
secure = Server(("", 8440 + NUMBER), Web)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
certificate = "servers" if NUMBER == 1 else "stranger"
context.load_cert_chain(f"/root/{certificate}.crt", f"/root/{certificate}.key")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
for server in (
    Server(("", 8080 + NUMBER), Web),
    secure,
    Server(("", 8400 + NUMBER), Challenge),
    Server(("", 9200 + NUMBER), State),
    DatabaseServer(("", 3300 + NUMBER), Database),
):
    threading.Thread(target=server.serve_forever).start()
