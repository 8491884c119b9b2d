#!/usr/bin/python3
"""A server to balance: HTTP on 8080, TCP on 3306, and what a database says of itself on 9201.

It is unhealthy on 8080 while /run/server/sick exists, and answers /write and /read on 9201 with 200 while a file of that name does.
"""

import http.server
import json
import pathlib
import socketserver
import sys
import threading
import time

NAME = sys.argv[1]
SWITCHES = pathlib.Path("/run/server")


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in (("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Web(Handler):
    def do_GET(self):
        if self.path == "/health":
            return self.answer(503 if (SWITCHES / "sick").exists() else 200, b"")
        if self.path == "/slow":
            time.sleep(2)
        seen = {"server": NAME, "headers": {name.lower(): self.headers.get_all(name) for name in self.headers}}
        login = [("Set-Cookie", f"SESSION={NAME}-session")] if self.path == "/login" else []
        return self.answer(200, json.dumps(seen).encode(), login)


class State(Handler):
    def do_GET(self):
        return self.answer(200 if (SWITCHES / self.path.strip("/").partition("?")[0]).exists() else 503, b"")


class Database(socketserver.StreamRequestHandler):
    """Says who it is, then whatever it hears."""

    def handle(self):
        self.wfile.write(f"{NAME}\n".encode())
        for line in self.rfile:
            self.wfile.write(line)


class DatabaseServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


SWITCHES.mkdir(exist_ok=True)
for server in (Server(("", 8080), Web), Server(("", 9201), State), DatabaseServer(("", 3306), Database)):
    threading.Thread(target=server.serve_forever).start()
