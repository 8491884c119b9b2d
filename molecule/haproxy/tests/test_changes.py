"""What a changed configuration does to load balancers that serve. Each fixture changes it once more, and the last test changes it back."""

import json
import re
import shutil
import socket
import ssl
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
import yaml
from conftest import EU, PROXY, SERVERS, US
from test_haproxy import (
    BOTH,
    LB1,
    LB2,
    LBS,
    SCRATCH,
    SITE,
    VARIABLES,
    applied,
    ask,
    at_home,
    converge,
    database,
    edited,
    files,
    run,
    self_signed,
    served_by,
    served_certificate,
    trust,
    visitors,
    workers,
)
from test_regions import region, seen, through_proxy

import lab
from lab import CHECKOUT, wait_until

INVENTORY = CHECKOUT / "molecule/haproxy/inventory"
REGIONS = yaml.safe_load((INVENTORY / "group_vars/all/regions.yml").read_text())
ROLE = "foobar.webstack.haproxy"
README = CHECKOUT / "roles/haproxy/README.md"
# What the README's examples name, and what there is of it here.
HERE = {
    "192.0.2.": "172.30.57.",
    "name: lb": "name: haproxy-lb",
    "dbip-country-lite-2026-11.csv.gz": "countries.csv",
}
MAP = "/etc/haproxy/maps/regions.map"
PROXYS_HEADER = "CF-Connecting-IP"
REGION_PORT = {
    "name": "region-port",
    "mode": "tcp",
    "bind": [{"port": 6448}],
    "default_backend": "database-read",
    "config": "use_backend database-write if { var(txn.region) -m str rest }",
}
CHOICES = {
    "haproxy_tls_policy": "modern",
    "haproxy_hsts_max_age": 0,
    "haproxy_methods": [],
    "haproxy_blocked_paths": [],
    "haproxy_client_header": PROXYS_HEADER,
    "edge_frontends": [
        *(frontend for frontend in VARIABLES["edge_frontends"] if frontend["name"] != "narrow"),
        REGION_PORT,
    ],
}


@pytest.fixture(scope="module", autouse=True)
def _home_again():
    wait_until(at_home)
    yield
    wait_until(at_home)


@pytest.fixture(scope="module")
def replaced(tmp_path_factory):
    """Another certificate, other servers and no regions, applied while visitors come."""
    certificate, key = self_signed(tmp_path_factory.mktemp("certificate"))
    items = [{"name": name, "certificate": certificate, "private_key": key} for name in (SITE, "former")]
    servers = [{"name": name, "address": "{{ servers_address }}", "port": 8082, "weight": 50} for name in sorted(BOTH)]
    with ExitStack() as stack:
        visits = [stack.enter_context(visitors(lb, url="http://plain.example:8080/")) for lb in LBS]
        output = applied(
            "--diff",
            haproxy_certificates=items,
            # Without regions no route may ask for one, as the README's example does.
            haproxy_frontends=VARIABLES["edge_frontends"],
            **edited("edge_backends", "web", servers=servers),
            **{name: type(value)() for name, value in REGIONS.items()},
        )
    return SimpleNamespace(certificate=certificate, key=key, output=output, visits=[visit.result for visit in visits])


@pytest.fixture(scope="module")
def chosen(replaced):
    """The certificate, the servers and the regions as they were, and all that a user may choose instead of the defaults."""
    # What others have put beside the certificates stays.
    run(LB1, "touch /etc/haproxy/certs/theirs")
    yield replaced.output + applied("--diff", **CHOICES)
    run(LB1, "rm /etc/haproxy/certs/theirs")


# Refusals


