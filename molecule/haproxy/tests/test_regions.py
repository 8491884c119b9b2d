"""Where clients are, as two load balancers tell it to their servers, and how that changes while requests come."""

import json
from functools import partial

import pytest
import yaml
from test_haproxy import (
    CLIENT,
    LB1,
    LBS,
    SCRATCH,
    SERVERS,
    VARIABLES,
    applied,
    ask,
    database,
    files,
    runtime,
    visitors,
    workers,
)

import lab
from lab import CHECKOUT
from lab import inside as run

INVENTORY = CHECKOUT / "molecule/haproxy/inventory"
REGIONS = yaml.safe_load((INVENTORY / "group_vars/all/regions.yml").read_text())
NETWORK = CLIENT.rpartition(".")[0]
EU, US, PROXY, OTHER_PROXY = (f"{NETWORK}.{number}" for number in (31, 32, 34, 35))
MAP = "/etc/haproxy/maps/regions.map"


@pytest.fixture(scope="module", autouse=True)
def _clients():
    """Clients of other addresses."""
    for address in (EU, US, PROXY, OTHER_PROXY):
        run(SERVERS, f"ip address replace {address}/32 dev eth0")
    yield
    for address in (EU, US, PROXY, OTHER_PROXY):
        run(SERVERS, f"ip address delete {address}/32 dev eth0")


@pytest.fixture
def changed():
    """Apply other variables, and the scenario's own at the end."""
    yield applied
    applied()


def curl(source, url, *headers):
    """What the answers of the server say, a line each."""
    options = " ".join(f"--header '{header}'" for header in headers)
    return run(SERVERS, f"curl --silent --max-time 5 --interface {source} {options} {url}")


def seen(lb, source, *headers):
    """The headers that the server has received of a client."""
    return json.loads(curl(source, f"http://{LBS[lb]}:8080/", *headers))


def region(lb, source, *headers):
    (region,) = seen(lb, source, *headers)["x-region"]
    return region


def through_proxy(lb, *clients, source=PROXY):
    """Region and address of who is behind a proxy, as the server hears it."""
    told = seen(lb, source, f"X-Forwarded-For: {', '.join(clients)}")
    return told["x-region"], told["x-forwarded-for"]


def test_the_servers_are_told_the_region_of_a_client_whatever_it_says_itself(lb):
    assert region(lb, EU) == "eu"
    assert region(lb, US) == "us"
    assert json.loads(ask(lb).content)["x-region"] == ["rest"]
    assert region(lb, US, "X-Region: eu", "x-region: rest") == "us"


def served(lb, source, *headers):
    """The server that answers a client at the README's frontend worldwide."""
    head = curl(source, f"--output /dev/null --dump-header - http://{LBS[lb]}:8120/", *headers)
    return next(line.split()[1] for line in head.splitlines() if line.lower().startswith("x-served-by:"))


def test_a_route_takes_the_clients_of_a_region_and_its_backend_has_a_fallback(lb):
    assert [served(lb, source) for source in (EU, US)] == ["web1", "web2"]
    assert served(lb, PROXY, "X-Forwarded-For: 198.51.100.7") == "web1"
    runtime(lb, "set server frankfurt/web1 state maint")
    try:
        assert served(lb, EU) == "web2"
    finally:
        runtime(lb, "set server frankfurt/web1 state ready")


def test_a_clients_word_about_its_address_does_not_count(lb):
    told = seen(lb, US, "X-Forwarded-For: 198.51.100.7", "X-Real-IP: 198.51.100.7", f"X-Forwarded-For: {EU}")
    assert (told["x-region"], told["x-forwarded-for"]) == (["us"], [US])


def test_a_trusted_proxys_word_about_its_client_counts(lb):
    assert through_proxy(lb, "198.51.100.7") == (["eu"], ["198.51.100.7"])
    assert through_proxy(lb, "198.51.100.200") == (["us"], ["198.51.100.200"])  # by the table
    assert through_proxy(lb, "203.0.113.7") == (["us"], ["203.0.113.7"])
    assert through_proxy(lb, "192.0.2.7") == (["rest"], ["192.0.2.7"])
    assert through_proxy(lb, "2001:db8:7::1") == (["eu"], ["2001:db8:7::1"])


def test_of_what_a_trusted_proxy_passes_on_only_its_own_word_counts(lb):
    assert through_proxy(lb, "198.51.100.7", "203.0.113.7") == (["us"], ["203.0.113.7"])
    assert through_proxy(lb, "198.51.100.7", "203.0.113.7", OTHER_PROXY) == (["us"], ["203.0.113.7"])
    assert through_proxy(lb, "198.51.100.7", "unknown") == (["rest"], [PROXY])
    assert through_proxy(lb, "198.51.100.7", source=US) == (["us"], [US])


def test_the_header_of_a_proxy_reaches_no_server_since_anybody_can_send_it(lb, changed):
    changed(haproxy_client_header="CF-Connecting-IP")
    for source, client, where in ((PROXY, "198.51.100.7", "eu"), (US, US, "us")):
        told = seen(lb, source, "CF-Connecting-IP: 198.51.100.7")
        assert (told["x-region"], told["x-forwarded-for"]) == ([where], [client])
        assert "cf-connecting-ip" not in told


