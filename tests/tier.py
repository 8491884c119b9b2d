"""The database tier of a scenario from outside: its nodes, what is done to them, and what the ledger says of it afterwards."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from string import Template

import yaml

from lab import CHECKOUT, run, wait_until

# (what happened, what the ledger says of it): the table that the tests of a scenario end with.
FAULTS = []
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# Makes a repository with a newer version of the packages: the same content, and the scripts that an upgrade runs.
NEWER = """
set -e
mkdir /srv/newer
cd /srv/newer
apt-get download -qq mysql-server mysql-server-core
for package in *.deb; do
  dpkg-deb --raw-extract $package tree
  sed -E -i 's/^Version: .*/&+newer/; s/(mysql-server-core \\(= [^)]+)/\\1+newer/' tree/DEBIAN/control
  dpkg-deb -Znone --build tree $package >/dev/null
  rm -r tree
  dpkg-deb --field $package
  printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' $package $(stat --format=%s $package) $(sha256sum <$package | cut -c -64)
done >Packages
"""
VERSIONS = "dpkg-query --show --showformat='${db:Status-Abbrev} ${Version}\\n' mysql-server mysql-server-core"


def table():
    """FAULTS as Markdown."""
    lines = ["| What happened | Acknowledged | Lost | Phantom | No write for |", "|---|---|---|---|---|"]
    for fault, result in FAULTS:
        lines.append(
            f"| {fault} | {result['acknowledged']} | {result['lost']} | {result['phantom']} | {result['gap']:.1f} s |"
        )
    return "\n".join(lines)


class Tier:
    """The nodes of a scenario by name with their addresses, and the application server, beside whose HAProxy the ledger runs."""

    def __init__(self, scenario):
        self.directory = CHECKOUT / "molecule" / scenario
        groups = yaml.safe_load((self.directory / "inventory" / "hosts.yml").read_text())["all"]["children"]
        databases = [group["hosts"] for group in groups["databases"]["children"].values()]
        self.nodes = {node: given["webstack_address"] for hosts in databases for node, given in hosts.items()}
        self.application = next(iter(groups["appservers"]["hosts"]))

    # The control node.

    def playbook(self, name, *arguments, **variables):
        """Run a playbook as the scenario does; return the finished process, whatever its end."""
        settings = yaml.safe_load((self.directory / "molecule.yml").read_text())
        given = Template("\n".join(settings["ansible"]["executor"]["args"]["ansible_playbook"]))
        return run(
            "ansible-playbook",
            *given.substitute(MOLECULE_SCENARIO_DIRECTORY=self.directory).splitlines(),
            f"--extra-vars={json.dumps(variables)}",
            *map(str, arguments),
            f"playbooks/{name}.yml",
            check=False,
            timeout=300,
        )

    def do(self, name, *arguments, **variables):
        """Run a playbook that must succeed; return what it said."""
        done = self.playbook(name, *arguments, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def out_of_reach(self, node, directory):
        """Return the options with which a playbook cannot reach a node."""
        file = directory / "out_of_reach.yml"
        way = {"ansible_connection": "ssh", "ansible_host": self.nodes[node], "ansible_timeout": 2}
        file.write_text(yaml.safe_dump({"all": {"hosts": {node: way}}}))
        return ("--inventory", file)

    # A server.

    def on(self, host, command, **options):
        """Run a shell command."""
        return run("docker", "exec", host, "sh", "-c", command, **options)

    def put(self, host, path, text):
        run("docker", "exec", "--interactive", host, "sh", "-c", f"umask 077 && cat >{path}", input=text)

    def sql(self, node, *statements):
        return run("docker", "exec", node, "mysql", "-N", "-B", "-e", "; ".join(statements)).stdout.strip()

    def state(self, node):
        """What the state service of a node says of it; nothing where there is no answer."""
        try:
            with NO_PROXY.open(f"http://{self.nodes[node]}:9201/", timeout=2) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except (OSError, ValueError):
            return {}

    def writable(self):
        """The nodes to which the write port would lead."""
        return [node for node in self.nodes if self.write_check(node)]

    def write_check(self, node):
        try:
            return NO_PROXY.open(f"http://{self.nodes[node]}:9201/write", timeout=2).status == 200
        except OSError:
            return False

    def primary(self):
        """The one node that is open, as soon as there is one."""
        nodes = wait_until(self.writable)
        assert len(nodes) == 1, f"{nodes} are open at one time"
        return nodes[0]

    def replicas(self):
        primary = self.primary()
        return [node for node in self.nodes if node != primary]

    def follows(self, node):
        """Whether a node is a replica of the primary that has nothing left to do."""
        state = self.state(node)
        primary = self.state(self.primary())
        return (
            [source["source_uuid"] for source in state.get("sources", [])] == [primary["server_uuid"]]
            and state["lag"] is not None
            and state["sources"][0]["receiver"] == "ON"
            and state["gtid_executed"] == primary["gtid_executed"]
        )

    def whole(self):
        """Whether one node is open, and all others follow it."""
        return all(self.follows(node) for node in self.replicas())

    def waits(self):
        """Whether the primary acknowledges a commit only once a replica holds it. It finds out with its first commit."""
        return self.state(self.primary())["semi_sync"]["source_active"]

    def most_advanced(self, nodes):
        """The node that has received all that the others have."""
        received = "SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status"
        sets = {node: self.sql(node, f"SELECT CONCAT(@@GLOBAL.gtid_executed, ',', ({received}))") for node in nodes}
        sets = {node: gtids.replace("\\n", "") for node, gtids in sets.items()}

        def has_all(node):
            subsets = (f"GTID_SUBSET('{gtids}', '{sets[node]}')" for gtids in sets.values())
            return self.sql(node, f"SELECT {' AND '.join(subsets)}") == "1"

        return next(filter(has_all, nodes))

    def kill(self, node):
        run("docker", "kill", node)

    def start(self, node):
        """Start a killed node, and wait until its mysqld answers."""
        run("docker", "start", node)
        wait_until(lambda: self.state(node).get("role", "down") != "down")

    def offer_newer_packages(self):
        """Give all nodes a repository with newer packages of MySQL."""
        first, *others = self.nodes
        self.on(first, NEWER, timeout=120)
        for node in others:
            run("sh", "-c", f"docker cp {first}:/srv/newer - | docker cp - {node}:/srv")
        for node in self.nodes:
            self.on(node, "echo 'deb [trusted=yes] file:/srv/newer ./' >/etc/apt/sources.list.d/newer.list")

    def has_newer_packages(self, node):
        return len(re.findall(r"^ii  \S+\+newer$", self.on(node, VERSIONS).stdout, re.MULTILINE)) == 2

    def stall(self, node):
        """Let mysqld hang."""
        self.on(node, "pkill -STOP -x mysqld")

    def resume(self, node):
        self.on(node, "pkill -CONT -x mysqld")

    def cut(self, node, directions=("input", "output"), nodes=()):
        """Let nothing through to the network, or to and from the given nodes, in both directions or in one."""
        addresses = ", ".join(self.nodes[other] for other in nodes)
        rules = "".join(
            f"chain {hook} {{ type filter hook {hook} priority -500; "
            + (f"ip {side} {{ {addresses} }} drop; }}; " if nodes else f"{interface} != lo drop; }}; ")
            for hook, interface, side in (("input", "iifname", "saddr"), ("output", "oifname", "daddr"))
            if hook in directions
        )
        self.on(node, f"nft 'table inet cut {{ {rules} }}'")

    def heal(self, node):
        self.on(node, "nft delete table inet cut")

    # The application server.

    def prepare(self):
        """Give the application server the ledger, and the application's own account."""
        secrets = self.directory / "inventory.secrets"
        self.put(self.application, "/root/ledger.py", (CHECKOUT / "tests" / "ledger.py").read_text())
        self.put(self.application, "/root/ca.crt", (secrets / "tls" / "ca.crt").read_text())
        self.put(self.application, "/root/password", (secrets / "mysql_writer").read_text())

    def ledger(self, fault, **options):
        return Ledger(self, fault, **options)


