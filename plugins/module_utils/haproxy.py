# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What the variables of the role haproxy must satisfy together, beyond the type of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.foobar.webstack.plugins.module_utils.certificates import faults as certificate_faults
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_routes import (
    chain,
    page_faults,
    route_faults,
    target_faults,
)
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_values import NAME, TEXT, TIME, items, regex_fault
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_values import listed as _listed
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_values import network as _network
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_values import true as _true

# Names of the role's own sections
RESERVED = ("metrics", "peers")
PEERS_PORT = 1024
CERTIFICATES = "/etc/haproxy/certs"

# The settings with a smallest and a largest value. HTTP/2 needs the buffer; the rest is what HAProxy takes.
RANGES = {
    "hsts_max_age": (0, 2**31 - 1),
    "request_limit": (0, 2**31 - 1),
    "request_period": (1, 86400),
    "connection_limit": (0, 2**30),
    "max_body_size": (0, 2**53),
    "max_headers": (1, 32767),
    "buffer_size": (16384, 2**24),
}
PRELOAD_MAX_AGE = 31536000  # https://hstspreload.org/#submission-requirements
# Settings that a frontend may have for itself, of mode http alone
HTTP_ONLY = (
    "hsts_max_age",
    "hsts_include_subdomains",
    "hsts_preload",
    "request_limit",
    "request_period",
    "connection_limit",
    "exempt_networks",
    "request_timeout",
    "max_body_size",
    "methods",
    "blocked_paths",
    "security_headers",
    "acme_backend",
    "request_headers",
    "response_headers",
    "error_pages",
)
# What a backend may have in mode http alone
HTTP_SERVICE = ("compression", "error_pages")
BALANCE = re.compile(
    r"roundrobin|static-rr|leastconn|first|source|random(\([0-9]+\))?|rdp-cookie(\([A-Za-z0-9._-]+\))?"
    r"|(uri|url_param|hash)( [A-Za-z0-9_.,()/-]+)*|hdr\([A-Za-z0-9._-]+\)( use_domain_only)?"
)
HTTP_BALANCE = re.compile(r"uri|url_param|hdr")
HASHED = re.compile(r"source|uri|url_param|hdr|hash|rdp-cookie")
# The statuses of which HAProxy has a page of its own (Configuration Manual, http-error)
PAGES = (200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 425, 429, 500, 501, 502, 503, 504)


