"""Certificates of a real ACME server, Pebble, as visitors of the two load balancers get them."""

import itertools
import os
import re
import socket
import ssl
import urllib.request
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import testinfra
from cryptography import x509

import lab

converge = partial(lab.converge, "acme", "--skip-tags=haproxy", acme_manage_packages=False)
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
BALANCERS = {"acme-lb1": "172.30.65.11", "acme-lb2": "172.30.65.12"}
PEM = "/etc/haproxy/acme/site.pem"
LINEAGE = "/etc/letsencrypt/live/site"


def on(name):
    return testinfra.get_host(f"docker://{name}")


def served(address, name="www.example.org"):
    """The certificate that a visitor gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, 443), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))


def serials():
    return {name: served(address).serial_number for name, address in BALANCERS.items()}


@contextmanager
def visitors(authority):
    """25 visitors a second at each load balancer meanwhile."""
    options = (authority, "--rate=25", "--seconds=120", "--timeout=5")
    with ExitStack() as stack:
        yield [
            stack.enter_context(lab.Visitors("https://www.example.org/", address, *options))
            for address in BALANCERS.values()
        ]


@pytest.fixture(scope="module")
def authority():
    """The root that Pebble made when it started."""
    context = ssl.create_default_context(cafile=SCRATCH / "tls/ca.crt")
    with urllib.request.urlopen("https://172.30.65.31:15000/roots/0", context=context, timeout=10) as answer:
        path = SCRATCH / "pebble-root.crt"
        path.write_bytes(answer.read())
    return path


@pytest.fixture(params=BALANCERS)
def balancer(request):
    return request.param


def test_a_visitor_can_verify_the_certificate_by_the_acme_server(balancer, authority):
    context = ssl.create_default_context(cafile=authority)
    for name in ("www.example.org", "example.org"):
        with (
            socket.create_connection((BALANCERS[balancer], 443), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            assert connection.version() == "TLSv1.3"


def test_each_load_balancer_has_a_key_and_an_account_of_its_own(authority):
    keys = {served(address).public_key().public_numbers() for address in BALANCERS.values()}
    assert len(keys) == 2
    accounts = {
        on(name).check_output("ls -d /etc/letsencrypt/accounts/*/dir/*").rpartition("/")[2] for name in BALANCERS
    }
    assert len(accounts) == 2


@pytest.mark.parametrize(("asked", "answered"), itertools.product(BALANCERS, repeat=2))
def test_a_challenge_is_answered_by_the_load_balancer_that_waits_whichever_is_asked(asked, answered):
    log = on(asked).check_output("journalctl --output cat --identifier haproxy")
    assert re.search(rf"site acme/{answered} \S+ 200 .* \"GET /.well-known/acme-challenge/", log)


@pytest.fixture
def another_waits():
    """certbot's own server on the first load balancer, waiting for challenges of which it knows none."""
    server = f"from acme.standalone import HTTP01Server; HTTP01Server(('{BALANCERS['acme-lb1']}', 8402), set()).serve_forever()"
    host = on("acme-lb1")
    host.check_output("systemd-run --quiet --collect --unit waiting /usr/bin/python3 -c %s", server)
    lab.wait_until(lambda: host.run("ss --listening --numeric --no-header sport = 8402").stdout)
    yield
    host.check_output("systemctl stop waiting")


def test_a_challenge_passes_by_a_load_balancer_that_waits_for_another(another_waits):
    before = served(BALANCERS["acme-lb2"]).serial_number
    on("acme-lb2").check_output(
        "env REQUESTS_CA_BUNDLE=/etc/letsencrypt/requests/authority.pem certbot renew --force-renewal --no-random-sleep-on-renew"
    )
    assert served(BALANCERS["acme-lb2"]).serial_number != before


def test_nobody_listens_for_challenges_when_there_are_none(balancer):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((BALANCERS[balancer], 8402), timeout=10)


def test_the_key_is_for_root_alone(balancer):
    for path in (PEM, f"{LINEAGE}/privkey.pem"):
        assert on(balancer).check_output(f"stat --dereference --format '%U %a' {path}") == "root 600"
    assert on(balancer).check_output("ls /etc/haproxy | grep -c acme") == "1"


def test_the_timer_will_renew(balancer):
    assert on(balancer).check_output("systemctl is-enabled certbot.timer") == "enabled"
    assert on(balancer).check_output("systemctl is-active certbot.timer") == "active"


def test_a_renewal_by_the_timer_reaches_visitors_without_a_failed_request(authority):
    before = serials()
    with visitors(authority) as seen:
        for name in BALANCERS:
            on(name).check_output("sed -i '1i renew_before_expiry = 9999 days' /etc/letsencrypt/renewal/site.conf")
            on(name).check_output("systemctl start certbot.service")
            on(name).check_output("sed -i 1d /etc/letsencrypt/renewal/site.conf")
    after = serials()
    assert all(after[name] != before[name] for name in BALANCERS)
    for visitor in seen:
        assert visitor.result["requests"] > 50
        assert visitor.result["failed"] == 0, visitor.result


