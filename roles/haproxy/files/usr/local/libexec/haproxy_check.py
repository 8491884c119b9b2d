# Ansible managed: role foobar.webstack.haproxy
"""Refuse a configuration that HAProxy cannot load: one that it does not understand, or in which another program has a port.

Where a new process cannot bind, it has the old one stop to listen on all ports while it tries again, for two seconds.
A bind that is written with a variable or a name is not looked at.
"""

import re
import subprocess
import sys
from ipaddress import ip_address, ip_network

CONFIGURATION = "/etc/haproxy/haproxy.cfg"
ANY = [ip_network("0.0.0.0/0"), ip_network("::/0")]


def networks(host, any6):
    """Return what a socket listens to; any6 is what it is for [::]."""
    if host == "*":
        return ANY
    address = ip_address(re.sub(r"%.*|[][]", "", host))
    if address.is_unspecified:
        return ANY[:1] if address.version == 4 else any6
    return [ip_network(getattr(address, "ipv4_mapped", None) or address)]


def listeners():
    """Return protocol, port, networks, address and programs of every socket that listens."""
    run = subprocess.run(["ss", "-Hlntup"], check=True, stdout=subprocess.PIPE, text=True)
    for line in run.stdout.splitlines():
        protocol, *columns = line.split(maxsplit=6)
        local, users = columns[3], "".join(columns[5:])
        host, port = local.rsplit(":", 1)
        programs = dict(re.findall(r'"([^"]+)",pid=(\d+)', users))
        yield protocol, int(port), networks(host, ANY[1:]), local, programs


def binds():
    """Return name, protocol, ports and networks of every bind to a port."""
    section = peer = None
    with open(CONFIGURATION) as configuration:
        lines = [line.split("#")[0].replace('"', "").split() for line in configuration]
    for keyword, *words in filter(None, lines):
        if keyword in ("frontend", "listen", "peers", "log-forward"):
            section = " ".join([keyword, *words[:1]])
        elif keyword == "localpeer":
            peer = words[0]
        elif keyword in ("bind", "dgram-bind") or (keyword == "peer" and words.pop(0) == peer and words):
            for text in words[0].split(","):
                kind, host, first, last = re.match(r"(?:(.*)@)?(.*?)(?::(\d+)(?:-(\d+))?)?$", text).groups(default="")
                protocol = "udp" if keyword == "dgram-bind" or kind.startswith(("quic", "udp")) else "tcp"
                host = host.replace("*", "") or ("::" if "6" in kind else "0.0.0.0")  # noqa: S104
                any6 = ANY[1:] if "v6only" in words else ANY
                try:
                    ports = range(int(first), int(last or first) + 1)
                    yield f"{section}: {keyword} {text}", protocol, ports, networks(host, any6)
                except ValueError:
                    continue  # no port, or no address


test = ["haproxy", "-c", "-f", CONFIGURATION, *sys.argv[1:]]
tested = subprocess.run(test, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
if tested.returncode:
    sys.exit(tested.stdout)
listening = list(listeners())
faults = []
for name, protocol, ports, wanted in binds():
    on_port = [listener[1:] for listener in listening if listener[0] == protocol and listener[1] in ports]
    # A new process is handed the sockets of the old one.
    ours = [port for port, taken, local, programs in on_port if taken == wanted and "haproxy" in programs]
    for port, taken, local, programs in on_port:
        if port in ours or "haproxy" in programs or not any(a.overlaps(b) for a in wanted for b in taken):
            continue
        who = " and ".join(f"{program} (pid {pid})" for program, pid in programs.items())
        faults.append(f"{name}: {who or 'a program out of sight'} listens on {local}")
sys.exit("\n".join(faults) or 0)
