#!/usr/bin/env python3
"""A visitor with a stopwatch: asks one URL at a constant rate and tells what failed, and for how long.

    probe.py URL --address IP --ca FILE [--rate N] [--seconds N] [--timeout SECONDS]

Each request is a connection of its own, as new visitors make them. Ends by itself, or on a line from standard input, and prints one JSON
object: requests, failed, statuses, served_by (requests by the X-Served-By header) and outage, the longest time in seconds that no
request which began in it was answered with 2xx or 3xx. Runs on a server of the lab with nothing but Python.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import select
import socket
import ssl
import sys
import time
import urllib.parse


def ask(url, address, context, timeout):
    """Return (status, name of the server) of one request; raise OSError when there is no answer."""
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    with socket.create_connection((address, port), timeout=timeout) as raw:
        connection = context.wrap_socket(raw, server_hostname=url.hostname) if url.scheme == "https" else raw
        with connection:
            connection.settimeout(timeout)
            connection.sendall(
                f"GET {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode()
            )
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    break
                head += received
    lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    if not lines[0].startswith("HTTP/"):
        raise ConnectionError("no HTTP answer")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers.get("x-served-by", "")


def probe(url, address, ca, rate, seconds, timeout):
    context = ssl.create_default_context(cafile=ca) if url.scheme == "https" else None
    results = []

    def one(begun):
        try:
            status, server = ask(url, address, context, timeout)
        except (OSError, ValueError) as error:
            status, server = type(error).__name__, ""
        results.append((begun, status, server))

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(max_workers=int(rate * (timeout + 1)) + 1) as pool:
        for number in range(int(rate * seconds)):
            moment = begin + number / rate
            pause = max(0.0, moment - time.monotonic())
            if select.select([sys.stdin], [], [], pause)[0]:
                break
            pool.submit(one, time.monotonic())
    end = time.monotonic()

    results.sort()
    answered = [begun for begun, status, _ in results if isinstance(status, int) and status < 400]
    edges = [begin, *answered, end]
    return {
        "requests": len(results),
        "failed": len(results) - len(answered),
        "statuses": collections.Counter(str(status) for _, status, _ in results),
        "served_by": collections.Counter(server for _, _, server in results if server),
        # The time between two requests is no outage.
        "outage": round(max(0.0, *(b - a - 1 / rate for a, b in itertools.pairwise(edges))), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", type=urllib.parse.urlsplit)
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--timeout", type=float, default=1)
    options = parser.parse_args()
    json.dump(probe(**vars(options)), sys.stdout)


if __name__ == "__main__":
    main()
