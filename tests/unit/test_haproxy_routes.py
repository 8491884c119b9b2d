"""The routes of a frontend: the lines that they become, and what is wrong with them."""

import re
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy import faults
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_routes import routing
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_values import formatted, quoted
from hypothesis import example, given
from hypothesis import strategies as st

ROLE = Path(__file__).resolve().parents[2] / "roles" / "haproxy"
BACKENDS = [{"name": "web"}, {"name": "api"}, {"name": "mysql", "mode": "tcp"}]


def frontend(*routes, **changes):
    return {"name": "www", "bind": [{"port": 80}], "routes": list(routes)} | changes


def found(*routes, backends=BACKENDS, **changes):
    return faults(
        [frontend(*routes, **changes)], backends, [], [], [], "", {"address": "*", "port": 8404}, {"regions": ["eu"]}
    )


def rules(*routes, backends=BACKENDS, **changes):
    return routing(frontend(*routes, **changes), backends)["rules"]


def choices(*routes, backends=BACKENDS, **changes):
    return routing(frontend(*routes, **changes), backends)["choices"]


def unquoted(word):
    """What HAProxy makes of a word in double quotes."""
    escapes = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[1]), word[1:-1])


@given(st.text())
@example("%%")
def test_a_quoted_text_is_one_word_of_one_line_and_comes_out_as_it_went_in(text):
    word = quoted(text)
    assert "\n" not in word
    assert not re.search(r'(?<!\\)(\\\\)*["$]', word[1:-1])
    assert unquoted(word) == text
    assert unquoted(formatted(text)).replace("%%", "%") == text
    assert len(re.findall("%", formatted(text))) == 2 * text.count("%")


@pytest.mark.parametrize(
    ("condition", "acls"),
    [
        (
            {"hosts": ["example.com", "*.example.com"]},
            [
                'hosts req.hdr(host),host_only -m str -i -- "example.com"',
                'hosts req.hdr(host),host_only -m end -i -- ".example.com"',
            ],
        ),
        ({"hosts": "example.com"}, ['hosts req.hdr(host),host_only -m str -i -- "example.com"']),
        ({"paths": ["/a b"]}, ['paths var(txn.path) -m str -- "/a b"']),
        (
            {"path_prefixes": ["/shop", "/img/"]},
            [
                'path_prefixes var(txn.path) -m str -- "/shop"',
                'path_prefixes var(txn.path) -m beg -- "/shop/" "/img/"',
            ],
        ),
        ({"path_prefixes": ["/"]}, ['path_prefixes var(txn.path) -m beg -- "/"']),
        ({"path_suffixes": [".php"]}, ['path_suffixes var(txn.path) -m end -- ".php"']),
        ({"path_regexes": ["^/[0-9]+$"]}, ['path_regexes var(txn.path) -m reg -- "^/[0-9]+\\$"']),
        (
            {"headers": [{"name": "X-A", "value": '"1" %'}, {"name": "X-B"}]},
            ['headers_1 req.fhdr(X-A) -m str -- "\\"1\\" %"', "headers_2 req.fhdr(X-B) -m found"],
        ),
        ({"cookies": [{"name": "a", "regex": "^-i$"}]}, ['cookies_1 req.cook(a) -m reg -- "^-i\\$"']),
        ({"parameters": [{"name": "q", "value": 1}]}, ['parameters_1 url_param(q),url_dec(1) -m str -- "1"']),
        ({"methods": ["PUT", "POST"]}, ['methods method -- "PUT" "POST"']),
        ({"networks": ["10.0.0.0/8", "::1"]}, ['networks src -- "10.0.0.0/8" "::1"']),
        ({"region": ["eu", "us"]}, ['region var(txn.region) -m str -- "eu" "us"']),
    ],
)
def test_a_condition_becomes_an_acl(condition, acls):
    lines = rules({**condition, "backend": "web"})
    assert [line for line in lines if line.startswith("acl ")] == [f"acl route1_{acl}" for acl in acls]
    (chosen,) = (line for line in lines if "set-var(txn.route)" in line)
    names = dict.fromkeys(acl.split()[0] for acl in acls)
    assert chosen.endswith(" ".join(["if !{ var(txn.route) -m found }", *(f"route1_{name}" for name in names)]))


