"""The lab from outside: a visitor in a container beside the four servers, and the engine that can kill them."""

import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
INVENTORY = CHECKOUT / "inventory" / "lab"
SITE = "www.foobar.com"
VIRTUAL_IP = "172.30.56.10"
ADDRESSES = {f"server{number}": f"172.30.56.{10 + number}" for number in range(1, 5)}
CONTAINERS = {"client": "client", **{name: f"webstack-{name}" for name in ADDRESSES}}


def run(*command, check=True, timeout=60, **options):
    """Run a command of the control node and return the finished process, its output as text."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, cwd=CHECKOUT, **options)
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def on(name, command, **options):
    """Run a shell command on a server of the lab, or on the client."""
    return run("docker", "exec", CONTAINERS[name], "sh", "-c", command, **options)


def playbook(*arguments, **options):
    return run("ansible-playbook", "-i", str(INVENTORY), *arguments, timeout=900, **options)


def wait_until(question, seconds=60):
    """Ask until the answer is true and return it; fail after the given time."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{getattr(question, '__name__', question)} did not come true within {seconds} s"
        time.sleep(0.3)
    return answer


def holders():
    """The load balancers that hold the virtual IP now."""
    return [
        name
        for name in ("server1", "server2")
        if f" {VIRTUAL_IP}/" in on(name, "ip -brief address", check=False).stdout
    ]


@pytest.fixture(scope="session")
def ca():
    """The authority's certificate, as a path on the client."""
    text = (CHECKOUT / "inventory" / "lab.secrets" / "tls" / "ca.crt").read_text()
    run("docker", "exec", "--interactive", "client", "sh", "-c", "cat >/root/ca.crt", input=text)
    return "/root/ca.crt"


@pytest.fixture(scope="session")
def get(ca):
    """Ask the site as a browser would; returns the status, the headers (lower case) and the body."""

    def ask(path="/", *options, scheme="https", address=VIRTUAL_IP, check=True):
        port = {"http": 80, "https": 443}[scheme]
        done = run(
            *("docker", "exec", "client", "curl", "--silent", "--show-error", "--include", "--max-time", "10", "--http1.1"),
            *("--cacert", ca, "--resolve", f"{SITE}:{port}:{address}", *options, f"{scheme}://{SITE}{path}"),
            check=check,
        )
        head, _, body = done.stdout.replace("\r", "").partition("\n\n")
        lines = head.split("\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        return SimpleNamespace(status=int(lines[0].split()[1]) if head else 0, headers=headers, body=body, head=head)

    return ask


class Probe:
    """tests/integration/probe.py on the client, from the begin of a with block to its end."""

    def __init__(self, ca, path, rate):
        self.command = ("python3", "/root/probe.py", f"https://{SITE}{path}", "--address", VIRTUAL_IP, "--ca", ca, "--rate", str(rate))
        self.result = None

    def __enter__(self):
        source = Path(__file__).with_name("probe.py").read_text()
        run("docker", "exec", "--interactive", "client", "sh", "-c", "cat >/root/probe.py", input=source)
        self.process = subprocess.Popen(
            ["docker", "exec", "--interactive", "client", *self.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        return self

    def __exit__(self, *_exception):
        time.sleep(0.5)
        output, _ = self.process.communicate("stop\n", timeout=90)
        self.result = json.loads(output)


@pytest.fixture
def probe(ca):
    return lambda path="/", rate=50: Probe(ca, path, rate)
