# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Which backend takes a request or connection: the routes of a frontend as lines of haproxy.cfg, and what is wrong with them.

The first route of which all conditions hold is taken. In mode http it is found once, of the request as the client has sent it, and
kept in txn.route, so that redirects and pages (http-request) and backends (use_backend), which HAProxy reads apart, have one order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_values import (
    LINE,
    NAME,
    TEXT,
    TOKEN,
    formatted,
    items,
    listed,
    network,
    quoted,
    regex_fault,
    true,
)

HTTP_CONDITIONS = (
    "hosts",
    "paths",
    "path_prefixes",
    "path_suffixes",
    "path_regexes",
    "headers",
    "cookies",
    "parameters",
    "methods",
)
TCP_CONDITIONS = ("sni",)
COMMON_CONDITIONS = ("networks", "region")
CONDITIONS = (*HTTP_CONDITIONS, *TCP_CONDITIONS, *COMMON_CONDITIONS)
ACTIONS = ("backend", "split", "redirect", "return")
REDIRECT_CODES = (301, 302, 303, 307, 308)
# A line of the configuration has 64 words at most.
WORDS = 40
MAX_AGE = 30 * 86400

HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
FETCHES = {"headers": "req.fhdr({})", "cookies": "req.cook({})", "parameters": "url_param({}){}"}


# The configuration


