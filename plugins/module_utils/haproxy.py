# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What the variables of the role haproxy must satisfy together, beyond the type of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Names of the role's own sections
RESERVED = ("metrics", "peers")
PEERS_PORT = 1024


def faults(
    frontends: list[Mapping[str, Any]],
    backends: list[Mapping[str, Any]],
    certificates: list[Mapping[str, Any]],
    peers: list[Mapping[str, Any]],
    peer_name: str,
    metrics: Mapping[str, Any],
) -> list[str]:
    """Return one sentence for each fault: variable, value given, right form. An empty list is a usable configuration.

    The arguments are the role's variables, which its argument_specs have checked; metrics is {address, port}.
    A number or a boolean may still be text, as ansible-core 2.18 makes of a template. Private keys are never quoted.
    """
    return [
        *_name_faults("haproxy_frontends", frontends),
        *_name_faults("haproxy_backends", backends),
        *_name_faults("haproxy_certificates", certificates),
        *_name_faults("haproxy_peers", peers),
        *_address_faults(frontends, peers, peer_name, metrics),
        *(fault for frontend in frontends for fault in _frontend_faults(frontend, backends, certificates)),
        *(fault for backend in backends for fault in _backend_faults(backend)),
        *(fault for certificate in certificates for fault in _certificate_faults(certificate)),
        *_peer_faults(peers, peer_name),
    ]