def test_two_clients_behind_one_connection_of_a_proxy_are_two(lb):
    url = f"http://{LBS[lb]}:8080/"
    ask_as = "--header 'X-Forwarded-For: {}' --write-out '\n%{{num_connects}}\n' " + url
    told = run(
        SERVERS,
        f"curl --silent --max-time 5 --interface {PROXY} {ask_as.format('198.51.100.7')} --next "
        f"--silent --interface {PROXY} {ask_as.format('203.0.113.7')} --next --silent --interface {PROXY} --write-out '\n%{{num_connects}}\n' {url}",
    ).splitlines()
    answers, connects = [json.loads(line) for line in told[::2]], told[1::2]
    assert connects == ["1", "0", "0"]
    assert [answer["x-region"] for answer in answers] == [["eu"], ["us"], ["rest"]]
    assert [answer["x-forwarded-for"] for answer in answers] == [["198.51.100.7"], ["203.0.113.7"], [PROXY]]


def test_clients_behind_a_proxy_have_a_limit_each_and_it_holds():
    """The frontend narrow allows 40 requests in 4 seconds."""

    def statuses(client, times):
        url = f"--output /dev/null --write-out '%{{http_code}}\n' http://{LBS[LB1]}:8090/?[1-{times}]"
        return curl(PROXY, url, f"X-Forwarded-For: {client}").split()

    runtime(LB1, "clear table narrow")
    try:
        assert statuses("198.51.100.7", 45) == ["200"] * 40 + ["429"] * 5
        assert statuses("198.51.100.8", 5) == ["200"] * 5
        table = runtime(LB1, "show table narrow")
        assert "http_req_rate(4000)=45" in table
        assert PROXY not in table
    finally:
        runtime(LB1, "clear table narrow")


def moved():
    """The regions with the client of eu in us, and a table of many networks."""
    table = SCRATCH / "many.csv"
    table.write_text("".join(f"10.{n // 250}.{n % 250}.0/24,{'eu' if n % 2 else 'us'}\n" for n in range(20_000)))
    regions = [
        {"name": "eu", "countries": ["DE", "FR"]},
        {"name": "us", "countries": ["US"], "networks": [EU]},
        {"name": "rest"},
    ]
    return {"haproxy_regions": regions, "haproxy_region_tables": ["regions.csv", str(table)]}


def test_a_changed_map_is_used_at_once_by_the_process_that_runs_and_fails_no_request(changed):
    variables = moved()
    predicted = changed("--check", "--diff", **variables)
    assert f"-{EU}/32 eu" in predicted
    assert "+ … 20001 entries added in all" in predicted
    assert "changed=1 " in predicted
    assert region(LB1, EU) == "eu"
    before = {lb: workers(lb) for lb in LBS}
    with visitors(LB1) as first, visitors(*list(LBS)[1:]) as second:
        changed(**variables)
    for visit in (first, second):
        assert set(visit.result["statuses"]) == {"200"}
        assert visit.result["requests"] > 50
    assert {lb: workers(lb) for lb in LBS} == before
    for lb in LBS:
        assert region(lb, EU) == "us"
        assert [through_proxy(lb, client)[0] for client in ("10.0.1.7", "10.79.248.7", "198.51.100.7")] == [
            ["eu"],
            ["us"],
            ["eu"],
        ]
        run(lb, "systemctl reload haproxy")
        assert region(lb, EU) == "us"
    assert "changed=0 " in changed(**variables)


def test_regions_come_and_go_with_the_configuration_that_reads_them(changed):
    # Without regions no route may ask for one, as the README's example does.
    frontends = VARIABLES["edge_frontends"]
    changed(haproxy_frontends=frontends, **{name: type(value)() for name, value in REGIONS.items()})
    assert "x-region" not in seen(LB1, EU)
    assert MAP not in files(LB1)
    port = {
        "name": "region-port",
        "mode": "tcp",
        "bind": [{"port": 6448}],
        "default_backend": "database-read",
        "config": "use_backend database-write if { var(txn.region) -m str rest }",
    }
    for number, question in ((1, "write"), (2, "read")):
        run(SERVERS, f"touch /run/server-{number}/{question}")
    try:
        changed(haproxy_frontends=[*frontends, port])
        for lb in LBS:
            lab.wait_until(lambda lb=lb: database(lb, 6448)[1] == "database1")
            read = partial(
                run, SERVERS, f"curl --silent --max-time 2 --interface {EU} telnet://{LBS[lb]}:6448 </dev/null || true"
            )
            lab.wait_until(lambda read=read: "database2" in read())
    finally:
        run(SERVERS, "rm -f /run/server-*/write /run/server-*/read")


def test_a_map_that_cannot_be_is_refused_and_the_old_one_serves():
    wrong = SCRATCH / "wrong.csv"
    wrong.write_text("192.0.2.0/24,eu\n192.0.2.300,us\n")
    before = {lb: (files(lb), workers(lb)) for lb in LBS}
    refused = [
        ({"haproxy_region_tables": [str(wrong)]}, f"{wrong}, line 2 is '192.0.2.300,us': give a network"),
        ({"haproxy_region_tables": ["nowhere.csv"]}, "haproxy_region_tables has 'nowhere.csv', which is no file"),
        ({"haproxy_default_region": "asia"}, "haproxy_default_region is 'asia', which is none of haproxy_regions"),
        ({"haproxy_client_header": ""}, "haproxy_client_header is '': name the header"),
    ]
    lab.assert_refused("haproxy", refused)
    # What HAProxy itself refuses
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
