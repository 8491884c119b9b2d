"""The lab from outside: a visitor in a container beside the four servers, and the engine that can kill them."""

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
INVENTORY = CHECKOUT / "inventory" / "lab"
SECRETS = CHECKOUT / "inventory" / "lab.secrets"
SITE = "www.foobar.com"
VIRTUAL_IP = "172.30.56.10"
ADDRESSES = {f"server{number}": f"172.30.56.{10 + number}" for number in range(1, 5)}
CA = "/root/ca.crt"


def run(*command, check=True, timeout=60, **options):
    """Run a command of the control node and return the finished process, its output as text."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, **{"cwd": CHECKOUT, **options}
    )
    assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def inside(container, command, **options):
    """Run a shell command in a container and return what it printed."""
    return run("docker", "exec", container, "sh", "-c", command, **{"timeout": 300, **options}).stdout


def on(name, command, **options):
    """Run a shell command on a server of the lab, or on the client."""
    return run("docker", "exec", f"webstack-{name}", "sh", "-c", command, **options)


def put(name, path, text):
    """Write a file on a server of the lab, or on the client."""
    run("docker", "exec", "--interactive", f"webstack-{name}", "sh", "-c", f"cat >{path}", input=text)


def playbook(*arguments, inventories=(INVENTORY,), **options):
    """Run ansible-playbook over the lab."""
    given = [word for inventory in inventories for word in ("--inventory", str(inventory))]
    return run("ansible-playbook", *given, *map(str, arguments), timeout=900, **options)


def converge(scenario, *arguments, playbook="converge.yml", **variables):
    """Apply the role of one of Molecule's scenarios again, with other variables."""
    return run(
        Path(sys.executable).with_name("ansible-playbook"),
        f"--inventory={CHECKOUT}/molecule/{scenario}/inventory",
        f"--extra-vars={json.dumps(variables)}",
        *arguments,
        CHECKOUT / "molecule" / scenario / playbook,
        check=False,
        timeout=300,
    )


def assert_refused(scenario, cases, *arguments, playbook="converge.yml"):
    """Apply the last role of a scenario's playbook once for each case, all in one run: every host must refuse it.

    A case is a tuple: a dictionary of variables, and what must be said of them.
    """
    directory = CHECKOUT / "molecule" / scenario
    play = yaml.safe_load((directory / playbook).read_text())[-1]
    role = play.pop("roles")[-1]
    play.pop("post_tasks", None)
    play["tasks"] = [
        {
            "block": [
                {"ansible.builtin.include_role": {"name": role}, "vars": variables},
                {"ansible.builtin.fail": {"msg": "It was not refused."}},
            ],
            "rescue": [
                {"ansible.builtin.set_fact": {"told": "{{ told | default([]) + [ansible_failed_result.msg] }}"}}
            ],
        }
        for variables, *_ in cases
    ]
    play["tasks"].append({"ansible.builtin.debug": {"var": "told"}})
    with tempfile.NamedTemporaryFile("w", dir=directory, prefix=".refusals-", suffix=".yml") as file:
        json.dump([play], file)
        file.flush()
        done = converge(scenario, *arguments, playbook=file.name)
    assert done.returncode == 0, done.stdout
    # The last task's output is YAML, indented, below each host's name.
    answers = re.findall(r"^ok: \[(\S+)\] => *\n((?: .*\n|\n)+)", done.stdout.rpartition("\nTASK [")[2], re.MULTILINE)
    assert answers, done.stdout
    for host, text in answers:
        for (variables, *messages), told in zip(cases, yaml.safe_load(text)["told"], strict=True):
            for message in messages:
                assert message in " ".join(told.split()), (host, variables)


@contextmanager
def asking(question, pause=0.02, clients=1):
    """Ask again and again for the time of a with block; yields the list of the answers. What the question raises is raised at the end."""
    answers, stop = [], threading.Event()

    def ask():
        while not stop.wait(pause):
            answers.append(question())

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(ask) for _ in range(clients)]
        try:
            yield answers
        finally:
            stop.set()
    for client in asked:
        client.result()


def wait_until(question, seconds=60):
    """Ask until the answer is true and return it; fail after the given time."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, (
            f"{getattr(question, '__name__', question)} did not come true within {seconds} s"
        )
        time.sleep(0.3)
    return answer


def holders():
    """The load balancers that hold the virtual IP now."""
    return [
        name
        for name in ("server1", "server2")
        if f" {VIRTUAL_IP}/" in on(name, "ip -brief address", check=False).stdout
    ]


def stay_dead(server, unit):
    """Keep systemd from restarting a service that is killed before anybody has noticed."""
    directory = f"/run/systemd/system/{unit}.service.d"
    on(
        server,
        f"mkdir -p {directory} && printf '[Service]\\nRestart=no\\n' >{directory}/test.conf && systemctl daemon-reload",
    )


def revive(server, unit):
    on(server, f"rm -r /run/systemd/system/{unit}.service.d && systemctl daemon-reload && systemctl restart {unit}")


def get(path="/", *options, scheme="https", address=VIRTUAL_IP, check=True):
    """Ask the site as a browser would; returns the status, the headers (lower case) and the body."""
    port = {"http": 80, "https": 443}[scheme]
    done = run(
        *(
            "docker",
            "exec",
            "webstack-client",
            "curl",
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "10",
            "--http1.1",
        ),
        *("--cacert", CA, "--resolve", f"{SITE}:{port}:{address}", *options, f"{scheme}://{SITE}{path}"),
        check=check,
    )
    head, _, body = done.stdout.replace("\r", "").partition("\n\n")
    lines = head.split("\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return SimpleNamespace(status=int(lines[0].split()[1]) if head else 0, headers=headers, body=body, head=head)


def prepare_client():
    """Give the client the authority's certificate and the probe."""
    put("client", CA, (SECRETS / "tls" / "ca.crt").read_text())
    put("client", "/root/probe.py", (CHECKOUT / "tests" / "probe.py").read_text())


class Visitors:
    """tests/probe.py for the time of a with block; then `result` is what it printed."""

    def __init__(self, url, address, ca, *options, probe=(sys.executable, CHECKOUT / "tests" / "probe.py")):
        self.command = (*probe, url, "--address", address, "--ca", ca, *options)
        self.result = {}

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        return self

    def __exit__(self, *_exception):
        time.sleep(0.5)
        output, _ = self.process.communicate("stop\n", timeout=90)
        self.result = json.loads(output)


class Probe(Visitors):
    """The same from the client, through the virtual IP."""

    def __init__(self, path="/", rate=50, *options):
        probe = ("docker", "exec", "--interactive", "webstack-client", "python3", "/root/probe.py")
        super().__init__(f"https://{SITE}{path}", VIRTUAL_IP, CA, "--rate", str(rate), *options, probe=probe)