def test_what_cannot_work_is_refused_and_the_old_configuration_serves(tmp_path):
    _, other_key = self_signed(tmp_path)
    certificate = "{{ lookup('file', scratch ~ '/site.crt') }}"
    with_other_key = {"name": SITE, "certificate": certificate, "private_key": other_key}
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("192.0.2.0/24,eu\n192.0.2.300,us\n")
    refused = [
        ({"haproxy_global_config": "no-such-keyword"}, "unknown keyword 'no-such-keyword'"),
        (
            edited("edge_frontends", "www", config="use_backend nowhere if { path /x }"),
            "unable to find required use_backend: 'nowhere'",
        ),
        ({"haproxy_certificates": [with_other_key]}, "the private key does not belong to the certificate"),
        (edited("edge_backends", "web", colour="red"), "colour"),
        (
            edited("edge_frontends", "plain", routes=[{"pathes": ["/account"], "backend": "web"}]),
            "haproxy_frontends.routes.pathes. Supported parameters include: backend, cookies, ",
        ),
        (
            edited(
                "edge_frontends", "plain", routes=[{"region": ["eu", "us"], "backend": "web"}], default_backend=None
            ),
            "haproxy_frontends[plain].routes take nobody of the region 'rest', and there is no default_backend",
        ),
        # Two contradictions at once
        (
            edited("edge_frontends", "www", default_backend="wbe") | {"haproxy_peer_name": "lb9"},
            "haproxy_frontends[www].default_backend is 'wbe', which is no backend",
            "haproxy_peer_name is 'lb9'",
        ),
        ({"haproxy_region_tables": [str(wrong)]}, f"{wrong}, line 2 is '192.0.2.300,us': give a network"),
    ]
    before = {lb: (files(lb), workers(lb)) for lb in LBS}
    lab.assert_refused("haproxy", refused)
    # A map that HAProxy itself refuses
    arguments = json.dumps({"path": MAP, "content": f"{EU} us\n192.0.2.300 us\n"})
    done = lab.run(
        "ansible",
        f"--inventory={INVENTORY}",
        "loadbalancers",
        "--module-name=foobar.webstack.haproxy_map",
        f"--args={arguments}",
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.count("FAILED!") == len(LBS)
    assert "HAProxy refused the map" in done.stdout
    assert {lb: (files(lb), workers(lb)) for lb in LBS} == before
    assert [region(lb, EU) for lb in LBS] == ["eu", "eu"]
    assert at_home()


# The README


def test_haproxy_serves_with_each_example_of_the_readme_and_has_nothing_to_warn_of(tmp_path):
    """Each is applied alone, out of a directory with the files that it reads; what it does not say is as the scenario has it."""
    text = README.read_text()
    for theirs, ours in HERE.items():
        text = text.replace(theirs, ours)
    examples = map(yaml.safe_load, re.findall(r"```yaml\n(.+?)```", text, re.DOTALL))
    plays = [
        {
            **(
                example[0]
                if isinstance(example, list)
                else {"hosts": "loadbalancers", "roles": [{"role": ROLE, "vars": example}]}
            ),
            "gather_facts": False,
            "post_tasks": [{"ansible.builtin.command": "haproxy -dW -c -f /etc/haproxy/haproxy.cfg"}],
        }
        for example in examples
    ]
    assert len(plays) > 5
    playbook = tmp_path / "site.yml"
    playbook.write_text(yaml.safe_dump(plays))
    shutil.copytree(INVENTORY.parent / "files", tmp_path / "files")
    (tmp_path / "files" / SITE).mkdir()
    chain = "".join((SCRATCH / f"{name}.crt").read_text() for name in ("site", "intermediate"))
    (tmp_path / "files" / SITE / "fullchain.pem").write_text(chain)
    shutil.copy(SCRATCH / "root.crt", tmp_path / "files" / "ca.crt")
    try:
        applied(playbook=playbook, vault_www_example_com_key=(SCRATCH / "site.key").read_text())
    finally:
        applied()


# Another certificate, other servers, no regions


def test_a_changed_certificate_is_served_without_a_failed_request(replaced):
    assert [visit["failed"] for visit in replaced.visits] == [0, 0]
    assert min(visit["requests"] for visit in replaced.visits) > 50
    assert {served_certificate(lb) for lb in LBS} == {replaced.certificate.strip()}


@pytest.mark.usefixtures("replaced")
def test_a_changed_server_is_used_although_the_old_ones_state_is_kept(lb):
    assert served_by(lb, scheme="http", port=8080) == {"web2": 10}


@pytest.mark.usefixtures("replaced")
def test_the_map_goes_with_the_configuration_that_reads_it(lb):
    assert "x-region" not in seen(lb, EU)
    assert MAP not in files(lb)


# What may be chosen


def test_a_former_certificate_leaves_no_key(replaced, chosen):
    assert run(LB1, "ls /etc/haproxy/certs").split() == ["theirs", f"{SITE}.pem"]
    assert run(LB2, "ls /etc/haproxy/certs").split() == [f"{SITE}.pem"]
    assert replaced.key.splitlines()[1] not in chosen


@pytest.mark.usefixtures("chosen")
def test_modern_is_tls_1_3_alone(lb):
    for version, answered in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
        context = trust()
        context.maximum_version = version
        with socket.create_connection((LBS[lb], 443), timeout=5) as raw:
            if answered:
                context.wrap_socket(raw, server_hostname=SITE).close()
            else:
                with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                    context.wrap_socket(raw, server_hostname=SITE)


@pytest.mark.usefixtures("chosen")
def test_browsers_are_told_to_forget_https(lb):
    assert ask(lb).headers["Strict-Transport-Security"] == "max-age=0"


@pytest.mark.usefixtures("chosen")
def test_methods_and_paths_are_let_through(lb):
    assert ask(lb, "/.git/config", method="TRACE").status == 200


@pytest.mark.usefixtures("chosen")
def test_the_header_of_a_proxy_reaches_no_server_since_anybody_can_send_it(lb):
    for source, client, where in ((PROXY, "198.51.100.7", "eu"), (US, US, "us")):
        told = seen(lb, source, f"{PROXYS_HEADER}: 198.51.100.7")
        assert (told["x-region"], told["x-forwarded-for"]) == ([where], [client])
        assert PROXYS_HEADER.lower() not in told


@pytest.mark.usefixtures("chosen")
def test_regions_come_with_the_configuration_that_reads_them_and_a_tcp_port_knows_them():
    for number, question in ((1, "write"), (2, "read")):
        run(SERVERS, f"touch /run/server-{number}/{question}")
    try:
        for lb in LBS:
            assert region(lb, EU) == "eu"
            wait_until(lambda lb=lb: database(lb, 6448)[1] == "database1")
            read = partial(
                run, SERVERS, f"curl --silent --max-time 1 --interface {EU} telnet://{LBS[lb]}:6448 </dev/null || true"
            )
            wait_until(lambda read=read: "database2" in read())
    finally:
        run(SERVERS, "rm -f /run/server-*/write /run/server-*/read")


# While it serves


@pytest.mark.usefixtures("chosen")
def test_a_changed_map_is_used_at_once_by_the_process_that_runs_and_fails_no_request(tmp_path):
    table = tmp_path / "many.csv"
    table.write_text("".join(f"10.{n // 250}.{n % 250}.0/24,{'eu' if n % 2 else 'us'}\n" for n in range(20_000)))
    regions = [
        {"name": "eu", "countries": ["DE", "FR"]},
        {"name": "us", "countries": ["US"], "networks": [EU]},
        {"name": "rest"},
    ]
    variables = CHOICES | {"haproxy_regions": regions, "haproxy_region_tables": ["regions.csv", str(table)]}
    predicted = applied("--check", "--diff", **variables)
    assert f"-{EU}/32 eu" in predicted
    assert "+ … 20001 entries added in all" in predicted
    assert "changed=1 " in predicted
    assert region(LB1, EU) == "eu"
    before = {lb: workers(lb) for lb in LBS}
    with visitors(LB1) as first, visitors(LB2) as second:
        applied(**variables)
    for visit in (first, second):
        assert set(visit.result["statuses"]) == {"200"}
        assert visit.result["requests"] > 50
    assert {lb: workers(lb) for lb in LBS} == before
    for lb in LBS:
        assert region(lb, EU) == "us"
        clients = ("10.0.1.7", "10.79.248.7", "198.51.100.7")
        told = [through_proxy(lb, client, header=PROXYS_HEADER)[0] for client in clients]
        assert told == [["eu"], ["us"], ["eu"]]
        run(lb, "systemctl reload haproxy")
        assert region(lb, EU) == "us"


@pytest.mark.usefixtures("chosen")
def test_a_configuration_that_cannot_be_loaded_is_put_back_and_comes_with_the_next_run():
    """Another program has the port of the frontend narrow, which comes back with the scenario's own configuration.

    At one load balancer it listens, and HAProxy need not try; at the other it does not, and a reload must fail to find out.
    """
    bound = "import socket, time; s = socket.socket(); s.bind((str(), 8090)); time.sleep(600)"
    by_hand = "frontend by-hand\n    mode http\n    bind :8090\n"
    run(LB1, "systemd-run --unit=taken --quiet python3 -m http.server 8090")
    run(LB2, f"systemd-run --unit=taken --quiet python3 -c '{bound}'")
    try:
        wait_until(lambda: ":8090 " in run(LB1, "ss --listening --tcp --numeric"))
        before = {lb: (files(lb), workers(lb)) for lb in LBS}
        with visitors(LB1) as visit:
            refused = converge()
            run(LB1, f"cp -p /etc/haproxy/haproxy.cfg /root; printf '{by_hand}' >>/etc/haproxy/haproxy.cfg")
            said = run(LB1, "! systemctl reload haproxy 2>&1 && journalctl --unit haproxy --since -5s --output cat")
            run(LB1, "mv /root/haproxy.cfg /etc/haproxy/")
        assert visit.result["statuses"].keys() == {"200"}
        assert refused.stdout.count("failed=1 ") == len(LBS)
        assert "frontend narrow: bind *:8090: python3 (pid " in refused.stdout
        assert "frontend by-hand: bind :8090: python3 (pid " in said
        assert "haproxy could not be reloaded with the files, all are as they were" in refused.stdout
        assert "cannot bind socket (Address already in use) for [0.0.0.0:8090]" in refused.stdout
        for lb in LBS:
            assert files(lb) == before[lb][0]
            assert workers(lb) <= before[lb][1]
        # A later crash finds no states of servers.
        assert [run(lb, "ls /var/lib/haproxy | grep state || true") for lb in LBS] == ["", ""]
    finally:
        for lb in LBS:
            run(lb, "systemctl stop taken")
        applied()
    for lb in LBS:
        assert ask(lb, scheme="http", port=8090).status == 200
        assert region(lb, EU) == "eu"
