"""What the variables of the role haproxy must satisfy together, and what a fault says."""

from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy import faults
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st


def issue(days):
    """A certificate that signed itself, ending in so many days, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "www.example.com")])
    end = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, end - timedelta(days=9), end)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.decode(), text.decode()


CERTIFICATE, KEY = issue(days=8)
METRICS = {"address": "127.0.0.1", "port": 8404}
SETTINGS = {"hsts_max_age": 31536000, "hsts_include_subdomains": False, "hsts_preload": False, "request_limit": "2000"}


def frontend(**changes):
    return {"name": "www", "bind": [{"port": 80}], "default_backend": "web"} | changes


def server(**changes):
    return {"name": "web1", "address": "192.0.2.21", "port": 8080} | changes


def backend(*servers, **changes):
    return {"name": "web", "servers": list(servers)} | changes


def certificate(**changes):
    return {"name": "site", "certificate": CERTIFICATE, "private_key": KEY} | changes


def peer(**changes):
    return {"name": "lb1", "address": "192.0.2.11"} | changes


def found(
    frontends=(), backends=(), certificates=(), directories=(), peers=(), peer_name="", metrics=METRICS, **settings
):
    lists = map(list, (frontends, backends, certificates, directories, peers))
    return faults(*lists, peer_name, metrics, SETTINGS | settings)


TLS = [{"port": 80}, {"port": 443, "tls": True}]


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="nothing"),
        pytest.param(
            {
                "frontends": [
                    frontend(
                        bind=TLS,
                        redirect_https=True,
                        acme_backend="web",
                        hsts_preload=True,
                        hsts_include_subdomains=True,
                        exempt_networks=["192.0.2.1", "2001:db8::/32"],
                        methods=[],
                        blocked_paths=["/.", "/wp-admin/"],
                        security_headers={
                            "Content-Security-Policy": "default-src 'self'; img-src \"*\" %41$",
                            "X-Frame-Options": "",
                        },
                    ),
                    frontend(name="database", mode="tcp", bind=[{"port": 6446}], default_backend="mysql"),
                ],
                "backends": [
                    backend(
                        server(), server(name="web2"), cookie={"name": "SERVER"}, stick={"on": "header", "name": "X"}
                    ),
                    backend(
                        server(port=3306, check_port=9201, weight=0),
                        server(name="web2"),
                        name="mysql",
                        mode="tcp",
                        stick={},
                        retries=0,
                        retry_on=["conn-failure"],
                        tls={"ca": CERTIFICATE, "server_name": "mysql.example.com"},
                    ),
                ],
                "certificates": [certificate(), certificate(name="other")],
                "peers": [peer(), peer(name="lb2", address="192.0.2.12")],
                "peer_name": "lb2",
                "directories": ["/etc/haproxy/acme", "/srv/certs.d"],
            },
            id="everything",
        ),
        pytest.param({"frontends": [frontend(default_backend=None, redirect_https=True)]}, id="only a redirect"),
        pytest.param(
            {"frontends": [frontend(default_backend=None, config="use_backend x")]}, id="only lines of the user"
        ),
        pytest.param(
            {
                "frontends": [frontend(bind=[{"address": a, "port": 80} for a in ("*", "::", "192.0.2.10")])],
                "backends": [backend()],
            },
            id="one port of different addresses",
        ),
        pytest.param(
            {
                "frontends": [frontend(bind=[{"port": "443", "tls": "no"}], redirect_https="False", mode="tcp")],
                "backends": [
                    backend(server(port="8080", weight="256", check_port="1"), mode="tcp", health_check={"port": "80"})
                ],
                "metrics": {"address": "*", "port": "8404"},
            },
            id="numbers and booleans as text",
        ),
    ],
)
def test_what_can_work_has_no_fault(variables):
    assert found(**variables) == []


def pair(frontend_changes=None, *servers, certificates=(), **backend_changes):
    """A frontend and the backend that it uses."""
    return {
        "frontends": [frontend(**(frontend_changes or {}))],
        "backends": [backend(*servers, **backend_changes)],
        "certificates": certificates,
    }


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        (
            {"backends": [backend(name="my web")]},
            "haproxy_backends[0].name is 'my web': use letters, digits, '.', '_' and '-' only, and begin with a letter or digit",
        ),
        (
            {"certificates": [certificate(name="../key")]},
            "haproxy_certificates[0].name is '../key': use letters, digits, '.', '_' and '-' only, and begin with a letter or digit",
        ),
        (
            {"backends": [backend(), backend()]},
            "haproxy_backends[1].name is 'web', as is that of another: give each a name of its own",
        ),
        (
            {"backends": [backend(server(), server())]},
            "haproxy_backends[web].servers[1].name is 'web1', as is that of another: give each a name of its own",
        ),
        (
            {"backends": [backend(name="peers")]},
            "haproxy_backends[0].name is 'peers', a name of the role's own: choose another",
        ),
        (pair({"name": "metrics"}), "haproxy_frontends[0].name is 'metrics', a name of the role's own: choose another"),
        (pair({"bind": []}), "haproxy_frontends[www].bind is []: give at least one, such as {port: 80}"),
        (pair({"bind": [{"port": 0}]}), "haproxy_frontends[www].bind[0] has port 0: use 1 to 65535"),
        (
            pair({"bind": [{"address": "0.0.0.0", "port": 80}, {"port": 80}]}),  # noqa: S104
            "haproxy_frontends[www].bind[1] is *:80, which is taken by haproxy_frontends[www].bind[0]: use another address or port",
        ),
        (
            pair({"bind": [{"port": 443, "http3": True}, {"port": 443}]}),
            "haproxy_frontends[www].bind[0].http3 is true without tls, which HTTP/3 always has: add tls: true",
        ),
        (
            pair({"bind": [{"port": 443, "tls": True, "http3": True, "accept_proxy": ["192.0.2.1"]}]})
            | {"certificates": [certificate()]},
            "haproxy_frontends[www].bind[0].http3 is true beside accept_proxy: the PROXY protocol is spoken over TCP alone, leave one of them out",
        ),
        (
            pair({"mode": "tcp", "bind": [{"port": 443, "tls": True, "http3": True}]}, mode="tcp")
            | {"certificates": [certificate()]},
            "haproxy_frontends[www].bind[0].http3 is true in mode tcp: HTTP/3 needs mode http",
        ),
        (
            pair({"bind": [{"port": 443, "tls": True, "http3": True}] * 2}) | {"certificates": [certificate()]},
            "haproxy_frontends[www].bind[1] is *:443, which is taken by haproxy_frontends[www].bind[0]: use another address or port",
        ),
        (
            pair({"bind": [METRICS]}),
            "haproxy_frontends[www].bind[0] is 127.0.0.1:8404, which is taken by haproxy_metrics_address and "
            "haproxy_metrics_port: use another address or port",
        ),
        (
            pair({"bind": [{"address": "192.0.2.11", "port": 1024}]}) | {"peers": [peer()], "peer_name": "lb1"},
            "haproxy_frontends[www].bind[0] is 192.0.2.11:1024, which is taken by haproxy_peers[lb1]: use another address or port",
        ),
        (
            {"metrics": {"address": "*", "port": 84040}},
            "haproxy_metrics_address and haproxy_metrics_port has port 84040: use 1 to 65535",
        ),
        (
            pair({"default_backend": "wbe"}),
            "haproxy_frontends[www].default_backend is 'wbe', which is no backend: name one of haproxy_backends (web)",
        ),
        (
            {"frontends": [frontend(default_backend=None)]},
            "haproxy_frontends[www] has no default_backend: name one of haproxy_backends (there are none)",
        ),
        (
            pair({"mode": "tcp"}),
            "haproxy_frontends[www] has mode tcp, but its default_backend 'web' has mode http: give both the same",
        ),
        (
            pair({"mode": "tcp", "redirect_https": True}, mode="tcp"),
            "haproxy_frontends[www].redirect_https is true in mode tcp: only mode http can redirect",
        ),
        (
            pair({"bind": TLS}),
            "haproxy_frontends[www].bind[1].tls is true, but haproxy_certificates is []: give at least one certificate",
        ),
        (pair(None, server(weight=257)), "haproxy_backends[web].servers[web1].weight is 257: use 0 to 256"),
        (pair(None, server(port=80800)), "haproxy_backends[web].servers[web1].port is 80800: use 1 to 65535"),
        (pair(None, server(check_port=0)), "haproxy_backends[web].servers[web1].check_port is 0: use 1 to 65535"),
        (pair(health_check={"port": -1}), "haproxy_backends[web].health_check.port is -1: use 1 to 65535"),
        (pair(health_check={"rise": 0}), "haproxy_backends[web].health_check.rise is 0: use 1 or more checks"),
        (
            pair({"mode": "tcp"}, mode="tcp", cookie={"name": "SERVER"}),
            "haproxy_backends[web].cookie is 'SERVER' in mode tcp, which sees no cookies: use mode http, or stick: {on: source}",
        ),
        (
            pair(None, server(), server(name="web2", cookie="web1"), cookie={"name": "SERVER"}),
            "haproxy_backends[web].servers has the cookie 'web1' more than once: give each server a value of its own",
        ),
        (
            pair({"mode": "tcp"}, mode="tcp", stick={"on": "header", "name": "X-User"}),
            "haproxy_backends[web].stick.on is 'header' in mode tcp, which sees addresses only: use 'source'",
        ),
        (
            pair(stick={"on": "cookie"}),
            "haproxy_backends[web].stick.name is missing: name the cookie that identifies a client",
        ),
        (
            {"certificates": [certificate(certificate="/etc/ssl/site.pem")]},
            "haproxy_certificates[site]: this is no certificate: give the text that begins with -----BEGIN CERTIFICATE-----",
        ),
        (
            {"certificates": [certificate(private_key=issue(days=8)[1])]},
            "haproxy_certificates[site]: the private key does not belong to the certificate: give the key that it was requested with",
        ),
        (
            {"peers": [peer(), peer(name="lb2")], "peer_name": "lb3"},
            "haproxy_peer_name is 'lb3', which is none of haproxy_peers: name this host's own (lb1, lb2)",
        ),
        (
            pair({"mode": "tcp", "methods": ["GET"]}, mode="tcp"),
            "haproxy_frontends[www].methods is ['GET'] in mode tcp, which sees no requests: leave it out, or use mode http",
        ),
        (
            pair({"acme_backend": "acme"}),
            "haproxy_frontends[www].acme_backend is 'acme', which is no backend in mode http: name one of haproxy_backends (web)",
        ),
        (
            pair({"acme_backend": "web", "bind": [{"port": 443, "tls": True}]}, certificates=[certificate()]),
            "haproxy_frontends[www].acme_backend is 'web', but no bind is without tls, and authorities ask in plain http: bind port 80 too",
        ),
        (pair(retries=-1), "haproxy_backends[web].retries is -1: use 0 or more"),
        (
            pair({"mode": "tcp"}, mode="tcp", retry_on=["conn-failure", "404"]),
            "haproxy_backends[web].retry_on is '404' in mode tcp, which sees no answers: use 'conn-failure' alone, or mode http",
        ),
        (
            pair(tls={"ca": "/etc/ca.pem", "server_name": "web.example.com"}),
            "haproxy_backends[web].tls.ca: this is no certificate: give the text that begins with -----BEGIN CERTIFICATE-----",
        ),
        (
            pair(tls={"ca": CERTIFICATE, "server_name": "web one"}),
            "haproxy_backends[web].tls.server_name is 'web one': give a DNS name that the servers' certificates hold",
        ),
        (
            {"directories": ["acme"]},
            "haproxy_certificate_directories[0] is 'acme': give an absolute path of at least two directories, such as /etc/haproxy/acme",
        ),
        (
            {"directories": ["/etc/haproxy/certs"]},
            "haproxy_certificate_directories[0] is '/etc/haproxy/certs', which is in use: give a directory of its own, such as /etc/haproxy/acme",
        ),
        ({"request_limit": "-1"}, "haproxy_request_limit is -1: use 0 to 2147483647"),
        (pair({"request_period": 0}), "haproxy_frontends[www].request_period is 0: use 1 to 86400"),
        ({"buffer_size": 8192}, "haproxy_buffer_size is 8192: use 16384 to 16777216"),
        (
            {"exempt_networks": ["10.0.0.0/8", "office"]},
            "haproxy_exempt_networks has 'office': give an address or a network, such as 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            pair({"methods": ["get"]}),
            "haproxy_frontends[www].methods has 'get': give a method in capital letters, such as GET",
        ),
        (
            {"blocked_paths": ["wp admin"]},
            "haproxy_blocked_paths has 'wp admin': give a part of a path that begins with '/', such as /wp-admin, not encoded",
        ),
        (
            {"blocked_paths": ["/"]},
            "haproxy_blocked_paths has '/': give a part of a path that begins with '/', such as /wp-admin, not encoded",
        ),
        (
            {"security_headers": {"X-A": "a\r\nSet-Cookie: b"}},
            "haproxy_security_headers has 'X-A': 'a\\r\\nSet-Cookie: b': use a header's name, and a value of printable ASCII in one line",
        ),
        (
            {"security_headers": {"Strict-Transport-Security": "max-age=1"}},
            "haproxy_security_headers has Strict-Transport-Security: set haproxy_hsts_max_age instead",
        ),
        (
            pair({"hsts_preload": True}),
            "haproxy_frontends[www].hsts_preload is true, which the browsers' list takes only with hsts_include_subdomains: true and "
            "hsts_max_age of 31536000 or more (it is 31536000): set both",
        ),
    ],
)
def test_a_fault_says_variable_value_and_right_form(variables, fault):
    assert found(**variables) == [fault]


def test_a_certificate_that_has_ended_is_refused():
    certificate, key = issue(days=-1)
    (fault,) = found(certificates=[{"name": "site", "certificate": certificate, "private_key": key}])
    assert fault.startswith("haproxy_certificates[site]: the certificate ended on ")


def test_all_faults_are_found_at_once():
    assert len(found(**pair({"bind": TLS}, server(port=0), server(name="web 2", weight=-1)))) == 4


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_no_fault_quotes_a_private_key(text, key):
    secret = f"0mySecret0{key}"
    for variables in ({"private_key": secret}, {"certificate": f"-----BEGIN PRIVATE KEY-----\n{secret}\n{text}"}):
        assert "0mySecret0" not in "".join(found(certificates=[certificate(**variables)]))


def test_a_route_asks_for_regions_that_there_are():
    routes = [{"region": ["eu", "mars"], "backend": "web"}]
    given = {"frontends": [frontend(routes=routes)], "backends": [backend(server())]}
    assert found(**given, regions=["eu", "mars"]) == []
    assert found(**given, regions=["eu", "us"]) == [
        "haproxy_frontends[www].routes[0].region has 'mars', which is none of haproxy_regions: eu, us"
    ]


@pytest.mark.parametrize(
    ("routes", "changes", "nobody"),
    [
        ([{"region": ["eu"], "backend": "web"}], {}, ["us", "rest"]),
        ([{"region": ["eu"], "backend": "web"}, {"region": "us", "hosts": ["a.example"], "return": {}}], {}, ["rest"]),
        # Half of what comes to it is answered without a redirect.
        ([{"region": ["eu", "us"], "backend": "web"}], {"bind": TLS, "redirect_https": True}, ["rest"]),
        ([{"region": ["eu"], "backend": "web"}, {"region": ["us", "rest"], "return": {"status": 451}}], {}, []),
        ([{"region": ["eu"], "backend": "web"}, {"return": {"status": 451}}], {}, []),
        # Some of them are taken; who else comes is meant to have no answer.
        ([{"region": ["eu"], "backend": "web"}, {"hosts": ["a.example"], "backend": "web"}], {}, []),
        ([{"hosts": ["a.example"], "backend": "web"}], {}, []),
        ([], {"redirect_https": True}, []),
        ([{"region": ["eu"], "backend": "web"}], {"default_backend": "web"}, []),
        ([{"region": ["eu"], "backend": "web"}], {"config": "use_backend web if { src 192.0.2.1 }"}, []),
        ([{"region": ["eu"], "backend": "web"}], {"redirect_https": "True"}, []),
        ([{"region": ["eu"], "backend": "mysql"}], {"mode": "tcp"}, []),
    ],
)
def test_a_region_of_which_no_route_takes_anybody_needs_a_default_backend(routes, changes, nobody):
    frontends = [frontend(routes=routes, **{"default_backend": None, **changes})]
    backends = [backend(server()), backend(server(), name="mysql", mode="tcp")]
    assert found(
        frontends, backends, regions=["eu", "us", "rest"], certificates=[certificate()] if "bind" in changes else []
    ) == [
        f"haproxy_frontends[www].routes take nobody of the region {name!r}, and there is no default_backend: "
        "name one, or add the region to a route"
        for name in nobody
    ]
