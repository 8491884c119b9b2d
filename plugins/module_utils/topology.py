# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The topology: the whiteboard drawing of the stack, as data.

A box is a host in a group; an arrow is a flow: who opens a connection to whom, on which port, in which protocol, why.
`build` resolves a catalogue of services against an inventory and returns one plain dictionary. Everything that a role
is given comes from it, so that nothing runs, balances or is open that is not drawn.

Whatever an inventory holds, `build` raises nothing: what is wrong with it is a list of faults in the result, so that
all of them are reported together. Its cost is linear in the number of hosts.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# What the stack offers. A user's webstack_services are merged over it, key by key.
#   tier       the group whose hosts offer the service
#   address    where it listens: host (the host's own address), virtual (the virtual IPs), loopback
#   clients    the groups whose hosts connect to it, or internet for anybody
#   check      the service of the same tier that answers for its health, when it is not the service itself
CATALOGUE: dict[str, dict[str, Any]] = {
    "http": {
        "tier": "loadbalancers",
        "port": 80,
        "protocol": "http",
        "address": "virtual",
        "clients": ["internet"],
        "why": "visitors, who are sent on to https",
    },
    "https": {
        "tier": "loadbalancers",
        "port": 443,
        "protocol": "https",
        "address": "virtual",
        "clients": ["internet"],
        "encrypted": True,
        "why": "visitors",
    },
    "http3": {
        "tier": "loadbalancers",
        "port": 443,
        "protocol": "udp",
        "address": "virtual",
        "clients": ["internet"],
        "encrypted": True,
        "enabled": False,  # firewalls before the load balancers must let UDP through, too
        "why": "visitors whose browser speaks HTTP/3",
    },
    "acme": {
        "tier": "loadbalancers",
        "port": 8402,
        "protocol": "http",
        "clients": ["loadbalancers"],
        "enabled": False,  # needs a name that the certificate authority can reach
        "why": "challenges of a certificate authority, for whichever load balancer waits for them",
    },
    "vrrp": {
        "tier": "loadbalancers",
        "protocol": "vrrp",
        "clients": ["loadbalancers"],
        "why": "who holds the virtual IPs",
    },
    "peers": {
        "tier": "loadbalancers",
        "port": 10000,
        "clients": ["loadbalancers"],
        "why": "stick tables that every load balancer knows",
    },
    "haproxy_status": {
        "tier": "loadbalancers",
        "port": 8404,
        "protocol": "http",
        "clients": ["monitoring"],
        "why": "metrics of the load balancers",
    },
    "web": {
        "tier": "webservers",
        "port": 8080,
        "protocol": "http",
        "clients": ["loadbalancers"],
        "why": "pages and static files",
    },
    "app": {
        "tier": "appservers",
        "port": 8000,
        "protocol": "http",
        "clients": ["webservers"],
        "why": "dynamic requests",
    },
    "mysql_write": {
        "tier": "appservers",
        "port": 6446,
        "protocol": "mysql",
        "address": "loopback",
        "why": "the application's way to the database that is writable now",
    },
    "mysql_read": {
        "tier": "appservers",
        "port": 6447,
        "protocol": "mysql",
        "address": "loopback",
        "why": "the application's way to a database that is fresh enough to read",
    },
    "mysql": {
        "tier": "databases",
        "port": 3306,
        "protocol": "mysql",
        "clients": ["appservers", "databases"],
        "encrypted": True,
        "check": "mysql_state",
        "why": "queries and replication",
    },
    "mysql_state": {
        "tier": "databases",
        "port": 9201,
        "protocol": "http",
        "clients": ["appservers", "databases", "monitoring"],
        "why": "which database is writable, and how far the others lag",
    },
}

INTERNET = "internet"
BALANCERS = "loadbalancers"  # the tier that holds the virtual IPs
# Groups that an inventory may leave out, because only the catalogue above names them.
GROUPS = ("loadbalancers", "webservers", "appservers", "databases", "mysql_primary", "mysql_replicas", "monitoring")
PROTOCOLS = ("http", "https", "mysql", "tcp", "udp", "vrrp")
ADDRESSES = ("host", "virtual", "loopback")
LOOPBACK = "127.0.0.1"
# The host variables that build reads.
HOST_VARIABLES = (
    *("webstack_address", "ansible_host", "webstack_weight", "webstack_zone"),
    *("mysql_server_id", "mysql_replication_mode"),
)

