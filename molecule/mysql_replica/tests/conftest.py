"""The two servers, as both modules' tests use them."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import testinfra

INVENTORY = Path(__file__).parents[1] / "inventory"


class Node:
    def __init__(self, name: str, address: str):
        self.name, self.address = name, address
        self.host = testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")

    def mysql(self, *arguments: str):
        """What the client answers, as the administrator of this node unless the arguments say otherwise."""
        command = "mysql --batch --skip-column-names" + " %s" * len(arguments)
        return self.host.run(command, *arguments)

    def sql(self, *statements: str) -> str:
        result = self.mysql("--execute", "; ".join(statements))
        assert result.rc == 0, result.stderr
        return result.stdout.strip()

    def module(self, name: str, check: bool = False, **options) -> dict:
        """The result of a module, with ``failed``, and what was said beside it in ``warnings``."""
        command = ["ansible", self.name, f"--inventory={INVENTORY}", f"--module-name=foobar.webstack.{name}", "--diff"]
        output = subprocess.run(
            [*command, f"--args={json.dumps(options)}", *(["--check"] if check else [])],
            env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            text=True,
            capture_output=True,
            check=False,
        )
        status, result = re.search(r"^\S+ \| (\S+) => (\{.*\})", output.stdout, re.MULTILINE | re.DOTALL).groups()
        shown = output.stdout + output.stderr
        return {**json.loads(result), "failed": status == "FAILED!", "warnings": output.stderr, "shown": shown}


@pytest.fixture(scope="session")
def primary() -> Node:
    return Node("mysql-replica-primary", "172.30.62.11")


@pytest.fixture(scope="session")
def secondary() -> Node:
    """The replica's server, in whatever state it is."""
    return Node("mysql-replica-replica", "172.30.62.12")