def faults(
    frontends: list[Mapping[str, Any]],
    backends: list[Mapping[str, Any]],
    certificates: list[Mapping[str, Any]],
    certificate_directories: list[str],
    peers: list[Mapping[str, Any]],
    peer_name: str,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> list[str]:
    """Return one sentence for each fault: variable, value given, right form. An empty list is a usable configuration.

    The arguments are the role's variables, which its argument_specs have checked; metrics is {address, port}, settings
    holds the variables that a frontend may have for itself, and others of one value, by their names without haproxy_.
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
        *(fault for backend in backends for fault in _service_faults(backend)),
        *_fallback_faults(backends),
        *(
            fault
            for kind, proxies in (("frontends", frontends), ("backends", backends))
            for proxy in proxies
            for fault in _page_faults(f"haproxy_{kind}[{proxy['name']}].error_pages", proxy)
        ),
        *(fault for certificate in certificates for fault in _certificate_faults(certificate)),
        *_directory_faults(certificate_directories),
        *_peer_faults(peers, peer_name),
        *_setting_faults("haproxy_", settings, settings),
        *_proxy_faults(settings),
        *_region_faults(frontends, settings),
        *(
            fault
            for frontend in frontends
            for fault in _setting_faults(f"haproxy_frontends[{frontend['name']}].", frontend, {**settings, **frontend})
        ),
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
    owners: dict[tuple[str, int, bool], str] = {}
    for where, listener in listeners:
        address, port = listener.get("address", "*"), int(listener.get("port", PEERS_PORT))
        yield from _port_faults(f"{where} has port", port)
        address = "*" if address == "0.0.0.0" else address  # noqa: S104
        owner = owners.setdefault((address, port, _true(listener.get("http3"))), where)
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
    if target is None and not redirect and not frontend.get("config") and not frontend.get("routes"):
        yield f"{where} has no default_backend: name one of haproxy_backends ({_listed(modes)})"
    if target is not None and target not in modes:
        yield f"{where}.default_backend is {target!r}, which is no backend: name one of haproxy_backends ({_listed(modes)})"
    if modes.get(target, mode) != mode:
        yield f"{where} has mode {mode}, but its default_backend {target!r} has mode {modes[target]}: give both the same"
    yield from route_faults(frontend, modes)
    if redirect and mode == "tcp":
        yield f"{where}.redirect_https is true in mode tcp: only mode http can redirect"
    if mode == "tcp":
        for name in HTTP_ONLY:
            if name in frontend:
                yield f"{where}.{name} is {frontend[name]!r} in mode tcp, which sees no requests: leave it out, or use mode http"
    challenge = frontend.get("acme_backend")
    if challenge is not None and mode == "http":
        if modes.get(challenge) != "http":
            http = (name for name, of in modes.items() if of == "http")
            yield f"{where}.acme_backend is {challenge!r}, which is no backend in mode http: name one of haproxy_backends ({_listed(http)})"
        if all(_true(bind.get("tls")) for bind in frontend["bind"]):
            yield f"{where}.acme_backend is {challenge!r}, but no bind is without tls, and authorities ask in plain http: bind port 80 too"
    for index, bind in enumerate(frontend["bind"]):
        for network in items(bind.get("accept_proxy")):
            if not _network(network):
                yield f"{where}.bind[{index}].accept_proxy has {network!r}: give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32"
        if _true(bind.get("http3")):
            if mode == "tcp":
                yield f"{where}.bind[{index}].http3 is true in mode tcp: HTTP/3 needs mode http"
            if not _true(bind.get("tls")):
                yield f"{where}.bind[{index}].http3 is true without tls, which HTTP/3 always has: add tls: true"
            if bind.get("accept_proxy"):
                yield f"{where}.bind[{index}].http3 is true beside accept_proxy: the PROXY protocol is spoken over TCP alone, leave one of them out"
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
    if int(backend.get("retries", 0)) < 0:
        yield f"{where}.retries is {backend['retries']}: use 0 or more"
    again = [event for event in backend.get("retry_on", ()) if event not in ("none", "conn-failure")]
    if tcp and again:
        yield f"{where}.retry_on is {again[0]!r} in mode tcp, which sees no answers: use 'conn-failure' alone, or mode http"
    yield from _tls_faults(f"{where}.tls", backend.get("tls"))
    yield from _name_faults(f"{where}.servers", servers)
    for server in servers:
        server_where = f"{where}.servers[{server['name']}]"
        if not 0 <= int(server.get("weight", 100)) <= 256:
            yield f"{server_where}.weight is {server['weight']}: use 0 to 256"
        yield from _port_faults(f"{server_where}.port is", server["port"])
        yield from _port_faults(f"{server_where}.check_port is", server.get("check_port", 1))
        if int(server.get("maxconn", 1)) < 1:
            yield f"{server_where}.maxconn is {server['maxconn']}: use 1 or more, or leave it out for no limit"
    if servers and not any(int(server.get("weight", 100)) for server in servers):
        yield f"{where}.servers have the weight 0, all of them, so that nobody is served: give one of them 1 or more"
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


def _service_faults(backend: Mapping[str, Any]) -> Iterator[str]:
    """How a backend chooses its servers, lets them begin, tries again and answers."""
    where = f"haproxy_backends[{backend['name']}]"
    mode = backend.get("mode", "http")
    balance = backend.get("balance", "roundrobin")
    check = backend.get("health_check", {})
    if not BALANCE.fullmatch(balance):
        yield (
            f"{where}.balance is {balance!r}: use roundrobin, leastconn, first, source, random, hash and what is hashed, such as "
            "'hash src', and in mode http also uri, 'url_param NAME' and 'hdr(NAME)'"
        )
    elif mode == "tcp" and HTTP_BALANCE.match(balance):
        yield f"{where}.balance is {balance!r} in mode tcp, which sees no requests: use source or 'hash src', or mode http"
    if "hash_type" in backend and not HASHED.match(balance):
        yield f"{where}.hash_type is {backend['hash_type']!r}, but balance {balance!r} hashes nothing: use source or uri, or leave it out"
    for option in ("slow_start", "queue_timeout"):
        if option in backend and not TIME.fullmatch(str(backend[option])):
            yield f"{where}.{option} is {backend[option]!r}: give a time, such as 500ms, 30s or 2m"
    if "slow_start" in backend and check.get("type") == "none":
        yield f"{where}.slow_start is {backend['slow_start']!r} without a health_check, by which a server comes up: give one, or leave it out"
    if mode == "tcp":
        for option in HTTP_SERVICE:
            if option in backend:
                yield f"{where}.{option} is {backend[option]!r} in mode tcp, which sees no requests: leave it out, or use mode http"
    for method in backend.get("retry_methods", ()):
        if not re.fullmatch("[A-Z]+", method):
            yield f"{where}.retry_methods has {method!r}: give a method in capital letters, such as GET"
    if backend.get("retry_methods") == []:
        yield f"{where}.retry_methods is []: give at least one, such as GET, or leave retry_on out"
    types = backend.get("compression", {}).get("types", ["text/html"])
    for content_type in types or [""]:
        if not re.fullmatch(r"[a-z]+/[A-Za-z0-9.+*-]+", content_type):
            yield f"{where}.compression.types has {content_type!r}: give a type of content, such as text/html"
    yield from _check_faults(f"{where}.health_check", check, mode)


def _check_faults(where: str, check: Mapping[str, Any], mode: str) -> Iterator[str]:
    kind, steps = check.get("type", "tcp"), check.get("steps")
    if mode == "http" and kind in ("tls", "send_expect"):
        yield f"{where}.type is {kind!r} in mode http: use 'http' (and tls of the backend, where its servers speak it), or mode tcp"
    if kind == "send_expect" and not steps:
        yield f'{where}.steps is {steps!r}: give what to send and to expect, such as {{send: "PING\\r\\n", expect: "+PONG"}}'
    if kind != "send_expect" and steps:
        yield f"{where}.steps is {steps!r}, but type is {kind!r}: use type: send_expect, or leave it out"
    for index, step in enumerate(steps or ()):
        if not step or {"expect", "expect_regex"} <= set(step):
            yield f"{where}.steps[{index}] is {dict(step)!r}: give send, or one of expect and expect_regex, or both"
        for option in ("send", "expect"):
            if option in step and not (step[option] and TEXT.fullmatch(step[option])):
                yield f"{where}.steps[{index}].{option} is {step[option]!r}: use text, without control characters but for the ends of lines"
        fault = regex_fault(step["expect_regex"]) if "expect_regex" in step else None
        if fault:
            yield f"{where}.steps[{index}].expect_regex is {step['expect_regex']!r}: {fault}: give a regular expression, such as ^220"
    if check.get("host") is not None and not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", check["host"]):
        yield f"{where}.host is {check['host']!r}: give a name, such as www.example.com"
    if not re.fullmatch("/[!-~]*", check.get("path", "/")):
        yield f"{where}.path is {check['path']!r}: give a path that begins with '/', such as /health, encoded"


def _page_faults(where: str, proxy: Mapping[str, Any]) -> Iterator[str]:
    statuses = [int(page.get("status", 503)) for page in proxy.get("error_pages", ())]
    for index, (status, page) in enumerate(zip(statuses, proxy.get("error_pages", ()), strict=True)):
        if status not in PAGES:
            yield f"{where}[{index}].status is {status}, of which HAProxy has no page: use one of {', '.join(map(str, PAGES))}"
        elif status in statuses[:index]:
            yield f"{where}[{index}].status is {status}, as is that of another: give each a status of its own"
        yield from page_faults(f"{where}[{index}]", page)


def _fallback_faults(backends: list[Mapping[str, Any]]) -> Iterator[str]:
    modes = {backend["name"]: backend.get("mode", "http") for backend in backends}
    fallbacks = {backend["name"]: backend["fallback"] for backend in backends if backend.get("fallback")}
    for name, fallback in fallbacks.items():
        what = f"haproxy_backends[{name}].fallback"
        yield from target_faults(what, fallback, modes[name], modes)
        if fallbacks.get(chain(name, fallbacks)[-1]) == name:
            yield f"{what} is {fallback!r}, which leads back to it: name another, or leave it out"


def _tls_faults(where: str, tls: Mapping[str, Any] | None) -> Iterator[str]:
    if tls:
        for fault in certificate_faults(tls["ca"]):
            yield f"{where}.ca: {fault}"
        if not NAME.fullmatch(tls["server_name"]):
            yield f"{where}.server_name is {tls['server_name']!r}: give a DNS name that the servers' certificates hold"


def _certificate_faults(certificate: Mapping[str, Any]) -> Iterator[str]:
    for fault in certificate_faults(
        certificate["certificate"], certificate["private_key"], certificate.get("names", ())
    ):
        yield f"haproxy_certificates[{certificate['name']}]: {fault}"


def _directory_faults(directories: list[str]) -> Iterator[str]:
    for index, path in enumerate(directories):
        where = f"haproxy_certificate_directories[{index}] is {path!r}"
        if not re.fullmatch(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*){2,}", path):
            yield f"{where}: give an absolute path of at least two directories, such as /etc/haproxy/acme"
        elif path in (CERTIFICATES, *directories[:index]):
            yield f"{where}, which is in use: give a directory of its own, such as /etc/haproxy/acme"


def _setting_faults(where: str, given: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the settings given in one place; settings are all that are in force there."""
    for name, (low, high) in RANGES.items():
        if name in given and not low <= int(given[name]) <= high:
            yield f"{where}{name} is {given[name]}: use {low} to {high}"
    for network in given.get("exempt_networks", ()):
        if not _network(network):
            yield f"{where}exempt_networks has {network!r}: give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32"
    for method in given.get("methods", ()):
        if not re.fullmatch("[A-Z]+", method):
            yield f"{where}methods has {method!r}: give a method in capital letters, such as GET"
    for path in given.get("blocked_paths", ()):
        if not re.fullmatch(r"/[A-Za-z0-9._~@+=/-]*", path) or path == "/":
            yield f"{where}blocked_paths has {path!r}: give a part of a path that begins with '/', such as /wp-admin, not encoded"
    for header, value in given.get("security_headers", {}).items():
        if header.lower() == "strict-transport-security":
            yield f"{where}security_headers has {header}: set {where}hsts_max_age instead"
        elif not re.fullmatch("[A-Za-z0-9-]+", header) or not re.fullmatch("[ -~]*", str(value)):
            yield f"{where}security_headers has {header!r}: {value!r}: use a header's name, and a value of printable ASCII in one line"
    preload = _true(settings.get("hsts_preload")) and any(name.startswith("hsts_") for name in given)
    age = int(settings.get("hsts_max_age", 0))
    if preload and not (_true(settings.get("hsts_include_subdomains")) and age >= PRELOAD_MAX_AGE):
        yield (
            f"{where}hsts_preload is true, which the browsers' list takes only with hsts_include_subdomains: true and "
            f"hsts_max_age of {PRELOAD_MAX_AGE} or more (it is {age}): set both"
        )


def _proxy_faults(settings: Mapping[str, Any]) -> Iterator[str]:
    """Whose word about their clients counts, and which."""
    proxies, header = settings.get("trusted_proxies", ()), settings.get("client_header", "")
    for proxy in proxies:
        if not _network(proxy):
            yield f"haproxy_trusted_proxies has {proxy!r}: give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32"
        elif proxy.endswith("/0"):
            yield f"haproxy_trusted_proxies has {proxy!r}, which is everybody: give the networks of the proxies alone"
    if proxies and not header:
        yield "haproxy_client_header is '': name the header in which haproxy_trusted_proxies say who their client is, such as X-Forwarded-For"
    if header and not proxies:
        yield f"haproxy_client_header is {header!r}, but haproxy_trusted_proxies is []: give the networks whose word counts"
    if header and (not re.fullmatch("[A-Za-z0-9-]+", header) or header.lower() == "forwarded"):
        yield f"haproxy_client_header is {header!r}: name a header that holds addresses alone, such as X-Forwarded-For or CF-Connecting-IP"


def _region_faults(frontends: list[Mapping[str, Any]], settings: Mapping[str, Any]) -> Iterator[str]:
    """A region that nobody is in would be a route that nobody takes, and one that no route takes would have 503 alone."""
    regions = settings.get("regions", ())
    for frontend in frontends:
        routes = frontend.get("routes") or ()
        asked = [(index, name) for index, route in enumerate(routes) for name in items(route.get("region"))]
        wrong = [(index, name) for index, name in asked if name not in regions]
        for index, name in wrong:
            if NAME.fullmatch(name):
                yield (
                    f"haproxy_frontends[{frontend['name']}].routes[{index}].region has {name!r}, which is none of haproxy_regions: "
                    f"{_listed(regions)}"
                )
        taken = {name for _index, name in asked}
        if (
            asked
            and not wrong
            and all("region" in route for route in routes)
            and not _answers_without_a_route(frontend)
        ):
            for name in (name for name in regions if name not in taken):
                yield (
                    f"haproxy_frontends[{frontend['name']}].routes take nobody of the region {name!r}, and there is no default_backend: "
                    "name one, or add the region to a route"
                )


def _answers_without_a_route(frontend: Mapping[str, Any]) -> bool:
    """Whether there is an answer for what no route takes. In mode tcp nobody is answered: such a client is sent away, on purpose."""
    redirected = _true(frontend.get("redirect_https")) and not any(_true(bind.get("tls")) for bind in frontend["bind"])
    return bool(
        frontend.get("default_backend") or frontend.get("config") or redirected or frontend.get("mode") == "tcp"
    )


def _peer_faults(peers: list[Mapping[str, Any]], peer_name: str) -> Iterator[str]:
    names = [peer["name"] for peer in peers]
    if peers and peer_name not in names:
        yield f"haproxy_peer_name is {peer_name!r}, which is none of haproxy_peers: name this host's own ({_listed(names)})"


def _port_faults(what: str, port: int | str) -> Iterator[str]:
    if not 1 <= int(port) <= 65535:
        yield f"{what} {port}: use 1 to 65535"