def test_a_certificate_that_is_there_is_not_asked_for_again(balancer):
    before = serials()
    log = on("acme-ca").check_output("journalctl --unit pebble --output cat | wc -l")
    assert on(balancer).check_output("/usr/local/libexec/acme-issue site") == "current"
    assert serials() == before
    assert on("acme-ca").check_output("journalctl --unit pebble --output cat | wc -l") == log


def test_a_refused_challenge_is_an_error_with_its_remedy_and_what_was_served_stays(authority):
    """The next test's runs ask for other domains again."""
    before = serials()
    with visitors(authority) as seen:
        run = converge(acme_domains=["www.example.org", "elsewhere.example.org"])
    assert run.returncode == 2
    said = " ".join(run.stdout.split())
    assert "gave no certificate for www.example.org, elsewhere.example.org" in said
    assert "HAProxy goes on with the certificate that it has" in said
    assert "elsewhere.example.org" in said.split("goes on with")[1].split("Look whether")[0]
    assert serials() == before
    assert {visitor.result["failed"] for visitor in seen} == {0}


def test_other_domains_issue_the_certificate_anew():
    before = serials()
    try:
        run = converge(acme_domains=["example.org"], acme_key_type="ecdsa-384")
        assert run.returncode == 0, run.stdout
        for name, address in BALANCERS.items():
            certificate = served(address, "example.org")
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == ["example.org"]
            assert certificate.public_key().key_size == 384
            assert certificate.serial_number != before[name]
    finally:
        assert converge().returncode == 0


def test_haproxy_keeps_its_certificate_when_it_refuses_the_new_one(balancer):
    host = on(balancer)
    before = served(BALANCERS[balancer]).serial_number
    kept = host.check_output(f"sha256sum {PEM}")
    host.check_output(
        f"mkdir -p /root/site && cp -L {LINEAGE}/*.pem /root/site && openssl ecparam -genkey -name secp384r1 -out /root/site/privkey.pem"
    )
    run = host.run("RENEWED_LINEAGE=/root/site /usr/local/libexec/acme-deploy")
    assert run.rc == 1
    assert "HAProxy refuses /root/site, what it has stays" in run.stderr
    assert host.check_output(f"sha256sum {PEM}") == kept
    assert host.check_output("ls /etc/haproxy | grep -c acme") == "1"
    host.check_output("systemctl reload haproxy")
    assert served(BALANCERS[balancer]).serial_number == before


def test_a_certificate_that_haproxy_was_not_given_is_not_asked_for_again(balancer):
    host = on(balancer)
    before = served(BALANCERS[balancer]).serial_number
    host.check_output(f"rm {PEM} && systemctl reload haproxy")
    assert served(BALANCERS[balancer]).serial_number != before
    assert host.check_output("/usr/local/libexec/acme-issue site") == "deployed"
    assert served(BALANCERS[balancer]).serial_number == before


def test_what_cannot_work_is_refused_before_anything_changes():
    refused = [
        (
            {
                "acme_agree_tos": False,
                "acme_domains": ["*.example.org", "192.0.2.1", "a.org", "a.org"],
                "acme_name": "../site",
                "acme_server": "http://172.30.65.31/dir",
                "acme_email": "admin",
                "acme_port": 0,
                "acme_address": "0.0.0.0; reboot",
                "acme_ca_bundle": "none",
                "acme_certificate_directory": "/etc",
            },
            "acme_agree_tos is false: read the terms of service of http://172.30.65.31/dir",
            "acme_domains: *.example.org is no name that HTTP-01 can prove",
            "acme_domains: 192.0.2.1 is no name that HTTP-01 can prove",
            "a.org, a.org: name each once",
            "acme_name is ../site: use letters",
            "acme_server is http://172.30.65.31/dir: give the https URL",
            "acme_email is admin: give one address",
            "acme_port is 0: a TCP port is 1 to 65535",
            "acme_address is 0.0.0.0; reboot: give an address of this host",
            "acme_ca_bundle: this is no certificate",
            "acme_certificate_directory is /etc: give an absolute path",
        ),
        ({"acme_domains": []}, "acme_domains is empty"),
        ({"acme_key_type": "rsa-2048"}, "value of acme_key_type must be one of"),
    ]
    files = "ls -lR --full-time /etc/letsencrypt /etc/haproxy /usr/local/libexec"
    before = on("acme-lb1").check_output(files)
    lab.assert_refused("acme", refused, "--limit=acme-lb1")
    assert on("acme-lb1").check_output(files) == before


def test_prometheus_learns_when_certificates_end(balancer):
    host = on(balancer)
    host.check_output("systemctl start certificate-expiry.service")
    metrics = dict(
        line.rsplit(" ", 1)
        for line in host.check_output("cat /var/lib/prometheus/node-exporter/webstack_certificates.prom").splitlines()
        if not line.startswith("#")
    )
    end = served(BALANCERS[balancer]).not_valid_after_utc.timestamp()
    name = 'webstack_certificate_not_after_seconds{path="%s"}'
    assert float(metrics[name % PEM]) == end
    assert float(metrics[name % "/etc/haproxy/certs/www.example.org.pem"]) != end
    assert float(metrics[name % "/etc/haproxy/haproxy.cfg"]) == 0
    assert len(metrics) == 3
    assert host.check_output("systemctl is-active certificate-expiry.timer") == "active"
