#!/usr/bin/python3
"""A site of a page, its assets and a login that refuses."""

import http.server


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        status = 401 if path == "/login" else 200 if path == "/" or path.startswith("/assets/") else 404
        self.send_response(status)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    do_POST = do_GET  # noqa: N815


http.server.ThreadingHTTPServer(("", 8080), Site).serve_forever()
