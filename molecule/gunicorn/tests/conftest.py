"""What the tests share: a way to deploy again with other variables, and sources to deploy."""

import http.client
import json
import shutil
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

import lab

SCENARIO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def deploy():
    """Run a playbook of the scenario's on one host, or on others, with variables over its own. The packages are there."""

    def run(playbook="hello.yml", limit="gunicorn-app1", **variables):
        variables = {"gunicorn_manage_packages": False} | variables
        return lab.converge("gunicorn", f"--limit={limit}", playbook=playbook, **variables)

    return run


class Visitor:
    """Asks over one connection for as long as it stays open, as a proxy does; says which version answered."""

    def __init__(self, address, port, path="/", method="GET"):
        self.connections = threading.local()
        self.address, self.port, self.path, self.method = address, port, path, method

    def __call__(self):
        if not hasattr(self.connections, "mine"):
            self.connections.mine = http.client.HTTPConnection(self.address, self.port, timeout=60)
        connection = self.connections.mine
        connection.request(self.method, self.path, "a=1" if self.method == "POST" else None)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (self.path, answer.status, body)
        return json.loads(body)["version"]


def one_request(address, port):
    """Ask on a connection of its own, as a new visitor does."""
    visitor = Visitor(address, port)
    try:
        return visitor()
    finally:
        visitor.connections.mine.close()


@contextmanager
def visitors_of(addresses):
    """Every kind of visitor at each address: new and kept connections, requests that cannot be repeated, slow ones, with and without a proxy."""
    with ExitStack() as stack:
        kinds = []
        for address in addresses:
            for question, pause, clients in (
                (partial(one_request, address, 8001), 0.2, 2),
                (Visitor(address, 8001), 0.3, 2),
                (Visitor(address, 8001, "/slow"), 0.1, 2),
                (Visitor(address, 8080, "/hello/", "POST"), 0.2, 2),
                (Visitor(address, 8080, "/hello/"), 0.2, 1),
                (Visitor(address, 8080, "/hello/slow", "POST"), 0.1, 1),
            ):
                kinds.append(stack.enter_context(lab.asking(question, pause=pause, clients=clients)))
        yield kinds


@pytest.fixture(scope="session")
def under_load():
    return visitors_of


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Make a copy of the smallest application that calls itself by another version, and more if asked for."""

    def make(version, *, prefix=""):
        directory = tmp_path_factory.mktemp("source") / f"hello-{version}"
        shutil.copytree(SCENARIO / "files" / "hello", directory, ignore=shutil.ignore_patterns("__pycache__"))
        program = directory / "hello.py"
        program.write_text(prefix + program.read_text().replace("VERSION = 1", f"VERSION = {version}"))
        return directory

    return make
