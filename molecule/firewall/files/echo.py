#!/usr/bin/python3
"""Answers on every address: whatever is not open from outside, the firewall has closed."""

import selectors
import socket

TCP, UDP = (443, 3306, 8000, 8404, 9999), 5353

events = selectors.DefaultSelector()
for port in TCP:
    server = socket.create_server(("", port), backlog=4096)
    events.register(server, selectors.EVENT_READ, socket.socket.accept)
    if socket.has_dualstack_ipv6():
        six = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096)
        events.register(six, selectors.EVENT_READ, socket.socket.accept)
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("", UDP))
events.register(names, selectors.EVENT_READ)
while True:
    for key, _ in events.select():
        if key.data:
            client, _ = key.fileobj.accept()
            events.register(client, selectors.EVENT_READ)
        elif key.fileobj is names:
            text, sender = names.recvfrom(4096)
            names.sendto(text, sender)
        else:
            try:
                text = key.fileobj.recv(4096)
                key.fileobj.sendall(text)
            except OSError:
                text = b""
            if not text:
                events.unregister(key.fileobj)
                key.fileobj.close()
