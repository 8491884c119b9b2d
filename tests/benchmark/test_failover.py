"""How long a visitor with 50 requests a second goes without an answer when the virtual IP moves: medians of several moves.

Needs the lab with the site on it (make demo), and starts a visitor beside it.
"""

import json
import statistics
import time

import pytest

import lab

MOVES = 3
PROFILES = {
    "default": {},
    "fast": {
        "keepalived_advert_interval": 0.1,
        "keepalived_preempt_delay": 1,
        "keepalived_health_check": {
            **{"address": "127.0.0.1", "port": 8404, "path": "/healthz"},
            **{"interval": 0.2, "timeout": 1, "fall": 1, "rise": 2},
        },
    },
}


def the_host_is_killed():
    lab.run("docker", "kill", "webstack-server1")
    lab.wait_until(lambda: lab.VIRTUAL_IP in lab.on("server2", "ip -brief address").stdout)
    time.sleep(1)
    yield
    lab.run("docker", "start", "webstack-server1")


def haproxy_is_killed():
    lab.stay_dead("server1", "haproxy")
    lab.on("server1", "systemctl kill --signal=KILL haproxy")
    time.sleep(4)
    yield
    lab.revive("server1", "haproxy")


def keepalived_is_stopped():
    lab.on("server1", "systemctl stop keepalived")
    time.sleep(3)
    yield
    lab.on("server1", "systemctl start keepalived")


def a_planned_move():
    lab.on("server1", "echo -100 >/etc/keepalived/drain")
    time.sleep(3)
    yield
    lab.on("server1", "echo 0 >/etc/keepalived/drain")


EVENTS = (the_host_is_killed, haproxy_is_killed, keepalived_is_stopped, a_planned_move)


def outage(event):
    lab.wait_until(lambda: lab.holders() == ["server1"])
    time.sleep(2)
    with lab.Probe() as visitor:
        steps = event()
        next(steps)
    next(steps, None)
    return visitor.result["outage"]


@pytest.mark.parametrize("profile", PROFILES)
def test_failover(profile, capsys):
    lab.playbook(
        "molecule/default/create.yml", inventories=(lab.INVENTORY, lab.CHECKOUT / "molecule/default/inventory")
    )
    lab.prepare_client()
    lab.playbook("playbooks/site.yml", "--tags", "keepalived", "--extra-vars", json.dumps(PROFILES[profile]))
    medians = {event.__name__: statistics.median(outage(event) for _ in range(MOVES)) for event in EVENTS}
    lab.wait_until(lambda: lab.holders() == ["server1"])
    lab.playbook("playbooks/site.yml", "--tags", "keepalived")
    with capsys.disabled():
        print(
            f"\nno answer, {profile} profile:",
            *(f"{name.replace('_', ' ')} {median:.2f} s" for name, median in medians.items()),
            sep="\n  ",
        )