def test_what_must_not_be_there_is_negated():
    assert rules({"cookies": [{"name": "a", "present": "False"}], "backend": "web"}) == [
        "acl route1_cookies_1 req.cook(a) -m found",
        "http-request set-var(txn.route) int(1) if !{ var(txn.route) -m found } !route1_cookies_1",
    ]


def test_a_long_list_becomes_lines_of_fewer_words_than_haproxy_takes():
    lines = rules({"hosts": [f"site{number}.example.com" for number in range(1000)], "backend": "web"})
    assert max(len(line.split()) for line in lines) < 64
    assert sum(line.count("site") for line in lines) == 1000


def test_the_first_route_is_taken_whatever_its_action_is():
    old = {"location": "/new?a=%20", "code": "301"}
    page = {"status": "404", "text": "100%\n"}
    routes = [{"paths": ["/old"], "redirect": old}, {"paths": ["/gone"], "return": page}, {"backend": "api"}]
    assert rules(*routes)[-5:] == [
        "http-request set-var(txn.route) int(1) if !{ var(txn.route) -m found } route1_paths",
        "http-request set-var(txn.route) int(2) if !{ var(txn.route) -m found } route2_paths",
        "http-request set-var(txn.route) int(3) if !{ var(txn.route) -m found }",
        'http-request redirect location "/new?a=%%20" code 301 if { var(txn.route) -m int 1 }',
        'http-request return status 404 content-type "text/plain; charset=utf-8" string "100%\\n" if { var(txn.route) -m int 2 }',
    ]
    assert choices(*routes) == ["use_backend api if { var(txn.route) -m int 3 }"]


def test_a_challenge_of_an_authority_takes_no_route():
    chosen = [line for line in rules({"backend": "web"}, acme_backend="api") if "set-var(txn.route)" in line]
    assert (
        chosen[0] == "http-request set-var(txn.route) int(0) if { path_beg /.well-known/acme-challenge/ } !{ ssl_fc }"
    )


def test_tls_is_passed_on_by_the_name_that_is_asked_for():
    routes = [{"sni": ["a.example.com", "*.b.example.com"], "networks": ["10.0.0.0/8"], "backend": "mysql"}]
    assert rules(*routes, mode="tcp") == [
        "tcp-request inspect-delay 5s",
        "tcp-request content set-var(txn.sni) req.ssl_sni if !{ ssl_fc } { req.ssl_hello_type 1 }",
        'acl route1_sni var(txn.sni) -m str -i -- "a.example.com"',
        'acl route1_sni var(txn.sni) -m end -i -- ".b.example.com"',
        'acl route1_networks src -- "10.0.0.0/8"',
    ]
    assert choices(*routes, mode="tcp", default_backend="mysql") == [
        "use_backend mysql if route1_sni route1_networks",
        "default_backend mysql",
    ]
    ended = rules(*routes, mode="tcp", bind=[{"port": 443, "tls": True}])
    assert "tcp-request content set-var(txn.sni) ssl_fc_sni if { ssl_fc }" in ended


def test_a_backend_without_a_usable_server_leaves_it_to_its_fallback_and_that_to_its_own():
    backends = [{"name": "a", "fallback": "b"}, {"name": "b", "fallback": "c"}, {"name": "c"}]
    condition = "{ var(txn.route) -m int 1 }"
    assert choices({"paths": ["/"], "backend": "b"}, backends=backends, default_backend="a") == [
        f"use_backend b if {condition} {{ nbsrv(b) gt 0 }}",
        f"use_backend c if {condition}",
        "use_backend a if { nbsrv(a) gt 0 }",
        "use_backend b if { nbsrv(b) gt 0 }",
        "default_backend c",
    ]
    assert choices({"backend": "b"}, backends=backends, mode="tcp") == [
        "use_backend b if { nbsrv(b) gt 0 }",
        "use_backend c",
    ]


HALVES = {"backends": [{"name": "web"}, {"name": "api", "weight": "3"}, {"name": "old", "weight": 0}]}


