#!/usr/bin/env python3
"""Visitors who do not stop: ask a site at a constant rate, and tell which requests failed and whose session has moved.

    load.py URL --address IP[,IP] --ca FILE [--rate N] [--sessions N] [--pages PATH,PATH]

The requests are made by hey (https://github.com/rakyll/hey): at each address half of them by visitors who are new, half by visitors who keep
their connection. Beside them, each session is a visitor with a cookie jar, who verifies the certificate and expects the same web server
(X-Served-By) each time. Ends on a line from standard input, and prints one JSON object: requests, failed, statuses, errors, sessions (the web
server of each), moved (how often a session came to another one).
"""

import argparse
import collections
import http.client
import itertools
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse

WORKERS = 2  # of each hey, one request at a time each
TIMEOUT = 10  # seconds
PAUSE = 0.25  # seconds between two requests of a session


class Session(threading.Thread):
    """A visitor who comes back with the cookies that he got."""

    def __init__(self, url, address, context, pages, stop):
        super().__init__()
        self.url, self.address, self.context, self.stop = url, address, context, stop
        self.pages = itertools.cycle(pages)
        self.cookies, self.server, self.moved = {}, None, 0
        self.statuses, self.errors = collections.Counter(), collections.Counter()

    def run(self):
        while not self.stop.wait(PAUSE):
            try:
                status, server = self.ask()
            except (OSError, http.client.HTTPException) as error:
                self.errors[f"session: {error!r}"] += 1
                continue
            self.statuses[str(status)] += 1
            if status < 400:
                self.moved += self.server not in (None, server)
                self.server = server

    def ask(self):
        connection = http.client.HTTPSConnection(self.url.hostname, context=self.context)
        raw = socket.create_connection((self.address, self.url.port or 443), timeout=TIMEOUT)
        connection.sock = self.context.wrap_socket(raw, server_hostname=self.url.hostname)
        try:
            cookies = "; ".join(map("=".join, self.cookies.items()))
            connection.request(
                "GET", next(self.pages), headers={"Connection": "close"} | ({"Cookie": cookies} if cookies else {})
            )
            answer = connection.getresponse()
            for cookie in answer.headers.get_all("Set-Cookie", []):
                name, _, value = cookie.partition(";")[0].partition("=")
                self.cookies[name] = value
            answer.read()
            return answer.status, answer.headers["X-Served-By"]
        finally:
            connection.close()


def hey(url, address, rate, *options):
    """Start hey, which asks until it is interrupted."""
    settings = {"-z": "1h", "-c": WORKERS, "-q": rate / WORKERS, "-t": TIMEOUT, "-host": url.netloc}
    words = [str(word) for pair in settings.items() for word in pair]
    port = f":{url.port}" if url.port else ""
    command = ["hey", *words, *options, f"{url.scheme}://{address}{port}{url.path or '/'}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read(report):
    """Return the statuses and the errors of hey's report, with how often there was each."""
    head, _, tail = report.partition("Error distribution:")
    statuses = {
        code: int(count) for code, count in re.findall(r"^\s*\[(\d{3})\]\s+(\d+) responses$", head, re.MULTILINE)
    }
    errors = {text: int(count) for count, text in re.findall(r"^\s*\[(\d+)\]\s+(.+)$", tail, re.MULTILINE)}
    return collections.Counter(statuses), collections.Counter(errors)


def load(url, addresses, ca, rate, sessions, pages):
    context, stop = ssl.create_default_context(cafile=ca), threading.Event()
    share = rate / len(addresses) / 2
    running = [hey(url, address, share, *kind) for address in addresses for kind in ((), ("-disable-keepalive",))]
    visitors = [Session(url, addresses[number % len(addresses)], context, pages, stop) for number in range(sessions)]
    for visitor in visitors:
        visitor.start()
    sys.stdin.readline()
    stop.set()
    for process in running:
        process.send_signal(signal.SIGINT)
    told = [read(process.communicate()[0]) for process in running]
    for visitor in visitors:
        visitor.join()
        told.append((visitor.statuses, visitor.errors))
    statuses = sum((status for status, _ in told), collections.Counter())
    errors = sum((error for _, error in told), collections.Counter())
    return {
        "requests": statuses.total() + errors.total(),
        "failed": sum(count for status, count in statuses.items() if int(status) >= 400) + errors.total(),
        "statuses": statuses,
        "errors": errors,
        "sessions": [visitor.server for visitor in visitors],
        "moved": sum(visitor.moved for visitor in visitors),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", type=urllib.parse.urlsplit)
    parser.add_argument("--address", required=True, type=lambda text: text.split(","))
    parser.add_argument("--ca", required=True)
    parser.add_argument("--rate", type=float, default=80, help="requests a second, beside those of the sessions")
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--pages", type=lambda text: text.split(","), default=["/", "/guestbook/"])
    options = parser.parse_args()
    json.dump(load(options.url, options.address, options.ca, options.rate, options.sessions, options.pages), sys.stdout)


if __name__ == "__main__":
    main()
