"""What the tests share: a way to deploy again with other variables, and sources to deploy."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def deploy():
    """Run a playbook of the scenario's on one host, with variables over its own."""

    def run(playbook="hello", limit="gunicorn-app1", **variables):
        return subprocess.run(
            [
                *("ansible-playbook", "--inventory", SCENARIO / "inventory", "--limit", limit),
                *("--extra-vars", json.dumps(variables), SCENARIO / f"{playbook}.yml"),
            ],
            env=os.environ | {"ANSIBLE_CONFIG": str(SCENARIO.parents[1] / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def source(tmp_path):
    """Make a copy of the smallest application that calls itself by another version, and more if asked for."""

    def make(version, *, prefix=""):
        directory = tmp_path / f"hello-{version}"
        shutil.copytree(SCENARIO / "files" / "hello", directory, ignore=shutil.ignore_patterns("__pycache__"))
        program = directory / "hello.py"
        program.write_text(prefix + program.read_text().replace("VERSION = 1", f"VERSION = {version}"))
        return directory

    return make
