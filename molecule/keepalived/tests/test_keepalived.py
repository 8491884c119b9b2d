"""Who answers at the virtual IPs, as a client on their network sees it."""

import http.client
import subprocess
import time
import urllib.request
from functools import partial

import pytest
import testinfra

import lab

converge = partial(lab.converge, "keepalived")
BLUE, GREEN = "172.30.58.101", "172.30.58.102"
FIRST, SECOND = "keepalived-lb1", "keepalived-lb2"
HOME = {BLUE: FIRST, GREEN: SECOND}


def run(host, command):
    return testinfra.get_host(f"docker://{host}").check_output(command)


def holder(address):
    """Name the host that answers at an address, if one does within a moment."""
    try:
        with urllib.request.urlopen(f"http://{address}:8404/", timeout=0.5) as response:
            return response.read().decode()
    except (OSError, http.client.HTTPException):
        return None


def wait_for(expected, seconds=40):
    """Wait until each address is answered by its host; keepalived's own timers are much shorter than the limit."""
    limit = time.monotonic() + seconds
    while (found := {address: holder(address) for address in expected}) != expected:
        assert time.monotonic() < limit, f"expected {expected}, found {found}"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _home():
    """Begin and end each test with both virtual IPs at home: what has left comes home."""
    wait_for(HOME)
    yield
    wait_for(HOME)


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("systemctl stop edge", "systemctl start edge"),
        ("systemctl kill --signal STOP edge", "systemctl kill --signal CONT edge"),
        ("touch /run/unhealthy", "rm /run/unhealthy"),
    ],
    ids=["service stopped", "service hangs", "service says that it is unhealthy"],
)
def test_a_virtual_ip_leaves_a_host_that_cannot_serve_it_and_comes_home(fault, remedy):
    run(FIRST, fault)
    try:
        wait_for({BLUE: SECOND, GREEN: SECOND})
    finally:
        run(FIRST, remedy)


@pytest.mark.parametrize(("fault", "remedy"), [("pause", "unpause"), ("kill", "start")])
def test_a_virtual_ip_leaves_a_host_that_died_and_comes_home(fault, remedy):
    subprocess.run(["docker", fault, FIRST], check=True, capture_output=True)
    try:
        wait_for({BLUE: SECOND, GREEN: SECOND})
    finally:
        subprocess.run(["docker", remedy, FIRST], check=True, capture_output=True)


def test_one_failed_check_moves_nothing():
    with lab.asking(partial(holder, BLUE)) as answers:
        for _ in range(4):
            run(FIRST, "touch /run/unhealthy; sleep 0.25; rm /run/unhealthy")
            time.sleep(1.3)
    assert set(answers) == {FIRST}


def test_a_drain_moves_the_virtual_ip_unseen_and_lasts_until_it_is_ended():
    """A drained host that is the only one left still serves: while the keepalived of the other one is stopped."""
    try:
        with lab.asking(partial(holder, BLUE)) as leaving:
            run(FIRST, "echo -100 > /etc/keepalived/drain")
            wait_for({BLUE: SECOND, GREEN: SECOND})
            for command in ["reload", "restart"]:
                run(FIRST, f"systemctl {command} keepalived")
                time.sleep(4)
                assert (holder(BLUE), holder(GREEN)) == (SECOND, SECOND)
        run(SECOND, "systemctl stop keepalived")
        wait_for({BLUE: FIRST, GREEN: FIRST})
        run(SECOND, "systemctl start keepalived")
        wait_for({BLUE: SECOND, GREEN: SECOND})
        with lab.asking(partial(holder, BLUE)) as returning:
            run(FIRST, "echo 0 > /etc/keepalived/drain")
            wait_for(HOME)
    finally:
        run(SECOND, "systemctl start keepalived")
        run(FIRST, "echo 0 > /etc/keepalived/drain")
    assert (leaving + returning).count(None) <= 2


def test_a_changed_setting_is_applied_without_a_failed_request():
    processes = {host: run(host, "pgrep -o keepalived") for host in HOME.values()}
    configuration = "cat /etc/keepalived/keepalived.conf"
    seconds = 31 if "garp_master_refresh 30\n" in run(FIRST, configuration) else 30
    with lab.asking(partial(holder, BLUE)) as answers:
        changed = converge(keepalived_garp_refresh=seconds)
        time.sleep(2)
    assert changed.returncode == 0, changed.stdout
    assert f"garp_master_refresh {seconds}\n" in run(FIRST, configuration)
    assert set(answers) == {FIRST}
    assert processes == {host: run(host, "pgrep -o keepalived") for host in HOME.values()}


def instance(**changes):
    return {
        "name": "blue",
        "virtual_router_id": 51,
        "priority": 250,
        "virtual_ips": ["172.30.58.101/24"],
        "source": "{{ webstack_address }}",
        "peers": ["172.30.58.13"],
    } | changes


def test_what_cannot_work_is_refused_and_the_virtual_ips_stay():
    contradictory = [
        instance(virtual_router_id=256, priority=255, virtual_ips=["172.30.58.101"], peers=["{{ webstack_address }}"]),
        instance(name="green", virtual_ips=["172.30.58.102/24"], source="192.0.2.1"),
        instance(name="red", virtual_ips=["172.30.58.102/24"]),
    ]
    refused = [
        ({"keepalived_config": "no_such_keyword 1"}, "Unknown keyword 'no_such_keyword'"),
        ({"keepalived_instances": [instance(virtual_router_id="x")]}, "virtual_router_id"),
        ({"keepalived_instances": [instance(virtual_ips=["172.30.58.999/24"])]}, "parsed invalid IP 172.30.58.999"),
        ({"keepalived_instances": [instance(interface="eth9")]}, "interface eth9 for vrrp_instance blue doesn't exist"),
        # All contradictions at once
        (
            {"keepalived_advert_interval": 50, "keepalived_instances": contradictory},
            "keepalived_advert_interval is 50: VRRP version 3 allows 0.01 to 40.95",
            "blue: virtual_router_id 256 is not within 1 to",
            "blue: priority 255 is not within 1 to 254",
            "virtual IP 172.30.58.101 lacks the length of its network: write it as 192.0.2.10/24",
            "is among its own peers",
            "green: no interface of this host has the source 192.0.2.1",
            "virtual_router_id 51 stands there more than once",
            "virtual IP 172.30.58.102/24 stands there more than once",
        ),
    ]
    before = run(FIRST, "cat /etc/keepalived/keepalived.conf")
    lab.assert_refused("keepalived", refused)
    assert run(FIRST, "cat /etc/keepalived/keepalived.conf") == before
    assert {address: holder(address) for address in HOME} == HOME