def routing(frontend: Mapping[str, Any], backends: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return lines of a frontend's section: proxies come first, then rules, and after all other rules the choices of a backend."""
    fallbacks = {backend["name"]: backend.get("fallback") for backend in backends}
    http = frontend.get("mode", "http") == "http"
    routes = list(enumerate(frontend.get("routes") or (), 1))
    rules = [line for number, route in routes for line in _acls(number, route)]
    choices: list[str] = []
    if http:
        rules = [*_path_rules(frontend), *rules, *_number_rules(frontend), *_header_rules(frontend)]
    else:
        rules = [*_sni_rules(frontend), *rules]
    for number, route in routes:
        condition = f"{{ var(txn.route) -m int {number} }}" if http else " ".join(_names(number, route))
        if http:
            rules += _action_rules(route, condition)
        if "backend" in route:
            choices += _choices(route["backend"], condition, fallbacks)
        for variant in _variants(route):
            choices += _choices(
                variant["name"], f"{condition} {{ var(txn.variant) -m str {variant['name']} }}", fallbacks
            )
    if frontend.get("default_backend"):
        choices += _choices(frontend["default_backend"], None, fallbacks)
    return {"proxies": list(_proxy_rules(frontend)), "rules": rules, "choices": choices}


def _conditions(route: Mapping[str, Any]) -> Iterator[tuple[str, bool, list[tuple[str, list[str]]]]]:
    """Yield each condition's name, whether it is to hold, and what HAProxy looks at, with the patterns of which one suffices."""
    hosts, prefixes = items(route.get("hosts")), items(route.get("path_prefixes"))
    host, path = "req.hdr(host),host_only", "var(txn.path)"
    for name, tests in (
        ("hosts", _name_tests(host, hosts)),
        ("paths", [(f"{path} -m str", items(route.get("paths")))]),
        (
            "path_prefixes",
            [
                (f"{path} -m str", [prefix for prefix in prefixes if not prefix.endswith("/")]),
                (f"{path} -m beg", [prefix.rstrip("/") + "/" for prefix in prefixes]),
            ],
        ),
        ("path_suffixes", [(f"{path} -m end", items(route.get("path_suffixes")))]),
        ("path_regexes", [(f"{path} -m reg", items(route.get("path_regexes")))]),
        ("methods", [("method", items(route.get("methods")))]),
        ("sni", _name_tests("var(txn.sni)", items(route.get("sni")))),
        ("networks", [("src", items(route.get("networks")))]),
        ("region", [("var(txn.region) -m str", items(route.get("region")))]),
    ):
        if name in route:
            yield name, True, tests
    for kind, fetch in FETCHES.items():
        for index, item in enumerate(route.get(kind) or (), 1):
            found = fetch.format(item["name"], ",url_dec(1)" if kind == "parameters" else "")
            test = (f"{found} -m found", [])
            if "value" in item:
                test = (f"{found} -m str", [item["value"]])
            elif "regex" in item:
                test = (f"{found} -m reg", [item["regex"]])
            yield f"{kind}_{index}", true(item.get("present", True)), [test]


def _name_tests(fetch: str, names: list[str]) -> list[tuple[str, list[str]]]:
    return [
        (f"{fetch} -m str -i", [name for name in names if not name.startswith("*.")]),
        (f"{fetch} -m end -i", [name[1:] for name in names if name.startswith("*.")]),
    ]


def _acls(number: int, route: Mapping[str, Any]) -> Iterator[str]:
    for name, _holds, tests in _conditions(route):
        for criterion, patterns in tests:
            if criterion.endswith("-m found"):
                yield f"acl route{number}_{name} {criterion}"
            for start in range(0, len(patterns), WORDS):
                words = " ".join(map(quoted, patterns[start : start + WORDS]))
                yield f"acl route{number}_{name} {criterion} -- {words}"


def _names(number: int, route: Mapping[str, Any]) -> Iterator[str]:
    for name, holds, _tests in _conditions(route):
        yield f"{'' if holds else '!'}route{number}_{name}"


def _path_rules(frontend: Mapping[str, Any]) -> Iterator[str]:
    """A path is compared as the servers read it; one that they may read in two ways is refused."""
    if any(name.startswith("path") for route in frontend.get("routes") or () for name in route):
        yield "http-request set-var(txn.path) path,url_dec,regsub(//+,/,g)"
        yield "http-request deny status 400 unless { var(txn.path) -m found }"
        yield f"http-request deny status 400 if {{ var(txn.path) -m reg {quoted('/[.][.]?(/|$)')} }}"


def _proxy_rules(frontend: Mapping[str, Any]) -> Iterator[str]:
    """Only those who are named may say for whom they speak. What is read here is the address that they speak from."""
    for number, bind in enumerate(frontend["bind"], 1):
        if bind.get("accept_proxy"):
            acl = f"bind{number}_proxies"
            networks = items(bind["accept_proxy"])
            for start in range(0, len(networks), WORDS):
                yield f"acl {acl} src -- {' '.join(map(quoted, networks[start : start + WORDS]))}"
            yield f"tcp-request connection reject if {{ so_id {number} }} !{acl}"


def _sni_rules(frontend: Mapping[str, Any]) -> Iterator[str]:
    """The name that a client asks for stands in the first bytes that it sends, unless TLS ends here."""
    if any("sni" in route for route in frontend.get("routes") or ()):
        yield "tcp-request inspect-delay 5s"
        if any(true(bind.get("tls")) for bind in frontend["bind"]):
            yield "tcp-request content set-var(txn.sni) ssl_fc_sni if { ssl_fc }"
        yield "tcp-request content set-var(txn.sni) req.ssl_sni if !{ ssl_fc } { req.ssl_hello_type 1 }"


def _number_rules(frontend: Mapping[str, Any]) -> Iterator[str]:
    routes = frontend.get("routes") or ()
    if routes and frontend.get("acme_backend"):
        yield "http-request set-var(txn.route) int(0) if { path_beg /.well-known/acme-challenge/ } !{ ssl_fc }"
    for number, route in enumerate(routes, 1):
        conditions = " ".join(["!{ var(txn.route) -m found }", *_names(number, route)])
        yield f"http-request set-var(txn.route) int({number}) if {conditions}"


def _header_rules(given: Mapping[str, Any], condition: str = "") -> Iterator[str]:
    """Change headers of requests, and of all responses, HAProxy's own among them."""
    suffix = f" if {condition}" if condition else ""
    for option, action in (("request_headers", "http-request"), ("response_headers", "http-after-response")):
        headers = given.get(option) or {}
        for name in items(headers.get("remove")):
            yield f"{action} del-header {name}{suffix}"
        for verb in ("set", "add"):
            for name, value in (headers.get(verb) or {}).items():
                yield f"{action} {verb}-header {name} {formatted(value)}{suffix}"


def _rewrite_rule(rewrite: Mapping[str, Any], condition: str) -> str:
    """Put another prefix before what follows the old one, whole directories both. What follows stays as the client has sent it."""
    old, new = _as_sent(rewrite["from"].rstrip("/")), rewrite["to"].rstrip("/")
    slash = _as_sent("/")
    pattern, rest = (f"^{old}({slash}.*)?$", r"\1") if new else (f"^{old}(?:{slash}(.*))?$", r"/\1")
    return f"http-request replace-path {quoted(pattern)} {formatted(new + rest)} if {condition}"


def _as_sent(path: str) -> str:
    """A regular expression of all that a client may send for a path: routes compare it decoded, and // as /, but rewrite it as it came."""
    return "".join(map(_octet_as_sent, unquote_to_bytes(path)))


def _octet_as_sent(octet: int) -> str:
    """An octet of a path, itself or encoded, in capital letters or not (RFC 3986, section 2.1)."""
    encoded = f"%(?i:{octet:02x})"
    if not 0x21 <= octet <= 0x7E:
        return encoded
    return f"(?:{re.escape(chr(octet))}|{encoded})" + ("+" if octet == ord("/") else "")


def _variants(route: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The backends of a split that take anything; the weight 0 takes its clients from one."""
    return [variant for variant in route.get("split", {}).get("backends", ()) if int(variant.get("weight", 1))]


def _split_rules(route: Mapping[str, Any], condition: str) -> Iterator[str]:
    """A client's cookie names its backend. One without, or of a backend that takes nothing any longer, is drawn for."""
    variants, cookie = _variants(route), route["split"].get("cookie", "variant")
    names = " ".join(quoted(variant["name"]) for variant in variants)
    open_yet = "!{ var(txn.variant) -m found }"
    yield f"http-request set-var(txn.variant) req.cook({cookie}) if {condition} {{ req.cook({cookie}) -m str -- {names} }}"
    total = sum(int(variant.get("weight", 1)) for variant in variants)
    yield f"http-request set-var(txn.draw) rand({total}) if {condition} {open_yet}"
    limit = 0
    for variant in variants:
        limit += int(variant.get("weight", 1))
        yield f"http-request set-var(txn.variant) str({variant['name']}) if {condition} {open_yet} {{ var(txn.draw) -m int lt {limit} }}"
    age = int(route["split"].get("max_age", MAX_AGE))
    for secure, over in (("; Secure", "{ ssl_fc }"), ("", "!{ ssl_fc }")):
        value = f'"{cookie}=%[var(txn.variant)]; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"'
        yield f"http-response add-header Set-Cookie {value} if {condition} {{ var(txn.draw) -m found }} {over}"


def _action_rules(route: Mapping[str, Any], condition: str) -> Iterator[str]:
    yield from _header_rules(route, condition)
    if "rewrite_prefix" in route:
        yield _rewrite_rule(route["rewrite_prefix"], condition)
    if "split" in route:
        yield from _split_rules(route, condition)
    if "redirect" in route:
        redirect = route["redirect"]
        (kind,) = (kind for kind in ("location", "prefix", "scheme") if kind in redirect)
        code = int(redirect.get("code", 302))
        yield f"http-request redirect {kind} {formatted(redirect[kind])} code {code} if {condition}"
    if "return" in route:
        yield f"http-request return {page(route['return'])} if {condition}"


def page(answer: Mapping[str, Any]) -> str:
    """The words of an answer that HAProxy gives itself: {status, content_type, text}."""
    words = f"status {int(answer.get('status', 503))}"
    if answer.get("text"):
        content_type = answer.get("content_type", "text/plain; charset=utf-8")
        words += f" content-type {quoted(content_type)} string {quoted(answer['text'])}"
    return words


def _choices(name: str, condition: str | None, fallbacks: Mapping[str, str | None]) -> Iterator[str]:
    """Use a backend, and where it has no usable server its fallback, and so on; without a condition for all that is left."""
    names = chain(name, fallbacks)
    for this in names[:-1]:
        yield f"use_backend {this} if {condition + ' ' if condition else ''}{{ nbsrv({this}) gt 0 }}"
    if condition is None:
        yield f"default_backend {names[-1]}"
    else:
        yield f"use_backend {names[-1]}{' if ' + condition if condition else ''}"


def chain(name: str, fallbacks: Mapping[str, str | None]) -> list[str]:
    """A backend, its fallback, the fallback of that, as far as they go; one that has come already ends it."""
    names = [name]
    while (following := fallbacks.get(names[-1])) and following not in names:
        names.append(following)
    return names


# What is wrong with them


def route_faults(frontend: Mapping[str, Any], modes: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the routes of a frontend; modes holds those of all backends by their names."""
    everything: str | None = None
    seen: dict[str, int] = {}
    cookies: dict[str, tuple[int, list[str]]] = {}
    yield from header_faults(f"haproxy_frontends[{frontend['name']}]", frontend)
    for index, route in enumerate(frontend.get("routes") or ()):
        where = f"haproxy_frontends[{frontend['name']}].routes[{index}]"
        conditions = {name: route[name] for name in CONDITIONS if name in route}
        first = seen.setdefault(repr(sorted(conditions.items())), index)
        if everything:
            yield f"{where} is never reached, since {everything} has no conditions and takes everything: put that one last"
        elif first != index:
            yield f"{where} is never reached, since routes[{first}] has the same conditions: leave one of them out"
        if not conditions:
            everything = everything or f"routes[{index}]"
        yield from _condition_faults(where, conditions, frontend.get("mode", "http"))
        yield from _action_faults(where, route, frontend.get("mode", "http"), modes)
        yield from header_faults(where, route)
        if "split" in route:
            cookie = route["split"].get("cookie", "variant")
            names = sorted(variant["name"] for variant in route["split"].get("backends", ()))
            first, others = cookies.setdefault(cookie, (index, names))
            if others != names:
                yield f"{where}.split.cookie is {cookie!r}, as in routes[{first}], which has other backends: give each a cookie of its own"


def _condition_faults(where: str, conditions: Mapping[str, Any], mode: str) -> Iterator[str]:
    for name, value in conditions.items():
        what = f"{where}.{name}"
        if mode == "tcp" and name in HTTP_CONDITIONS:
            yield f"{what} is {value!r} in mode tcp, which sees no requests: use sni, networks or region, or mode http"
            continue
        if mode == "http" and name in TCP_CONDITIONS:
            yield f"{what} is {value!r} in mode http, which ends TLS: use hosts, or mode tcp, which passes TLS on"
            continue
        if not value:
            yield f"{what} is {value!r}: give at least one, or leave it out"
        if name in FETCHES:
            for index, item in enumerate(value or ()):
                yield from _item_faults(f"{what}[{index}]", item)
            continue
        for entry in items(value):
            right = _right_form(name, entry)
            if right:
                yield f"{what} has {entry!r}: {right}"


def _right_form(name: str, entry: str) -> str | None:
    """What to give instead, or None where the entry of a condition is usable."""
    if name in ("hosts", "sni") and not HOST.fullmatch(entry):
        return "give a name such as www.example.com, or *.example.com for every name below it, without a port"
    if name in ("paths", "path_prefixes") and not (entry.startswith("/") and _decoded_path(entry)):
        return "give a path that begins with '/', such as /shop, not encoded, without '//' and a query"
    if name == "path_suffixes" and not (entry and _decoded_path(entry)):
        return "give the end of a path, such as .php, not encoded, without '//' and a query"
    if name == "path_regexes":
        fault = regex_fault(entry)
        return fault and f"{fault}: give a regular expression, such as ^/user/[0-9]+$"
    if name == "methods" and not re.fullmatch("[A-Z]+", entry):
        return "give a method in capital letters, such as GET"
    if name == "networks" and not network(entry):
        return "give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32"
    if name == "region" and not NAME.fullmatch(entry):
        return "give the name of a region, such as eu"
    return None


def _decoded_path(text: str) -> bool:
    return text.isprintable() and not re.search(r"//|[?#]|%[0-9A-Fa-f]{2}", text)


def _item_faults(where: str, item: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a header, cookie or query parameter: {name, value or regex or present}."""
    if not TOKEN.fullmatch(str(item["name"])):
        yield f"{where}.name is {item['name']!r}: use letters, digits, '.', '_', '~' and '-' only"
    given = [key for key in ("value", "regex", "present") if key in item]
    if len(given) > 1:
        yield f"{where} has {' and '.join(given)}: give one of them"
    if "value" in item and not LINE.fullmatch(str(item["value"])):
        yield f"{where}.value is {item['value']!r}: use printable ASCII in one line"
    if "regex" in item:
        fault = regex_fault(item["regex"])
        if fault:
            yield f"{where}.regex is {item['regex']!r}: {fault}: give a regular expression, such as ^v[0-9]+$"


def _action_faults(where: str, route: Mapping[str, Any], mode: str, modes: Mapping[str, str]) -> Iterator[str]:
    given = [action for action in ACTIONS if action in route]
    if len(given) != 1:
        yield f"{where} has {' and '.join(given) or 'no action'}: give one of {', '.join(ACTIONS)}"
    if mode == "tcp":
        for action in given:
            if action != "backend":
                yield f"{where}.{action} is {route[action]!r} in mode tcp, which gives no answers: use backend, or mode http"
        given = [action for action in given if action == "backend"]
    if "backend" in given:
        yield from target_faults(f"{where}.backend", route["backend"], mode, modes)
    if "split" in given:
        yield from _split_faults(f"{where}.split", route["split"], mode, modes)
    for option in ("request_headers", "rewrite_prefix"):
        if option in route and not {"backend", "split"} & set(route):
            yield f"{where}.{option} is {route[option]!r}, but no server sees the request: leave it out, or use backend or split"
    for option in ("request_headers", "response_headers", "rewrite_prefix"):
        if option in route and mode == "tcp":
            yield f"{where}.{option} is {route[option]!r} in mode tcp, which sees no requests: leave it out, or use mode http"
    if "rewrite_prefix" in route:
        for end, path in route["rewrite_prefix"].items():
            if not re.fullmatch(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", path) or "//" in path:
                yield f"{where}.rewrite_prefix.{end} is {path!r}: give a path that begins with '/', such as /api, encoded"
    if "redirect" in given:
        yield from _redirect_faults(f"{where}.redirect", route["redirect"])
    if "return" in given:
        yield from page_faults(f"{where}.return", route["return"])


def target_faults(what: str, name: str, mode: str, modes: Mapping[str, str]) -> Iterator[str]:
    if name not in modes:
        yield f"{what} is {name!r}, which is no backend: name one of haproxy_backends ({listed(modes)})"
    elif modes[name] != mode:
        yield f"{what} is {name!r}, which has mode {modes[name]}, in mode {mode}: give both the same"


def _split_faults(where: str, split: Mapping[str, Any], mode: str, modes: Mapping[str, str]) -> Iterator[str]:
    variants = split.get("backends", ())
    names = [variant["name"] for variant in variants]
    for index, variant in enumerate(variants):
        yield from target_faults(f"{where}.backends[{index}].name", variant["name"], mode, modes)
        if variant["name"] in names[:index]:
            yield f"{where}.backends[{index}].name is {variant['name']!r}, as is that of another: give it once, with its whole weight"
        if not 0 <= int(variant.get("weight", 1)) <= 1000:
            yield f"{where}.backends[{index}].weight is {variant['weight']}: use 0 to 1000"
    if not any(int(variant.get("weight", 1)) for variant in variants):
        yield f"{where}.backends has no weight above 0: give at least one backend a weight of 1 or more"
    if not TOKEN.fullmatch(split.get("cookie", "variant")):
        yield f"{where}.cookie is {split['cookie']!r}: use letters, digits, '.', '_', '~' and '-' only"
    if int(split.get("max_age", MAX_AGE)) < 1:
        yield f"{where}.max_age is {split['max_age']}: use 1 or more seconds"


def header_faults(where: str, given: Mapping[str, Any]) -> Iterator[str]:
    for option in ("request_headers", "response_headers"):
        headers = given.get(option) or {}
        values = [*(headers.get("set") or {}).items(), *(headers.get("add") or {}).items()]
        removed = items(headers.get("remove"))
        for name in (*dict(values), *removed):
            if not TOKEN.fullmatch(name):
                yield f"{where}.{option} has {name!r}: use a header's name"
        for name, value in values:
            if not (LINE.fullmatch(str(value)) and str(value).strip()):
                yield f"{where}.{option} has {name}: {value!r}: use printable ASCII in one line, or remove: [{name}]"
        for name in headers.get("set") or {}:
            if name.lower() in {other.lower() for other in (*(headers.get("add") or {}), *removed)}:
                yield f"{where}.{option} has {name} twice: give it in one of set, add and remove"


def _redirect_faults(where: str, redirect: Mapping[str, Any]) -> Iterator[str]:
    given = [kind for kind in ("location", "prefix", "scheme") if kind in redirect]
    if len(given) != 1:
        yield f"{where} has {' and '.join(given) or 'no target'}: give one of location, prefix and scheme"
    for kind in ("location", "prefix"):
        if kind in redirect and not re.fullmatch("(/|https?://)[!-~]*", redirect[kind]):
            yield f"{where}.{kind} is {redirect[kind]!r}: give a path or an address, such as https://www.example.com/new, encoded"
    if int(redirect.get("code", 302)) not in REDIRECT_CODES:
        yield f"{where}.code is {redirect['code']}: use one of {', '.join(map(str, REDIRECT_CODES))}"


def page_faults(where: str, answer: Mapping[str, Any]) -> Iterator[str]:
    if not 200 <= int(answer.get("status", 503)) <= 599:
        yield f"{where}.status is {answer['status']}: use 200 to 599"
    if not (LINE.fullmatch(answer.get("content_type", "")) and answer.get("content_type", "-")):
        yield f"{where}.content_type is {answer['content_type']!r}: give one such as 'text/html; charset=utf-8'"
    if not TEXT.fullmatch(answer.get("text", "")):
        yield f"{where}.text is {answer['text']!r}: use lines of text, without control characters"