def _name_faults(variable: str, items: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    seen: set[str] = set()
    for index, name in enumerate(item["name"] for item in items):
        where = f"{variable}[{index}].name is {name!r}"
        if not NAME.fullmatch(name):
            yield f"{where}: use letters, digits, '.', '_' and '-' only, and begin with a letter or digit"
        if variable in ("haproxy_frontends", "haproxy_backends") and name in RESERVED:
            yield f"{where}, a name of the role's own: choose another"
        if name in seen:
            yield f"{where}, as is that of another: give each a name of its own"
        seen.add(name)


def _address_faults(
    frontends: list[Mapping[str, Any]], peers: list[Mapping[str, Any]], peer_name: str, metrics: Mapping[str, Any]
) -> Iterator[str]:
    """Two listeners on one address and port would share the connections at random."""
    listeners = [("haproxy_metrics_address and haproxy_metrics_port", metrics)]
    listeners += [(f"haproxy_peers[{peer['name']}]", peer) for peer in peers if peer["name"] == peer_name]
    listeners += [(f"haproxy_frontends[{f['name']}].bind[{i}]", b) for f in frontends for i, b in enumerate(f["bind"])]
    owners: dict[tuple[str, int], str] = {}
    for where, listener in listeners:
        address, port = listener.get("address", "*"), int(listener.get("port", PEERS_PORT))
        yield from _port_faults(f"{where} has port", port)
        address = "*" if address == "0.0.0.0" else address  # noqa: S104
        owner = owners.setdefault((address, port), where)
        if owner != where:
            yield f"{where} is {address}:{port}, which is taken by {owner}: use another address or port"


def _frontend_faults(
    frontend: Mapping[str, Any], backends: list[Mapping[str, Any]], certificates: list[Mapping[str, Any]]
) -> Iterator[str]:
    where = f"haproxy_frontends[{frontend['name']}]"
    mode = frontend.get("mode", "http")
    modes = {backend["name"]: backend.get("mode", "http") for backend in backends}
    target = frontend.get("default_backend")
    redirect = _true(frontend.get("redirect_https"))
    if not frontend["bind"]:
        yield f"{where}.bind is []: give at least one, such as {{port: 80}}"
    if target is None and not redirect and not frontend.get("config"):
        yield f"{where} has no default_backend: name one of haproxy_backends ({_listed(modes)})"
    if target is not None and target not in modes:
        yield f"{where}.default_backend is {target!r}, which is no backend: name one of haproxy_backends ({_listed(modes)})"
    if modes.get(target, mode) != mode:
        yield f"{where} has mode {mode}, but its default_backend {target!r} has mode {modes[target]}: give both the same"
    if redirect and mode == "tcp":
        yield f"{where}.redirect_https is true in mode tcp: only mode http can redirect"
    for index, bind in enumerate(frontend["bind"]):
        if _true(bind.get("tls")) and not certificates:
            yield f"{where}.bind[{index}].tls is true, but haproxy_certificates is []: give at least one certificate"


def _backend_faults(backend: Mapping[str, Any]) -> Iterator[str]:
    where = f"haproxy_backends[{backend['name']}]"
    tcp = backend.get("mode", "http") == "tcp"
    servers = backend.get("servers", [])
    stick = backend.get("stick")
    cookie = backend.get("cookie")
    check = backend.get("health_check", {})
    yield from _port_faults(f"{where}.health_check.port is", check.get("port", 1))
    for option in ("fall", "rise"):
        if int(check.get(option, 1)) < 1:
            yield f"{where}.health_check.{option} is {check[option]}: use 1 or more checks"
    yield from _name_faults(f"{where}.servers", servers)
    for server in servers:
        server_where = f"{where}.servers[{server['name']}]"
        if not 0 <= int(server.get("weight", 100)) <= 256:
            yield f"{server_where}.weight is {server['weight']}: use 0 to 256"
        yield from _port_faults(f"{server_where}.port is", server["port"])
        yield from _port_faults(f"{server_where}.check_port is", server.get("check_port", 1))
    if cookie and tcp:
        yield f"{where}.cookie is {cookie['name']!r} in mode tcp, which sees no cookies: use mode http, or stick: {{on: source}}"
    if cookie:
        values = [server.get("cookie", server["name"]) for server in servers]
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield f"{where}.servers has the cookie {value!r} more than once: give each server a value of its own"
    if stick and stick.get("on", "source") != "source":
        if tcp:
            yield f"{where}.stick.on is {stick['on']!r} in mode tcp, which sees addresses only: use 'source'"
        if not stick.get("name"):
            yield f"{where}.stick.name is missing: name the {stick['on']} that identifies a client"


def _certificate_faults(certificate: Mapping[str, Any]) -> Iterator[str]:
    where = f"haproxy_certificates[{certificate['name']}]"
    text = certificate["certificate"].strip()
    if not re.match(r"-----BEGIN CERTIFICATE-----\s", text) or not text.endswith("-----END CERTIFICATE-----"):
        lines = [line[:40] for line in text.splitlines()] or [""]
        given = (
            "holds a private key" if "PRIVATE KEY" in text else f"begins with {lines[0]!r} and ends with {lines[-1]!r}"
        )
        yield (
            f"{where}.certificate is no PEM text, it {given}: give the certificate and its chain themselves, "
            "from '-----BEGIN CERTIFICATE-----' to '-----END CERTIFICATE-----'"
        )
    if not re.fullmatch(
        r"-----BEGIN ([A-Z]+ )*PRIVATE KEY-----\s.*-----END ([A-Z]+ )*PRIVATE KEY-----",
        certificate["private_key"].strip(),
        re.S,
    ):
        yield (
            f"{where}.private_key is no PEM text (it is not shown): give the key itself, "
            "from '-----BEGIN PRIVATE KEY-----' to '-----END PRIVATE KEY-----'"
        )


def _peer_faults(peers: list[Mapping[str, Any]], peer_name: str) -> Iterator[str]:
    names = [peer["name"] for peer in peers]
    if peers and peer_name not in names:
        yield f"haproxy_peer_name is {peer_name!r}, which is none of haproxy_peers: name this host's own ({_listed(names)})"


def _port_faults(what: str, port: int | str) -> Iterator[str]:
    if not 1 <= int(port) <= 65535:
        yield f"{what} {port}: use 1 to 65535"


def _true(value: bool | str | None) -> bool:
    return str(value).lower() in ("true", "yes", "on", "1", "1.0", "y", "t")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "there are none"