def test_a_split_draws_for_a_client_without_a_cookie_and_gives_it_one():
    lines = rules({"split": HALVES})
    one = "{ var(txn.route) -m int 1 }"
    cookie = '"variant=%[var(txn.variant)]; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax'
    assert lines[1:] == [
        f'http-request set-var(txn.variant) req.cook(variant) if {one} {{ req.cook(variant) -m str -- "web" "api" }}',
        f"http-request set-var(txn.draw) rand(4) if {one} !{{ var(txn.variant) -m found }}",
        f"http-request set-var(txn.variant) str(web) if {one} !{{ var(txn.variant) -m found }} {{ var(txn.draw) -m int lt 1 }}",
        f"http-request set-var(txn.variant) str(api) if {one} !{{ var(txn.variant) -m found }} {{ var(txn.draw) -m int lt 4 }}",
        f'http-response add-header Set-Cookie {cookie}; Secure" if {one} {{ var(txn.draw) -m found }} {{ ssl_fc }}',
        f'http-response add-header Set-Cookie {cookie}" if {one} {{ var(txn.draw) -m found }} !{{ ssl_fc }}',
    ]
    assert choices({"split": HALVES}) == [
        f"use_backend {name} if {one} {{ var(txn.variant) -m str {name} }}" for name in ("web", "api")
    ]


def test_headers_are_changed_for_all_requests_and_then_for_those_of_a_route():
    changes = {"set": {"X-A": "100% $"}, "add": {"X-B": 1}, "remove": ["X-C"]}
    lines = rules({"backend": "web", "request_headers": {"set": {"X-A": "b"}}}, response_headers=changes)
    assert lines[1:] == [
        "http-after-response del-header X-C",
        'http-after-response set-header X-A "100%% \\$"',
        'http-after-response add-header X-B "1"',
        'http-request set-header X-A "b" if { var(txn.route) -m int 1 }',
    ]


@pytest.mark.parametrize(
    ("old", "new", "path", "rewritten"),
    [
        ("/api", "/", "/api/users", "/users"),
        ("/api", "/", "/api", "/"),
        ("/api", "/", "/apis", "/apis"),
        ("/api/", "/v2/", "/api/users/", "/v2/users/"),
        ("/api", "/v2", "/api", "/v2"),
        ("/a.c", "/v2", "/abc/x", "/abc/x"),
        ("/", "/v2", "/x", "/v2/x"),
        ("/", "/v2", "/", "/v2/"),
        # As clients may write it: routes compare the path decoded, and // as /.
        ("/api", "/v2", "/%61p%69/users%2F7", "/v2/users%2F7"),
        ("/api", "/v2", "//api%2fusers", "/v2%2fusers"),
        ("/api", "/v2", "/api%73", "/api%73"),
        ("/api", "/", "//%61pi//users//7", "/users//7"),
        ("/a/b", "/", "/a%2F/b", "/"),
        ("/%C3%A9~", "/e", "/%c3%A9%7E/x", "/e/x"),
    ],
)
def test_a_prefix_is_replaced_by_whole_directories(old, new, path, rewritten):
    (rule,) = (
        line for line in rules({"backend": "web", "rewrite_prefix": {"from": old, "to": new}}) if "replace" in line
    )
    pattern, replacement = (unquoted(word) for word in rule.split()[2:4])
    assert re.sub(pattern, lambda match: replacement.replace(r"\1", match[1] or ""), path) == rewritten


def test_only_named_proxies_speak_for_their_clients():
    bind = [{"port": 80}, {"port": 81, "accept_proxy": ["192.0.2.0/24"]}]
    assert routing(frontend(bind=bind), BACKENDS)["proxies"] == [
        'acl bind2_proxies src -- "192.0.2.0/24"',
        "tcp-request connection reject if { so_id 2 } !bind2_proxies",
    ]


