"""The two servers, as both modules' tests use them."""

import json
import subprocess
from pathlib import Path

import ansible
import pytest
import testinfra

import lab

INVENTORY = Path(__file__).parents[1] / "inventory"
MODULES = "/root/modules"


def copy_modules(name: str) -> None:
    """Put the collection's modules and what they import onto a node, as Ansible does with each task."""
    parts = (f"ansible/{part}" for part in ("__init__.py", "release.py", "_vendor", "module_utils"))
    core = ("-C", Path(ansible.__file__).parents[1], *parts)
    collection = ("-C", lab.CHECKOUT / ".ansible/collections", "ansible_collections/foobar/webstack/plugins")
    tar = subprocess.run(["tar", "--create", *core, *collection], capture_output=True, check=True)
    extract = ["docker", "exec", "--interactive", name, "sh", "-c", f"mkdir -p {MODULES} && tar -x -C {MODULES}"]
    subprocess.run(extract, input=tar.stdout, check=True)


class Node:
    def __init__(self, name: str, address: str):
        self.name, self.address = name, address
        self.host = testinfra.get_host(f"docker://{name}")
        copy_modules(name)

    def mysql(self, *arguments: str):
        """What the client answers, as the administrator of this node unless the arguments say otherwise."""
        command = "mysql --batch --skip-column-names" + " %s" * len(arguments)
        return self.host.run(command, *arguments)

    def sql(self, *statements: str) -> str:
        result = self.mysql("--execute", "; ".join(statements))
        assert result.rc == 0, result.stderr
        return result.stdout.strip()

    def module(self, name: str, check: bool = False, **options) -> dict:
        """The result of a module that runs on the node, with ``failed``, its ``warnings`` as one text, and all that it told in ``shown``."""
        arguments = {**options, "_ansible_check_mode": check, "_ansible_module_name": f"foobar.webstack.{name}"}
        done = subprocess.run(
            [
                *("docker", "exec", "--interactive", f"--env=PYTHONPATH={MODULES}", self.name),
                *("python3", "-m", f"ansible_collections.foobar.webstack.plugins.modules.{name}"),
            ],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.stdout, done.stderr
        result = json.loads(done.stdout)
        warnings = " ".join(str(warning) for warning in result.get("warnings", []))
        shown = done.stdout + done.stderr
        return {**result, "failed": result.get("failed", False), "warnings": warnings, "shown": shown}

    def shown_by_ansible(self, name: str, **options) -> str:
        """What Ansible shows to who runs a module."""
        command = ["ansible", self.name, f"--inventory={INVENTORY}", f"--module-name=foobar.webstack.{name}", "--diff"]
        done = lab.run(*command, f"--args={json.dumps(options)}")
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def primary() -> Node:
    return Node("mysql-replica-primary", "172.30.62.11")


@pytest.fixture(scope="session")
def secondary() -> Node:
    """The replica's server, in whatever state it is."""
    return Node("mysql-replica-replica", "172.30.62.12")