DEFAULT_WEIGHT = 100
MAX_WEIGHT = 256  # HAProxy, configuration manual, section 5.2, "weight"
MAX_SERVER_ID = 2**32 - 1  # MySQL reference manual, "server_id"
# pair: a primary with replicas, which an operator replaces. group: members that elect their primary.
REPLICATION_MODES = ("pair", "group")
MAX_GROUP = 9  # members, MySQL reference manual, "Group Replication Limitations"
FIRST_ROUTER_ID = 51
MAX_ROUTER_ID = 255  # RFC 9568, section 5.2.3
# VRRP waits (256 - priority) / 256 of an interval longer before it takes over: high priorities make it quick.
FIRST_PRIORITY = 250

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")  # RFC 1123, section 2.1


def build(
    groups: Mapping[str, Iterable[str]],
    hosts: Mapping[str, Mapping[str, Any]],
    site: Any,
    services: Any = None,
    virtual_ips: Any = None,
) -> dict[str, Any]:
    """Resolve the catalogue of services against an inventory.

    groups:       group name -> its hosts, those of its children included, in the inventory's order
    hosts:        host name -> its variables, of which HOST_VARIABLES are read
    site:         the DNS name of the site
    services:     the user's services, merged over CATALOGUE
    virtual_ips:  addresses with their network's prefix length, such as 192.0.2.10/24

    Returns a dictionary that JSON can carry:

    hosts         {host: {address, weight, zone, groups}}, the hosts of every group that a service names
    groups        {group: [host]}, the groups that a service names
    virtual_ips   [address/prefix length]
    services      {service: {tier, port, protocol, address, clients, encrypted, check, why}}
    flows         [{service, server, address, port, protocol, encrypted, clients, why}], one for each service, server
                  and address; clients are groups, or internet. `host_flows` resolves a host's own to addresses
    backends      {service: [{name, address, port, weight, cookie, check_port}]}; check_port answers for health
    binds         {service: [{address, port, transparent}]}, where the services on virtual IPs and on loopback listen; transparent
                  stands with a virtual IP alone, which the host may not hold
    certificates  [{name, subject_alt_names}], one for the site and one for each server of another encrypted service
    vrrp          {host: [{name, virtual_router_id, priority, source, peers, virtual_ips}]}
    peers         [{name, address, port}], the load balancers that share their stick tables
    replication   {mode: pair or group, primary, replicas, server_ids: {host: id}, state_urls: {host: URL},
                  pool: [server]}; a server is as in backends
    spofs         [{tier, kind: host or zone, name, services, remedy}], what the stack does not survive the loss of
    faults        [{host, variable, value, message, remedy}]; host is null where the fault is no single host's
    """
    faults = _Faults()
    if not (isinstance(site, str) and _DNS_NAME.fullmatch(site)):
        faults.add(None, "webstack_site", site, "This is not a DNS name.", "Write it as www.foobar.com.")
        site = None
    catalogue = _services(services, groups, faults)
    members = _members(catalogue, groups, faults)
    boxes = _hosts(members, hosts, faults)
    vips = _virtual_ips(virtual_ips, catalogue, members, boxes, faults)
    _clashes(catalogue, members, vips, faults)
    backends = _backends(catalogue, members, boxes)
    mode = _replication_mode(members, hosts, faults)
    return {
        "hosts": boxes,
        "groups": members,
        "virtual_ips": vips,
        "services": catalogue,
        "flows": _flows(catalogue, members, boxes, vips),
        "backends": backends,
        "binds": _binds(catalogue, vips),
        "certificates": _certificates(catalogue, members, boxes, site),
        "vrrp": _vrrp(catalogue, members, boxes, vips),
        "peers": [{key: server[key] for key in ("name", "address", "port")} for server in backends.get("peers", ())],
        "replication": _replication(members, hosts, boxes, backends.get("mysql", []), mode, faults),
        "spofs": _spofs(catalogue, members, boxes, mode),
        "faults": list(faults),
    }


def host_flows(topology: Mapping[str, Any], host: str) -> dict[str, list[dict[str, Any]]]:
    """The connections that one host accepts and opens, with the addresses of the other side.

    incoming: [{service, address, port, protocol, encrypted, why, internet, clients: [{name, address}]}]
    outgoing: [{service, address, port, protocol, encrypted, why, server}]

    A connection of a host to itself is no flow: it never leaves the host. The cost is that of the answer, not of the
    whole topology.
    """
    boxes, groups, vips = topology["hosts"], topology["groups"], topology["virtual_ips"]
    own = boxes[host]["groups"] if host in boxes else []
    incoming, outgoing = [], []
    for name, service in topology["services"].items():
        if service["tier"] in own:
            names = dict.fromkeys(client for group in service["clients"] for client in groups.get(group, ()))
            clients = [
                {"name": client, "address": boxes[client]["address"]}
                for client in names
                if client != host and boxes[client]["address"]
            ]
            internet = INTERNET in service["clients"]
            if clients or internet:
                incoming += [
                    dict(_without(flow, "server"), clients=clients, internet=internet)
                    for flow in _service_flows(name, service, [host], boxes, vips)
                ]
        if any(group in own for group in service["clients"]):
            servers = [server for server in groups[service["tier"]] if server != host]
            outgoing += [_without(flow, "clients") for flow in _service_flows(name, service, servers, boxes, vips)]
    return {"incoming": incoming, "outgoing": outgoing}