def test_what_can_work_has_no_fault():
    routes = [
        {"hosts": ["example.com", "*.example.com"], "methods": ["GET"], "region": ["eu"], "backend": "web"},
        {"path_regexes": ["^/[[:alpha:]]+$"], "headers": [{"name": "X", "value": 1}], "redirect": {"scheme": "https"}},
        {
            "path_suffixes": ["-old"],
            "cookies": [{"name": "a"}],
            "redirect": {"prefix": "https://a.example", "code": 308},
        },
        {"paths": ["/á b"], "networks": ["::1"], "return": {"status": "200", "text": "über\nzwei"}},
        {"hosts": ["a.example"], "return": {}, "response_headers": {"set": {"Retry-After": 60}, "remove": ["Server"]}},
        {
            "split": {"backends": [{"name": "web", "weight": "0"}, {"name": "api"}], "max_age": "60"},
            "rewrite_prefix": {"from": "/api", "to": "/"},
            "request_headers": {"add": {"X-A": '100% "$"'}},
        },
    ]
    assert found(*routes, request_headers={}, bind=[{"port": 80, "accept_proxy": ["::1"]}]) == []
    assert found({"sni": ["a.example"], "backend": "mysql"}, {"backend": "mysql"}, mode="tcp") == []


WHERE = "haproxy_frontends[www].routes[0]"
NAMED = "give a name such as www.example.com, or *.example.com for every name below it, without a port"
PATH = "give a path that begins with '/', such as /shop, not encoded, without '//' and a query"


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ({"backend": "wbe"}, ".backend is 'wbe', which is no backend: name one of haproxy_backends (web, api, mysql)"),
        ({"backend": "mysql"}, ".backend is 'mysql', which has mode tcp, in mode http: give both the same"),
        ({}, " has no action: give one of backend, split, redirect, return"),
        ({"backend": "web", "return": {}}, " has backend and return: give one of backend, split, redirect, return"),
        ({"hosts": ["a.example:80"], "backend": "web"}, f".hosts has 'a.example:80': {NAMED}"),
        ({"hosts": ["www.*.example"], "backend": "web"}, f".hosts has 'www.*.example': {NAMED}"),
        ({"hosts": [], "backend": "web"}, ".hosts is []: give at least one, or leave it out"),
        ({"paths": ["shop"], "backend": "web"}, f".paths has 'shop': {PATH}"),
        ({"path_prefixes": ["/a?b"], "backend": "web"}, f".path_prefixes has '/a?b': {PATH}"),
        ({"path_prefixes": ["/a%20b"], "backend": "web"}, f".path_prefixes has '/a%20b': {PATH}"),
        ({"path_prefixes": ["/a//b"], "backend": "web"}, f".path_prefixes has '/a//b': {PATH}"),
        (
            {"path_suffixes": [""], "backend": "web"},
            ".path_suffixes has '': give the end of a path, such as .php, not encoded, without '//' and a query",
        ),
        (
            {"path_regexes": ["^/(a"], "backend": "web"},
            ".path_regexes has '^/(a': missing ), unterminated subpattern at position 2: give a regular expression, such as ^/user/[0-9]+$",
        ),
        (
            {"headers": [{"name": "X-A,1)"}], "backend": "web"},
            ".headers[0].name is 'X-A,1)': use letters, digits, '.', '_', '~' and '-' only",
        ),
        (
            {"headers": [{"name": "X", "value": "a\nb"}], "backend": "web"},
            ".headers[0].value is 'a\\nb': use printable ASCII in one line",
        ),
        (
            {"cookies": [{"name": "a", "value": "b", "present": False}], "backend": "web"},
            ".cookies[0] has value and present: give one of them",
        ),
        (
            {"parameters": [{"name": "a", "regex": "+"}], "backend": "web"},
            ".parameters[0].regex is '+': nothing to repeat at position 0: give a regular expression, such as ^v[0-9]+$",
        ),
        ({"methods": ["get"], "backend": "web"}, ".methods has 'get': give a method in capital letters, such as GET"),
        (
            {"networks": ["office"], "backend": "web"},
            ".networks has 'office': give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32",
        ),
        ({"region": ["e u"], "backend": "web"}, ".region has 'e u': give the name of a region, such as eu"),
        (
            {"sni": ["a.example"], "backend": "web"},
            ".sni is ['a.example'] in mode http, which ends TLS: use hosts, or mode tcp, which passes TLS on",
        ),
        ({"redirect": {}}, ".redirect has no target: give one of location, prefix and scheme"),
        (
            {"redirect": {"scheme": "https", "prefix": "/a"}},
            ".redirect has prefix and scheme: give one of location, prefix and scheme",
        ),
        (
            {"redirect": {"location": "www.example.com"}},
            ".redirect.location is 'www.example.com': give a path or an address, such as https://www.example.com/new, encoded",
        ),
        ({"redirect": {"location": "/", "code": 300}}, ".redirect.code is 300: use one of 301, 302, 303, 307, 308"),
        (
            {"split": {"backends": [{"name": "wbe"}]}},
            ".split.backends[0].name is 'wbe', which is no backend: name one of haproxy_backends (web, api, mysql)",
        ),
        (
            {"split": {"backends": [{"name": "web"}, {"name": "web"}]}},
            ".split.backends[1].name is 'web', as is that of another: give it once, with its whole weight",
        ),
        (
            {"split": {"backends": [{"name": "web", "weight": 1001}]}},
            ".split.backends[0].weight is 1001: use 0 to 1000",
        ),
        (
            {"split": {"backends": [{"name": "web", "weight": "0"}]}},
            ".split.backends has no weight above 0: give at least one backend a weight of 1 or more",
        ),
        (
            {"split": {"backends": [{"name": "web"}], "cookie": "a;b"}},
            ".split.cookie is 'a;b': use letters, digits, '.', '_', '~' and '-' only",
        ),
        (
            {"split": {"backends": [{"name": "web"}], "max_age": 0}},
            ".split.max_age is 0: use 1 or more seconds",
        ),
        (
            {"return": {}, "request_headers": {"remove": ["X-A"]}},
            ".request_headers is {'remove': ['X-A']}, but no server sees the request: leave it out, or use backend or split",
        ),
        (
            {"return": {}, "rewrite_prefix": {"from": "/a", "to": "/"}},
            ".rewrite_prefix is {'from': '/a', 'to': '/'}, but no server sees the request: leave it out, or use backend or split",
        ),
        (
            {"backend": "web", "rewrite_prefix": {"from": "/a", "to": "/\\1 b"}},
            ".rewrite_prefix.to is '/\\\\1 b': give a path that begins with '/', such as /api, encoded",
        ),
        (
            {"backend": "web", "request_headers": {"set": {"X A": "1"}}},
            ".request_headers has 'X A': use a header's name",
        ),
        (
            {"backend": "web", "response_headers": {"add": {"X-A": ""}}},
            ".response_headers has X-A: '': use printable ASCII in one line, or remove: [X-A]",
        ),
        (
            {"backend": "web", "response_headers": {"set": {"X-A": "1"}, "remove": ["x-a"]}},
            ".response_headers has X-A twice: give it in one of set, add and remove",
        ),
        ({"return": {"status": 100}}, ".return.status is 100: use 200 to 599"),
        (
            {"return": {"content_type": "a\nb"}},
            ".return.content_type is 'a\\nb': give one such as 'text/html; charset=utf-8'",
        ),
        ({"return": {"text": "\0"}}, ".return.text is '\\x00': use lines of text, without control characters"),
    ],
)
def test_a_fault_says_variable_value_and_right_form(route, fault):
    assert found(route) == [WHERE + fault]


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        (
            {"hosts": ["a.example"], "backend": "mysql"},
            ".hosts is ['a.example'] in mode tcp, which sees no requests: use sni, networks or region, or mode http",
        ),
        ({"sni": ["a b"], "backend": "mysql"}, f".sni has 'a b': {NAMED}"),
        (
            {"return": {"status": 404}},
            ".return is {'status': 404} in mode tcp, which gives no answers: use backend, or mode http",
        ),
        ({"backend": "web"}, ".backend is 'web', which has mode http, in mode tcp: give both the same"),
    ],
)
def test_so_does_a_fault_of_mode_tcp(route, fault):
    assert found(route, mode="tcp") == [WHERE + fault]


