"""What the shipped inventories promise."""

from pathlib import Path

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.foobar.webstack.plugins.filter import topology as filters

INVENTORIES = Path(__file__).parents[2] / "inventory"


def build(name):
    loader = DataLoader()
    inventory = InventoryManager(loader, sources=[str(INVENTORIES / name)])
    hostvars = HostVars(inventory, VariableManager(loader, inventory), loader)
    known = hostvars[inventory.get_hosts()[0].name]
    return filters.build(
        inventory.get_groups_dict(), hostvars, known["webstack_site"], virtual_ips=known["webstack_virtual_ips"]
    )


@pytest.mark.parametrize(
    ("name", "alone", "mode"),
    [
        ("four_servers", ["server4"], "pair"),
        ("lab", ["server4"], "pair"),
        ("dedicated", [], "pair"),
        ("resilient", [], "group"),
    ],
)
def test_an_inventory_has_no_fault_and_the_single_points_of_failure_that_it_says(name, alone, mode):
    topology = build(name)
    assert topology["faults"] == []
    assert topology["replication"]["mode"] == mode
    assert [spof["name"] for spof in topology["spofs"]] == alone


def test_the_resilient_one_survives_the_loss_of_any_machine_and_any_rack():
    topology = build("resilient")
    lost = {name: {name} for name in topology["hosts"]}
    for name, box in topology["hosts"].items():
        lost.setdefault(box["zone"], set()).add(name)
    for names in lost.values():
        for group in ("loadbalancers", "webservers", "appservers", "monitoring"):
            assert set(topology["groups"][group]) - names, (names, group)
        databases = topology["groups"]["databases"]
        assert 2 * len(set(databases) - names) > len(databases), names