def fault_lines(topology: Mapping[str, Any]) -> list[str]:
    """Every fault as one line: host: variable = value: message Remedy: remedy"""
    lines = []
    for fault in topology["faults"]:
        host = f"{fault['host']}: " if fault["host"] else ""
        value = json.dumps(fault["value"], ensure_ascii=False)
        line = f"{host}{fault['variable']} = {value}: {fault['message']} Remedy: {fault['remedy']}"
        lines.append(" ".join(line.split()))
    return lines


def table(topology: Mapping[str, Any]) -> str:
    """The topology for the eye: hosts, services, single points of failure and faults, in aligned columns."""
    hosts = [
        (name, box["address"] or "-", str(box["weight"]), box["zone"] or "-", ", ".join(box["groups"]))
        for name, box in topology["hosts"].items()
    ]
    services = [
        (
            name,
            str(service["port"] or "-"),
            service["protocol"] + (", encrypted" if service["encrypted"] else ""),
            service["tier"] + ("" if service["address"] == "host" else " ({})".format(service["address"])),
            ", ".join(service["clients"]) or "-",
            service["why"],
        )
        for name, service in topology["services"].items()
    ]
    spofs = [(spof["kind"], spof["name"], ", ".join(spof["services"]), spof["remedy"]) for spof in topology["spofs"]]
    parts = [
        _columns(("HOST", "ADDRESS", "WEIGHT", "ZONE", "GROUPS"), hosts),
        "VIRTUAL IPS  " + (", ".join(topology["virtual_ips"]) or "none"),
        _columns(("SERVICE", "PORT", "PROTOCOL", "ON", "FROM", "WHY"), services),
        _columns(("ONLY ONE", "NAME", "OFFERS", "REMEDY"), spofs) if spofs else "No single point of failure.",
        "\n".join(["FAULTS", *fault_lines(topology)]) if topology["faults"] else "No faults.",
    ]
    return "\n\n".join(parts) + "\n"


