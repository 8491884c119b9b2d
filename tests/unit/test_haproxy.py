"""What the variables of the role haproxy must satisfy together, and what a fault says."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy import faults
from hypothesis import given
from hypothesis import strategies as st

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
KEY = "-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n"
METRICS = {"address": "127.0.0.1", "port": 8404}


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


def found(frontends=(), backends=(), certificates=(), peers=(), peer_name="", metrics=METRICS):
    return faults(list(frontends), list(backends), list(certificates), list(peers), peer_name, metrics)


TLS = [{"port": 80}, {"port": 443, "tls": True}]


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="nothing"),
        pytest.param(
            {
                "frontends": [
                    frontend(bind=TLS, redirect_https=True),
                    frontend(name="database", mode="tcp", bind=[{"port": 6446}], default_backend="mysql"),
                ],
                "backends": [
                    backend(
                        server(), server(name="web2"), cookie={"name": "SERVER"}, stick={"on": "header", "name": "X"}
                    ),
                    backend(server(port=3306, check_port=9201, weight=0), name="mysql", mode="tcp", stick={}),
                ],
                "certificates": [certificate(), certificate(name="old", private_key=KEY.replace("PRI", "RSA PRI"))],
                "peers": [peer(), peer(name="lb2", address="192.0.2.12")],
                "peer_name": "lb2",
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
            "haproxy_certificates[site].certificate is no PEM text, it begins with '/etc/ssl/site.pem' and ends with "
            "'/etc/ssl/site.pem': give the certificate and its chain themselves, from '-----BEGIN CERTIFICATE-----' to "
            "'-----END CERTIFICATE-----'",
        ),
        (
            {"certificates": [certificate(certificate=KEY)]},
            "haproxy_certificates[site].certificate is no PEM text, it holds a private key: give the certificate and its chain "
            "themselves, from '-----BEGIN CERTIFICATE-----' to '-----END CERTIFICATE-----'",
        ),
        (
            {"certificates": [certificate(private_key="sesame")]},
            "haproxy_certificates[site].private_key is no PEM text (it is not shown): give the key itself, from "
            "'-----BEGIN PRIVATE KEY-----' to '-----END PRIVATE KEY-----'",
        ),
        (
            {"peers": [peer(), peer(name="lb2")], "peer_name": "lb3"},
            "haproxy_peer_name is 'lb3', which is none of haproxy_peers: name this host's own (lb1, lb2)",
        ),
    ],
)
def test_a_fault_says_variable_value_and_right_form(variables, fault):
    assert found(**variables) == [fault]


def test_all_faults_are_found_at_once():
    assert len(found(**pair({"bind": TLS}, server(port=0), server(name="web 2", weight=-1)))) == 4


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_no_fault_quotes_a_private_key(text, key):
    secret = f"0mySecret0{key}"
    for variables in ({"private_key": secret}, {"certificate": f"-----BEGIN PRIVATE KEY-----\n{secret}\n{text}"}):
        assert "0mySecret0" not in "".join(found(certificates=[certificate(**variables)]))