@pytest.mark.parametrize(
    ("route", "option"),
    [
        ({"pathes": ["/a"], "backend": "web"}, "pathes"),
        ({"hosts": ["a.example"], "country": "DE", "return": {}}, "country"),
        ({"headers": [{"name": "a", "exact": "b"}], "backend": "web"}, "headers.exact"),
    ],
)
def test_an_unknown_condition_is_refused_by_its_name_and_never_left_out(route, option):
    """Without its only condition, a route would take everything. Ansible checks it before the role's first task."""
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
    validated = ArgumentSpecValidator(specs["options"]).validate({"haproxy_frontends": [frontend(route)]})
    (message,) = validated.error_messages
    assert message.startswith(f"haproxy_frontends.routes.{option}. Supported parameters include: ")


def test_two_splits_with_one_cookie_have_the_same_backends():
    other = {"backends": [{"name": "api"}, {"name": "web"}, {"name": "web2"}]}
    routes = [{"paths": ["/a"], "split": {"backends": [{"name": "web"}, {"name": "api"}]}}, {"split": other}]
    assert found(*routes, backends=[*BACKENDS, {"name": "web2"}]) == [
        "haproxy_frontends[www].routes[1].split.cookie is 'variant', as in routes[0], which has other backends: give each a cookie of its own"
    ]