def mermaid(topology: Mapping[str, Any]) -> str:
    """The whiteboard as a Mermaid flowchart: a box for each host, an arrow for each pair of hosts that speak.

    Visitors come to a virtual IP; a dotted arrow leads from it to the load balancers, with their VRRP priorities.
    """
    boxes, groups = topology["hosts"], topology["groups"]
    ids = {name: f"h{number}" for number, name in enumerate(boxes)}
    lines = ["flowchart LR"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for flow in topology["flows"]:
        label = flow["service"] + (" {}".format(flow["port"]) if flow["port"] else "")
        virtual = topology["services"][flow["service"]]["address"] == "virtual" and topology["virtual_ips"]
        target = flow["address"] if virtual else flow["server"]
        for client in dict.fromkeys(name for group in flow["clients"] for name in groups.get(group, [group])):
            labels = arrows.setdefault((client, target), [])
            if client != flow["server"] and label not in labels:
                labels.append(label)
    arrows = {pair: labels for pair, labels in arrows.items() if labels}
    if any(client == INTERNET for client, _target in arrows):
        ids[INTERNET] = INTERNET
        lines.append('    internet(["internet"])')
    for number, vip in enumerate(topology["virtual_ips"]):
        address = vip.split("/")[0]
        ids[address] = f"v{number}"
        lines.append(f'    v{number}{{{{"{vip}"}}}}')
    for name, box in boxes.items():
        text = "<br/>".join([name, box["address"] or "no address", ", ".join(box["groups"])])
        lines.append(f'    {ids[name]}["{text}"]')
    for (client, target), labels in arrows.items():
        lines.append('    {} -->|"{}"| {}'.format(ids[client], ", ".join(labels), ids[target]))
    for name, instances in topology["vrrp"].items():
        for instance in instances:
            vip = instance["virtual_ips"][0].split("/")[0]
            lines.append('    {} -.->|"{}"| {}'.format(ids[vip], instance["priority"], ids[name]))
    return "\n".join(lines) + "\n"


class _Faults(list):  # type: ignore[type-arg]
    def add(self, host: str | None, variable: str, value: Any, message: str, remedy: str) -> None:
        self.append(
            {"host": host, "variable": variable, "value": _plain(value), "message": message, "remedy": remedy},
        )


def _plain(value: Any) -> Any:
    """A value as JSON can carry it and a person can read it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() < 64:
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return str(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be written out"


def _integer(value: Any, low: int, high: int) -> int | None:
    """The integer that YAML, or a template's text, holds, if it lies in the range."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return int(value)
    return None


def _ip(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that other hosts can connect to, written as a literal."""
    if not isinstance(value, str) or "%" in value:
        return None
    try:
        address = ipaddress.ip_address(str.__str__(value))
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_loopback or address.is_multicast else address


_TESTS: dict[str, tuple[Any, str]] = {
    "tier": (lambda v: isinstance(v, str), "Name one inventory group, such as webservers."),
    "port": (lambda v: _integer(v, 1, 65535) is not None, "Give one port from 1 to 65535."),
    "protocol": (lambda v: v in PROTOCOLS, "Choose one of {}.".format(", ".join(PROTOCOLS))),
    "address": (lambda v: v in ADDRESSES, "Choose one of {}.".format(", ".join(ADDRESSES))),
    "clients": (
        lambda v: isinstance(v, (list, tuple)) and all(isinstance(client, str) for client in v),
        "Give a list of inventory groups, such as [appservers], or [internet].",
    ),
    "encrypted": (lambda v: isinstance(v, bool), "Write true or false."),
    "check": (lambda v: v is None or isinstance(v, str), "Name another service of the same tier."),
    "enabled": (lambda v: isinstance(v, bool), "Write true or false."),
    "why": (lambda v: isinstance(v, str), "Say in a few words what the connection is for."),
}


def _services(user: Any, groups: Mapping[str, Any], faults: _Faults) -> dict[str, dict[str, Any]]:
    """The catalogue with the user's services merged over it; a service with a fault is left out."""
    merged = {name: dict(service) for name, service in CATALOGUE.items()}
    if user is not None and not isinstance(user, Mapping):
        faults.add(
            None, "webstack_services", user, "This is not a dictionary.", "Write cache: {tier: caches, port: 6379}."
        )
        user = None
    for name, given in (user or {}).items():
        variable = f"webstack_services.{_plain(name)}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = "The name of a service is made of small letters, digits and underscores."
            faults.add(None, variable, name, message, "Rename it, for example to cache_2.")
        elif not isinstance(given, Mapping):
            remedy = "Write {tier: caches, port: 6379, clients: [appservers]}; {enabled: false} switches a service off."
            faults.add(None, variable, given, "This is not a dictionary.", remedy)
        else:
            merged[str.__str__(name)] = {**merged.get(name, {}), **{_plain(key): value for key, value in given.items()}}
    shipped = set(GROUPS)
    services = {}
    for name, service in merged.items():
        before = len(faults)
        _check_service(name, service, faults)
        if len(faults) > before or not service.get("enabled", True):
            continue
        clients = list(dict.fromkeys(map(str.__str__, service.get("clients", ()))))
        for key, named in [("tier", service["tier"])] + [("clients", client) for client in clients]:
            if named not in groups and named not in shipped and not (key == "clients" and named == INTERNET):
                message = f"The inventory has no group {_plain(named)}."
                remedy = "Add the group to the inventory, or name one that it has."
                faults.add(None, f"webstack_services.{name}.{key}", named, message, remedy)
        if len(faults) == before:
            services[name] = {
                "tier": str.__str__(service["tier"]),
                "port": _integer(service.get("port"), 1, 65535),
                "protocol": str.__str__(service.get("protocol", "tcp")),
                "address": str.__str__(service.get("address", "host")),
                "clients": clients,
                "encrypted": service.get("encrypted", False),
                "check": service.get("check"),
                "why": " ".join(service.get("why", "").split()),
            }
    for name, service in services.items():
        check = service["check"]
        if check is not None and merged.get(check, {}).get("tier") != service["tier"]:
            message = "{} is no service of the tier {}.".format(check, service["tier"])
            faults.add(None, f"webstack_services.{name}.check", check, message, _TESTS["check"][1])
        if check not in services:
            service["check"] = None
    return services


def _check_service(name: str, service: Mapping[str, Any], faults: _Faults) -> None:
    """Judge one service by itself."""
    variable = f"webstack_services.{name}"
    wrong = set()
    for key, value in service.items():
        if key not in _TESTS:
            message = f"A service has no key {key}."
            faults.add(None, variable, key, message, "Choose from {}.".format(", ".join(_TESTS)))
        elif not _TESTS[key][0](value):
            wrong.add(key)
            message = f"The {key} of a service is not written like this."
            faults.add(None, f"{variable}.{key}", value, message, _TESTS[key][1])
    if "tier" not in service:
        message = "The service has no tier."
        faults.add(None, variable + ".tier", None, message, _TESTS["tier"][1])
    vrrp = service.get("protocol") == "vrrp"
    if vrrp and "port" in service:
        message = "VRRP is a protocol without ports."
        faults.add(
            None, variable + ".port", service["port"], message, "Leave the port out, or choose another protocol."
        )
    if not vrrp and "port" not in service:
        faults.add(None, variable + ".port", None, "The service has no port.", _TESTS["port"][1])
    if service.get("address") == "loopback" and service.get("clients") and "clients" not in wrong:
        message = "No other host reaches a loopback address."
        remedy = "Leave clients out, or choose another address than loopback."
        faults.add(None, variable + ".clients", service["clients"], message, remedy)
    if service.get("address") == "virtual" and service.get("tier") != BALANCERS and "tier" not in wrong:
        message = "Only the load balancers hold the virtual IPs."
        remedy = "Put the service on the tier loadbalancers, or choose another address than virtual."
        faults.add(None, variable + ".tier", service.get("tier"), message, remedy)


def _members(
    services: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Iterable[str]], faults: _Faults
) -> dict[str, list[str]]:
    """The groups that the services name, with their hosts."""
    tiers: dict[str, list[str]] = {}
    for name, service in services.items():
        tiers.setdefault(service["tier"], []).append(name)
    clients = [group for service in services.values() for group in service["clients"] if group != INTERNET]
    databases = ["mysql_primary", "mysql_replicas"] if "databases" in tiers else []
    members = {
        group: list(dict.fromkeys(str.__str__(host) for host in groups.get(group, ())))
        for group in dict.fromkeys(list(tiers) + databases + clients)
    }
    for tier, names in tiers.items():
        if not members[tier]:
            message = "The tier is empty, but offers {}.".format(", ".join(names))
            remedy = f"Add a host to the group {tier}, or set enabled: false for these services."
            faults.add(None, f"groups.{tier}", "", message, remedy)
    if databases:
        _check_databases(members, faults)
    return members


def _check_databases(members: Mapping[str, list[str]], faults: _Faults) -> None:
    """The group databases is the primary and its replicas."""
    primaries, replicas, databases = (members[group] for group in ("mysql_primary", "mysql_replicas", "databases"))
    if len(primaries) != 1:
        message = f"A stack has one primary, not {len(primaries)}."
        remedy = "Leave one host in the group mysql_primary, the others belong into mysql_replicas."
        faults.add(None, "groups.mysql_primary", ", ".join(primaries), message, remedy)
    for host in sorted(set(primaries) & set(replicas)):
        message = "A replica on its primary's host is lost together with it."
        faults.add(host, "groups.mysql_replicas", host, message, "Put the replica on another host.")
    named = set(primaries) | set(replicas)
    for host in sorted(set(databases) - named):
        message = "A database is either the primary or a replica."
        faults.add(host, "groups.databases", host, message, "Put the host into mysql_primary or mysql_replicas.")
    for host in sorted(named - set(databases)):
        message = "The host is no member of the group databases."
        faults.add(
            host, "groups.databases", host, message, "Make mysql_primary and mysql_replicas children of databases."
        )


def _hosts(
    members: Mapping[str, list[str]], variables: Mapping[str, Mapping[str, Any]], faults: _Faults
) -> dict[str, dict[str, Any]]:
    """The boxes: each host of the groups, with what its own variables say."""
    boxes: dict[str, dict[str, Any]] = {}
    for group, names in members.items():
        for name in names:
            if name not in boxes:
                boxes[name] = {"address": None, "weight": DEFAULT_WEIGHT, "zone": None, "groups": []}
            boxes[name]["groups"].append(group)
    owners: dict[str, str] = {}
    for name, box in boxes.items():
        given = variables.get(name)
        given = given if isinstance(given, Mapping) else {}

        value = given.get("webstack_address")
        address = _ip(given.get("ansible_host") if value is None else value)
        if address is not None:
            box["address"] = str(address)
            owner = owners.setdefault(box["address"], name)
            if owner != name:
                message = f"{owner} has the same address."
                faults.add(name, "webstack_address", value, message, "Give each host an address of its own.")
        elif value is None:
            message = "The host has no address, and its ansible_host is none either."
            faults.add(name, "webstack_address", None, message, "Set webstack_address: 192.0.2.11, its own address.")
        else:
            message = "This is no address that other hosts can connect to."
            faults.add(name, "webstack_address", value, message, "Write an IPv4 or IPv6 address, such as 192.0.2.11.")

        value = given.get("webstack_weight")
        weight = DEFAULT_WEIGHT if value is None else _integer(value, 1, MAX_WEIGHT)
        if weight is None:
            remedy = f"Give a whole number from 1 to {MAX_WEIGHT}; {DEFAULT_WEIGHT} is the default."
            faults.add(name, "webstack_weight", value, "The weight is out of range.", remedy)
        else:
            box["weight"] = weight

        value = given.get("webstack_zone")
        if value is not None and _ZONE.fullmatch(str(_plain(value))):
            box["zone"] = str(_plain(value))
        elif value is not None:
            faults.add(name, "webstack_zone", value, "This is no name of a zone.", "Write a name, such as rack1.")
    return boxes


def _virtual_ips(
    given: Any,
    services: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, list[str]],
    boxes: Mapping[str, Mapping[str, Any]],
    faults: _Faults,
) -> list[str]:
    """The virtual IPs that the load balancers can hold."""
    variable = "webstack_virtual_ips"
    remedy = "Write addresses with the prefix length of their network, such as [192.0.2.10/24]."
    if given is None:
        return []
    if not isinstance(given, (list, tuple)):
        faults.add(None, variable, given, "This is not a list.", remedy)
        return []
    owners: dict[Any, str] = {}
    for name, box in boxes.items():
        owners.setdefault(box["address"], name)
    holders = [name for name in members.get(BALANCERS, ()) if boxes[name]["address"]]
    vips: dict[Any, str] = {}
    for value in given:
        try:
            interface = ipaddress.ip_interface(str.__str__(value)) if isinstance(value, str) and "/" in value else None
        except ValueError:
            interface = None
        if interface is None or _ip(str(interface.ip)) is None:
            faults.add(None, variable, value, "This is no address with a prefix length.", remedy)
            continue
        network = interface.network
        ends = [network.network_address] + ([network.broadcast_address] if network.version == 4 else [])
        outside = [name for name in holders if ipaddress.ip_address(boxes[name]["address"]) not in network]
        if interface.ip in vips:
            faults.add(None, variable, value, "The address is listed twice.", "List each virtual IP once.")
            continue
        if str(interface.ip) in owners:
            message = "The address is this host's own."
            faults.add(owners[str(interface.ip)], variable, value, message, "Choose an address that no host has.")
        if outside:
            message = "{} has no address in the network {}.".format(", ".join(outside), network)
            hint = "Choose a virtual IP, with its prefix length, in the network of all load balancers."
            faults.add(outside[0], variable, value, message, hint)
        elif network.num_addresses > 2 and interface.ip in ends:
            message = f"The address names the network {network} itself."
            faults.add(None, variable, value, message, "Choose an address between the first and the last.")
        vips[interface.ip] = str(interface)
    if len(vips) > MAX_ROUTER_ID - FIRST_ROUTER_ID + 1:
        most = MAX_ROUTER_ID - FIRST_ROUTER_ID + 1
        faults.add(None, variable, len(vips), "VRRP has no ids for so many.", f"List at most {most}.")
        return list(vips.values())[:most]
    judged = any(fault["variable"].startswith("webstack_services.vrrp") for fault in faults)
    if vips and "vrrp" not in services and not judged:
        message = "Nothing moves a virtual IP, because the service vrrp is switched off."
        faults.add(None, variable, ", ".join(vips.values()), message, "Enable vrrp, or list no virtual IP.")
    return list(vips.values())


