#!/usr/bin/python3
"""A jump host behind a pool of translated addresses: the first connection comes from the first address, each later one from the second.

jump.py COUNT-FILE HOST PORT FIRST SECOND
"""

import os
import pathlib
import selectors
import socket
import sys

counter, host, port, first, second = sys.argv[1:]
source = second if pathlib.Path(counter).exists() else first
pathlib.Path(counter).touch()
server = socket.create_connection((host, int(port)), timeout=3, source_address=(source, 0))
server.settimeout(None)
events = selectors.DefaultSelector()
events.register(0, selectors.EVENT_READ)
events.register(server, selectors.EVENT_READ)
while True:
    for key, _ in events.select():
        text = os.read(0, 65536) if key.fileobj == 0 else server.recv(65536)
        if not text:
            sys.exit()
        if key.fileobj == 0:
            server.sendall(text)
        else:
            os.write(1, text)