def test_mode_tcp_changes_no_headers_and_paths():
    changes = {"response_headers": {}, "rewrite_prefix": {"from": "/a", "to": "/b"}}
    assert found({"backend": "mysql", **changes}, mode="tcp") == [
        f"{WHERE}.{name} is {value!r} in mode tcp, which sees no requests: leave it out, or use mode http"
        for name, value in changes.items()
    ]


def test_a_number_and_a_list_of_one_are_texts():
    route = {"hosts": 8, "paths": "/a", "headers": [{"name": 1, "regex": 2}], "backend": "web"}
    bind = [{"port": 80, "accept_proxy": "192.0.2.1"}]
    assert found(route, bind=bind) == []
    assert rules(route)[3:6] == [
        'acl route1_hosts req.hdr(host),host_only -m str -i -- "8"',
        'acl route1_paths var(txn.path) -m str -- "/a"',
        'acl route1_headers_1 req.fhdr(1) -m reg -- "2"',
    ]
    assert routing(frontend(bind=bind), BACKENDS)["proxies"][0] == 'acl bind1_proxies src -- "192.0.2.1"'


def test_a_proxy_is_named_by_address_or_network():
    assert found({"backend": "web"}, bind=[{"port": 80, "accept_proxy": ["proxy"]}]) == [
        "haproxy_frontends[www].bind[0].accept_proxy has 'proxy': give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32",
    ]


def test_a_route_that_is_never_reached_is_refused():
    assert found({"backend": "web"}, {"paths": ["/a"], "backend": "api"}) == [
        "haproxy_frontends[www].routes[1] is never reached, since routes[0] has no conditions and takes everything: put that one last"
    ]
    assert found({"paths": ["/a"], "backend": "web"}, {"paths": ["/a"], "backend": "api"}) == [
        "haproxy_frontends[www].routes[1] is never reached, since routes[0] has the same conditions: leave one of them out"
    ]


@pytest.mark.parametrize(
    ("fallback", "fault"),
    [
        ("wbe", ".fallback is 'wbe', which is no backend: name one of haproxy_backends (web, api, mysql)"),
        ("mysql", ".fallback is 'mysql', which has mode tcp, in mode http: give both the same"),
        ("web", ".fallback is 'web', which leads back to it: name another, or leave it out"),
        ("api", ".fallback is 'api', which leads back to it: name another, or leave it out"),
    ],
)
def test_a_fallback_leads_to_a_backend_of_its_mode_and_not_back(fallback, fault):
    backends = [
        {"name": "web", "fallback": fallback},
        {"name": "api", **({"fallback": "web"} if fallback == "api" else {})},
        BACKENDS[2],
    ]
    assert found(backends=backends, default_backend="web")[0] == f"haproxy_backends[web]{fault}"