def _clashes(
    services: Mapping[str, Mapping[str, Any]], members: Mapping[str, list[str]], vips: list[str], faults: _Faults
) -> None:
    """Two services on one port of one host.

    The host's address, loopback and the virtual IPs are different addresses, so one port can serve on each of them.
    Only a service on virtual IPs of a stack that has none listens on every address, and clashes with all.
    """
    ports: dict[tuple[bool, int], list[str]] = {}
    for name, service in services.items():
        if service["port"]:
            ports.setdefault((service["protocol"] == "udp", service["port"]), []).append(name)
    for (_udp, port), names in ports.items():
        for number, second in enumerate(names):
            for first in names[:number]:
                scopes = {services[first]["address"], services[second]["address"]}
                if len(scopes) == 2 and (vips or "virtual" not in scopes):
                    continue
                there = set(members[services[first]["tier"]])
                shared = [host for host in members[services[second]["tier"]] if host in there]
                if shared:
                    more = f" (and of {len(shared) - 1} more hosts)" if len(shared) > 1 else ""
                    message = f"{first} has this port of the host{more} already."
                    remedy = "Give one of the services another port, or another host."
                    faults.add(shared[0], f"webstack_services.{second}.port", port, message, remedy)


def _service_flows(
    name: str,
    service: Mapping[str, Any],
    servers: Iterable[str],
    boxes: Mapping[str, Mapping[str, Any]],
    vips: list[str],
) -> Iterator[dict[str, Any]]:
    """The flows of one service to some of its servers."""
    if service["protocol"] == "vrrp" and not vips:
        return
    fixed = None
    if service["address"] == "loopback":
        fixed = [LOOPBACK]
    elif service["address"] == "virtual" and vips:
        fixed = [vip.split("/")[0] for vip in vips]
    for server in servers:
        own = boxes[server]["address"]
        for address in fixed or ([own] if own else []):
            yield {
                "service": name,
                "server": server,
                "address": address,
                "port": service["port"],
                "protocol": service["protocol"],
                "encrypted": service["encrypted"],
                "clients": list(service["clients"]),
                "why": service["why"],
            }


