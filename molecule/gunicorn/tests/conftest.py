"""What the tests share: a way to deploy again with other variables, and sources to deploy."""

import shutil
from pathlib import Path

import pytest

import lab

SCENARIO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def deploy():
    """Run a playbook of the scenario's on one host, with variables over its own."""

    def run(playbook="hello.yml", **variables):
        return lab.converge("gunicorn", "--limit=gunicorn-app1", playbook=playbook, **variables)

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
