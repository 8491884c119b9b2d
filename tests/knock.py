#!/usr/bin/env python3
"""Knocks at many doors at once: reads address and port pairs as JSON from standard input, and prints how each TCP connection went, in their order.

    knock.py [TIMEOUT [SOURCE]]

open: connected. refused: the host answered that nothing listens. silent: no answer within the time-out, as from a firewall that drops. Runs on
a server of the lab with nothing but Python.
"""

import json
import resource
import selectors
import socket
import sys
import time


def knock(pairs, timeout, source):
    """Return open, refused or silent for each (address, port)."""
    results = ["silent"] * len(pairs)
    events = selectors.DefaultSelector()
    for index, (address, port) in enumerate(pairs):
        door = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        door.setblocking(False)
        if source:
            door.bind((source, 0))
        door.connect_ex((address, port))
        events.register(door, selectors.EVENT_WRITE, index)
    end = time.monotonic() + timeout
    while events.get_map() and (left := end - time.monotonic()) > 0:
        for key, _ in events.select(left):
            error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            results[key.data] = "refused" if error else "open"
            events.unregister(key.fileobj)
            key.fileobj.close()
    return results


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    given = sys.argv[1:]
    json.dump(knock(json.load(sys.stdin), float(given[0]) if given else 3, given[1] if given[1:] else None), sys.stdout)