def _flows(
    services: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, list[str]],
    boxes: Mapping[str, Mapping[str, Any]],
    vips: list[str],
) -> list[dict[str, Any]]:
    return [
        flow
        for name, service in services.items()
        for flow in _service_flows(name, service, members[service["tier"]], boxes, vips)
    ]


def _backends(
    services: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, list[str]],
    boxes: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """The servers of each service that a load balancer can send connections to."""
    return {
        name: [
            {
                "name": server,
                "address": boxes[server]["address"],
                "port": service["port"],
                "weight": boxes[server]["weight"],
                "cookie": server,
                "check_port": services[service["check"] or name]["port"],
            }
            for server in members[service["tier"]]
            if boxes[server]["address"]
        ]
        for name, service in services.items()
        if service["address"] == "host" and service["protocol"] not in ("udp", "vrrp")
    }


def _binds(services: Mapping[str, Mapping[str, Any]], vips: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Where the services on virtual IPs and on loopback listen; without a virtual IP, on every address."""
    virtual = [{"address": vip.split("/")[0], "transparent": True} for vip in vips]
    addresses = {"virtual": virtual or [{"address": "*"}], "loopback": [{"address": LOOPBACK}]}
    return {
        name: [{**address, "port": service["port"]} for address in addresses[service["address"]]]
        for name, service in services.items()
        if service["address"] in addresses
    }


def _certificates(
    services: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, list[str]],
    boxes: Mapping[str, Mapping[str, Any]],
    site: Any,
) -> list[dict[str, Any]]:
    """Who must prove to be who it is. Clients that come through a proxy verify the name <service>.<site>."""
    names: dict[str, list[str]] = {}
    for name, service in services.items():
        if not (site and service["encrypted"]):
            continue
        if service["address"] == "virtual":
            names.setdefault(_plain(site), [f"DNS:{site}"])
            continue
        for server in members[service["tier"]]:
            own = boxes[server]["address"]
            known = names.setdefault(server, [f"DNS:{server}"] + ([f"IP:{own}"] if own else []))
            known.append(f"DNS:{name}.{site}")
    return [{"name": name, "subject_alt_names": known} for name, known in names.items()]


def _vrrp(
    services: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, list[str]],
    boxes: Mapping[str, Mapping[str, Any]],
    vips: list[str],
) -> dict[str, list[dict[str, Any]]]:
    """One VRRP instance for each virtual IP; the next virtual IP prefers the next load balancer."""
    if "vrrp" not in services or not vips:
        return {}
    balancers = [name for name in members.get(BALANCERS, []) if boxes[name]["address"]]
    step = 10 if len(balancers) <= 25 else 1
    return {
        name: [
            {
                "name": f"vip{number + 1}",
                "virtual_router_id": FIRST_ROUTER_ID + number,
                "priority": max(1, FIRST_PRIORITY - step * ((place - number) % len(balancers))),
                "source": boxes[name]["address"],
                "peers": [boxes[other]["address"] for other in balancers if other != name],
                "virtual_ips": [vip],
            }
            for number, vip in enumerate(vips)
        ]
        for place, name in enumerate(balancers)
    }


def _replication_mode(
    members: Mapping[str, list[str]], variables: Mapping[str, Mapping[str, Any]], faults: _Faults
) -> str:
    """How the databases replicate, which is the same for all of them."""
    variable, names = "mysql_replication_mode", members.get("databases", [])
    modes: dict[str, str] = {}
    for name in names:
        given = variables.get(name)
        value = given.get(variable) if isinstance(given, Mapping) else None
        mode = REPLICATION_MODES[0] if value is None else value
        if mode not in REPLICATION_MODES:
            remedy = "Choose one of {}.".format(", ".join(REPLICATION_MODES))
            faults.add(name, variable, value, "This is no way to replicate.", remedy)
        elif mode not in modes:
            modes[str.__str__(mode)] = name
    if len(modes) > 1:
        first, second = list(modes)[:2]
        message = f"{modes[first]} has {first}, and all databases replicate in the same way."
        faults.add(modes[second], variable, second, message, "Set it once, in the group_vars of databases.")
    mode = next(iter(modes), REPLICATION_MODES[0])
    if mode == "group" and names and (len(names) % 2 == 0 or not 3 <= len(names) <= MAX_GROUP):
        message = f"A group has 3, 5, 7 or {MAX_GROUP} members, of which a majority must be left to write."
        remedy = "Add a host to mysql_replicas or take one out of it; a fourth member survives no more than three do."
        faults.add(None, "groups.databases", ", ".join(names), message, remedy)
    return mode


def _replication(
    members: Mapping[str, list[str]],
    variables: Mapping[str, Mapping[str, Any]],
    boxes: Mapping[str, Mapping[str, Any]],
    servers: list[dict[str, Any]],
    mode: str,
    faults: _Faults,
) -> dict[str, Any]:
    """Who begins as the primary, the server ids, and the pool behind the write port and the read port.

    A server id is made from the host's address, so that no host's id depends on the others: an IPv4 address is
    taken as a number, of an IPv6 address the last 32 bits. The host variable mysql_server_id wins over it.
    """
    primaries = members.get("mysql_primary", [])
    primary = primaries[0] if len(primaries) == 1 else None
    names = list(dict.fromkeys(primaries + members.get("mysql_replicas", [])))
    ids: dict[str, int] = {}
    owners: dict[int, str] = {}
    remedy = f"Give each database a mysql_server_id of its own, from 1 to {MAX_SERVER_ID}."
    for name in names:
        given = variables.get(name)
        own = given.get("mysql_server_id") if isinstance(given, Mapping) else None
        address = boxes[name]["address"]
        value = int(ipaddress.ip_address(address)) & MAX_SERVER_ID if own is None and address else own
        server_id = _integer(value, 1, MAX_SERVER_ID)
        if server_id is None:
            if value is not None:
                faults.add(name, "mysql_server_id", value, "This is no server id.", remedy)
            continue
        ids[name] = server_id
        owner = owners.setdefault(server_id, name)
        if owner != name and (own is not None or boxes[owner]["address"] != address):
            faults.add(name, "mysql_server_id", server_id, f"{owner} has the same server id.", remedy)
    by_name = {server["name"]: server for server in servers}
    pool = [by_name[name] for name in names if name in by_name]
    return {
        "mode": mode,
        "primary": primary,
        "replicas": list(members.get("mysql_replicas", [])),
        "server_ids": ids,
        "state_urls": {server["name"]: _url(server["address"], server["check_port"]) for server in pool},
        "pool": pool,
    }


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _spofs(
    services: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, list[str]],
    boxes: Mapping[str, Mapping[str, Any]],
    mode: str,
) -> list[dict[str, Any]]:
    """The hosts that are alone in their tier, and the zones that hold a whole tier while the stack has other zones.

    Of a replication group, which needs a majority to write, a zone may not hold half.
    """
    tiers: dict[str, list[str]] = {}
    for name, service in services.items():
        tiers.setdefault(service["tier"], []).append(name)
    zoned = len({box["zone"] for box in boxes.values()} - {None}) > 1
    spofs = []
    for tier, names in tiers.items():
        places = [boxes[host]["zone"] for host in members[tier]]
        zones = [zone for zone in dict.fromkeys(places) if zone is not None]
        largest = max(zones, key=places.count, default=None)
        held = places.count(largest)
        if len(members[tier]) == 1:
            kind, name, remedy = "host", members[tier][0], f"Add a second host to the group {tier}."
        elif zoned and zones and held == len(places):
            kind, name, remedy = "zone", largest, f"Put a host of the group {tier} into another zone."
        elif zoned and zones and tier == "databases" and mode == "group" and 2 * held >= len(places):
            kind, name, remedy = "zone", largest, "Spread the databases so that no zone holds half of them."
        else:
            continue
        spofs.append({"tier": tier, "kind": kind, "name": name, "services": names, "remedy": remedy})
    return spofs


def _without(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


def _columns(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
