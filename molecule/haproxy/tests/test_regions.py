"""Where clients are, as two load balancers tell it to their servers."""

import json

from conftest import EU, OTHER_PROXY, PROXY, SERVERS, US
from test_haproxy import BOTH, LB1, LB2, LBS, ask, runtime

from lab import inside as run


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


def through_proxy(lb, *clients, source=PROXY, header="X-Forwarded-For"):
    """Region and address of who is behind a proxy, as the server hears it."""
    told = seen(lb, source, f"{header}: {', '.join(clients)}")
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


def test_where_addresses_are_hashed_each_client_has_its_server_the_same_at_both_load_balancers():
    clients = [f"198.51.100.{number}" for number in range(20)] * 2
    options = f"--silent --max-time 5 --interface {PROXY} --output /dev/null --write-out '%header{{x-served-by}}\n'"
    servers = {
        lb: curl(
            PROXY,
            " --next ".join(
                f"{options} --header 'X-Forwarded-For: {client}' http://{LBS[lb]}:8080/by-address" for client in clients
            ),
        ).split()
        for lb in LBS
    }
    assert servers[LB1][:20] == servers[LB1][20:]
    assert servers[LB1] == servers[LB2]
    assert set(servers[LB1]) == BOTH


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
        assert all(f"key=::ffff:{client} " in table for client in ("198.51.100.7", "198.51.100.8"))
        assert PROXY not in table
    finally:
        runtime(LB1, "clear table narrow")