class Ledger:
    """tests/ledger.py on the application server, from the begin of a with block to its end; then `compare` says what became of it."""

    def __init__(self, tier, fault, clients=4, rate=50):
        self.tier, self.fault = tier, fault
        self.log = f"/root/ledger.{time.time():.3f}"
        self.options = ("--log", self.log, "--password-file", "/root/password", "--ca", "/root/ca.crt")
        self.load = ("--clients", str(clients), "--rate", str(rate), "--seconds", "240")

    def command(self, *arguments):
        return ("docker", "exec", "--interactive", self.tier.application, "python3", "/root/ledger.py", *arguments)

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command("write", *self.options, *self.load), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.wait_for_write()
        wait_until(self.tier.waits)
        time.sleep(1)
        return self

    def __exit__(self, *_exception):
        time.sleep(0.5)
        self.process.communicate("stop\n", timeout=60)
        assert self.process.returncode == 0

    def wait_for_write(self, seconds=60):
        """Wait until a write that began after this moment is acknowledged. All containers have this machine's clock."""
        moment = time.time()
        newest = f"tac {self.log} | grep --max-count=1 ^acknowledged | cut --delimiter=' ' --fields=4"
        wait_until(lambda: float(self.tier.on(self.tier.application, newest).stdout or 0) > moment + 0.1, seconds)

    def compare(self):
        """Compare with what the primary of now holds."""
        where = ("--host", self.tier.nodes[self.tier.primary()], "--port", "3306", "--timeout", "20")
        done = run(*self.command("compare", *self.options, *where), check=False)
        assert done.stdout, done.stderr
        return json.loads(done.stdout.splitlines()[0])

    def note(self):
        """Compare, and add a line to the table."""
        result = self.compare()
        FAULTS.append((self.fault, result))
        return result

    def nothing_is_lost(self):
        """Compare and note; nothing acknowledged may be missing, and nothing be there that nobody wrote."""
        result = self.note()
        assert (result["lost"], result["phantom"]) == (0, 0), result
        return result
