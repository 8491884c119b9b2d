"""A real inventory keeps its passwords encrypted in itself: inventory/vault.example.yml does what it says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "inventory" / "vault.example.yml"
VALUES = yaml.safe_load(EXAMPLE.read_text())["webstack_passwords"]


def run(*command, check=True):
    done = subprocess.run(
        [str(word) for word in command],
        cwd=CHECKOUT,
        env=os.environ | {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    """A copy of the four servers, made as the example says, and the option that gives the vault's password."""
    directory = tmp_path_factory.mktemp("vault")
    site, key = directory / "my_site", directory / "vault-password"
    shutil.copytree(CHECKOUT / "inventory" / "four_servers", site)
    key.write_text("a password to throw away\n")
    passwords = site / "group_vars" / "all" / "passwords.yml"
    shutil.copy(EXAMPLE, passwords)
    run("ansible-vault", "encrypt", "--vault-password-file", key, passwords)
    return site, ("--vault-password-file", key)


def variable(inventory, host, name):
    """What a play of the site sees on a host. No host is contacted."""
    site, vault = inventory
    done = run("ansible", host, "-i", site, *vault, "-m", "ansible.builtin.debug", "-a", f"var={name}", "-o")
    return json.loads(re.search(r"=> (\{.*)", done.stdout, re.DOTALL).group(1))[name]


def test_the_example_has_the_passwords_of_the_inventories_and_no_others():
    text = (CHECKOUT / "inventory" / "four_servers" / "group_vars" / "all" / "passwords.yml").read_text()
    assert list(yaml.safe_load(text)["webstack_passwords"]) == list(VALUES)
    assert len(set(VALUES.values())) == len(VALUES)
    assert len(VALUES["mysql_replication"]) <= 32, "MySQL takes no longer one for replication"


def test_nothing_in_the_encrypted_inventory_can_be_read(inventory):
    site, _vault = inventory
    for file in site.rglob("*"):
        assert file.is_dir() or "CHANGE-ME" not in file.read_text(), file
    assert run("ansible-inventory", "-i", site, "--list", check=False).returncode != 0


def test_the_site_takes_its_passwords_from_the_vault_and_makes_no_files(inventory):
    site, vault = inventory
    accounts = variable(inventory, "server4", "mysql_primary_accounts")
    assert {f"mysql_{account['name']}": account["password"] for account in accounts} == {
        name: value for name, value in VALUES.items() if name.startswith("mysql_")
    }
    secrets = variable(inventory, "server4", "gunicorn_secrets")
    assert secrets == {
        "GUESTBOOK_SECRET_KEY": VALUES["application"],
        "GUESTBOOK_WRITE_PASSWORD": VALUES["mysql_writer"],
        "GUESTBOOK_READ_PASSWORD": VALUES["mysql_reader"],
    }
    shown = run("ansible-playbook", "-i", site, *vault, "playbooks/topology.yml").stdout
    assert "server4" in shown
    assert "CHANGE-ME" not in shown
    assert sorted(path.name for path in site.parent.iterdir()) == ["my_site", "vault-password"]
