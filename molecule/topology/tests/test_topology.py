"""Broken inventories are refused at once, whatever part of the site is asked for, and before any server is."""

import copy
import subprocess
from pathlib import Path

import pytest
import yaml

SCENARIO = Path(__file__).resolve().parents[1]
GOOD = yaml.safe_load((SCENARIO / "inventory" / "hosts.yml").read_text(encoding="utf-8"))
SECOND_PLAY = "Know the topology on every server"


@pytest.fixture
def play(tmp_path):
    """Runs the scenario's playbook on the good inventory with some of it replaced."""

    def run(*arguments, variables=None, hosts=None, groups=None):
        inventory = copy.deepcopy(GOOD)["all"]
        inventory["vars"].update(variables or {})
        for host, own in (hosts or {}).items():
            inventory["hosts"][host] = own
        inventory["children"].update(groups or {})
        file = tmp_path / "hosts.yml"
        file.write_text(yaml.safe_dump({"all": inventory}), encoding="utf-8")
        command = ["ansible-playbook", "-i", str(file), str(SCENARIO / "converge.yml"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=SCENARIO.parents[1])

    return run


BROKEN = {
    "variables": {
        "webstack_virtual_ips": ["192.0.2.10", "198.51.100.10/24", "192.0.2.11/24"],
        "webstack_site": "www foobar com",
        "webstack_services": {"cache": {"tier": "caches", "port": 6379}, "web": {"port": "eighty"}},
    },
    "hosts": {
        "topology-server1": {"webstack_address": "192.0.2.11", "webstack_weight": 1000},
        "topology-server2": {"webstack_address": "{{ nowhere }}"},
        "topology-server3": {"webstack_address": "192.0.2.11"},
    },
    "groups": {
        "appservers": {"hosts": {}},
        "databases": {
            "children": {
                "mysql_primary": {"hosts": {"topology-server3": None, "topology-server4": None}},
                "mysql_replicas": {"hosts": {"topology-server4": None}},
            }
        },
    },
}
NAMED = [
    'webstack_site = "www foobar com"',
    'webstack_services.cache.tier = "caches"',
    'webstack_services.web.port = "eighty"',
    "groups.appservers",
    'groups.mysql_primary = "topology-server3, topology-server4"',
    "topology-server4: groups.mysql_replicas",
    "topology-server1: webstack_weight = 1000",
    'topology-server2: webstack_address = "{{ nowhere }}"',
    'topology-server3: webstack_address = "192.0.2.11"',
    'webstack_virtual_ips = "192.0.2.10"',
    'topology-server1: webstack_virtual_ips = "198.51.100.10/24"',
    'topology-server1: webstack_virtual_ips = "192.0.2.11/24"',
]


PART = ("--limit", "topology-server4", "--tags", "servers")


@pytest.mark.parametrize("arguments", [(), (*PART, "--check")], ids=["all", "a dry run of a part"])
def test_every_fault_is_reported_at_once_and_nothing_else_happens(play, arguments):
    done = play(*arguments, **BROKEN)
    assert done.returncode != 0
    for fault in NAMED:
        lines = [line for line in done.stdout.splitlines() if fault in line]
        assert lines, f"{fault} is not reported:\n{done.stdout}"
        assert "Remedy: " in lines[0]
    assert SECOND_PLAY not in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        {
            "webstack_virtual_ips": ("192.0.2.10/24", 'webstack_virtual_ips = "192.0.2.10/24"'),
            "webstack_services": (["web"], "webstack_services = \"['web']\""),
            "webstack_site": (["www.foobar.com"], "webstack_site"),
        },
        {"webstack_virtual_ips": (10, "webstack_virtual_ips = 10"), "webstack_site": (None, "webstack_site")},
    ],
    ids=["lists and texts", "numbers and nothing"],
)
def test_a_wrong_type_is_named(play, wrong):
    done = play(variables={name: value for name, (value, _) in wrong.items()})
    assert done.returncode != 0
    for _, named in wrong.values():
        assert named in done.stdout
    assert SECOND_PLAY not in done.stdout


def test_a_part_of_a_good_inventory_knows_the_whole_topology(play):
    done = play(*PART)
    assert done.returncode == 0, done.stdout
    assert SECOND_PLAY in done.stdout
