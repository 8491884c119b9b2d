"""Something dies, and the site answers. Every test puts back what it took away, and waits until all is well again."""

import time

import pytest

from lab import VIRTUAL_IP, Probe, get, holders, on, revive, run, stay_dead, wait_until


@pytest.fixture(autouse=True)
def all_is_well():
    wait_until(lambda: holders() == ["server1"])
    wait_until(lambda: {get("/").headers.get("x-served-by") for _ in range(6)} == {"server2", "server3"})


def test_haproxy_is_killed_and_the_second_load_balancer_answers():
    stay_dead("server1", "haproxy")
    try:
        with Probe() as visitor:
            on("server1", "systemctl kill --signal=KILL haproxy")
            wait_until(lambda: holders() == ["server2"])
            time.sleep(1)
        assert visitor.result["outage"] < 10, visitor.result
        assert visitor.result["served_by"]
    finally:
        revive("server1", "haproxy")
    wait_until(lambda: holders() == ["server1"])


def test_the_first_load_balancer_dies_the_second_answers_and_the_virtual_ip_comes_home():
    with Probe() as visitor:
        run("docker", "kill", "webstack-server1")
        wait_until(lambda: VIRTUAL_IP in on("server2", "ip -brief address").stdout)
        time.sleep(1)
    try:
        assert visitor.result["outage"] < 10, visitor.result
        assert get("/").status == 200
        assert get("/guestbook/").status == 200
    finally:
        run("docker", "start", "webstack-server1")
    with Probe() as visitor:
        wait_until(lambda: holders() == ["server1"])
        time.sleep(1)
    assert visitor.result["failed"] <= 1, visitor.result


def test_a_web_server_dies_and_no_request_fails_once_its_check_has():
    stay_dead("server3", "nginx")
    try:
        with Probe() as visitor:
            on("server3", "systemctl kill --signal=KILL nginx")
            time.sleep(1)
        # HAProxy sends a request that found no connection to the other server. One that was answered just then is cut off.
        assert visitor.result["failed"] <= 2, visitor.result
        state = "echo 'show stat' | socat stdio /run/haproxy/admin.sock | grep ^web,server3"
        wait_until(lambda: "DOWN" in on("server1", state).stdout)
        with Probe() as visitor:
            time.sleep(2)
        assert visitor.result["failed"] == 0, visitor.result
        assert set(visitor.result["served_by"]) == {"server2"}
    finally:
        revive("server3", "nginx")


def test_the_replica_dies_and_the_guestbook_is_still_read():
    on("server3", "systemctl stop mysql")
    try:
        wait_until(lambda: get("/guestbook/").status == 200, seconds=15)
        assert "server4" in get("/guestbook/").body
    finally:
        on("server3", "systemctl start mysql")
    wait_until(
        lambda: (
            on(
                "server4",
                "curl --silent --output /dev/null --write-out '%{http_code}' "
                "'http://172.30.56.13:9201/read?max_lag=10'",
            ).stdout
            == "200"
        )
    )
