"""The site that all tests share, whole before each of them, and the table of what was done to it under load."""

import json

import pytest
import yaml

from lab import CHECKOUT, SITE, Visitors, run, wait_until
from rotation import Signers

SCENARIO = CHECKOUT / "molecule" / "traffic"
INVENTORY = SCENARIO / "inventory"
CA = SCENARIO / "inventory.secrets" / "tls" / "ca.crt"
CLIENT = "traffic-client"
BALANCERS = ["traffic-server1", "traffic-server2"]
PRIMARY = "traffic-server4"
FIFTH, FIFTH_ADDRESS = "traffic-server5", "172.30.73.15"
# Each load balancer is the first choice for one.
VIRTUAL_IPS = dict(zip(BALANCERS, ["172.30.73.8", "172.30.73.9"], strict=True))
# (what was done, what the load says of it)
ROWS = []


def pytest_terminal_summary(terminalreporter):
    if ROWS:
        terminalreporter.section("what happened under load")
        terminalreporter.write_line("| What happened | Requests | Failed | Sessions moved |\n| --- | --- | --- | --- |")
        for what, result in ROWS:
            moved = f"{result['moved']} of {len(result['sessions'])}"
            terminalreporter.write_line(f"| {what} | {result['requests']:,} | {result['failed']} | {moved} |")


class Load(Visitors):
    """tests/load.py on the client for the time of a with block, through both virtual IPs; a row of the table."""

    def __init__(self, what, *options, path="/"):
        self.what = what
        probe = ("docker", "exec", "--interactive", CLIENT, "python3", "/root/load.py")
        super().__init__(f"https://{SITE}{path}", ",".join(VIRTUAL_IPS.values()), "/root/ca.crt", *options, probe=probe)

    def __exit__(self, *exception):
        super().__exit__(*exception)
        ROWS.append((self.what, self.result))
        # A load that did not come proves nothing.
        assert self.result["requests"] > 100, self.result


class Site:
    """The scenario's site as its playbooks and visitors see it."""

    def __init__(self, directory):
        # What the fifth server is once it has joined: this file is given beside the inventory.
        member = {"hosts": {FIFTH: {}}}
        databases = {"children": {"mysql_replicas": member}}
        self.larger = directory / "larger.yml"
        self.larger.write_text(yaml.safe_dump({"webservers": member, "appservers": member, "databases": databases}))
        self.joined = False

    def playbook(self, name, *arguments, inventory=INVENTORY, **variables):
        """Run a playbook over the site, and return the finished process, whatever its end."""
        return run(
            "ansible-playbook",
            f"--inventory={inventory}",
            *([f"--inventory={self.larger}"] if self.joined and inventory == INVENTORY else []),
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

    def on(self, host, command, **options):
        return run("docker", "exec", host, "sh", "-c", command, **options)

    def web_servers(self):
        return ["traffic-server2", "traffic-server3", *([FIFTH] if self.joined else [])]

    def stat(self, balancer, column):
        """A column of a load balancer's statistics for each of its web servers."""
        rows = [line.split(",") for line in self.tell(balancer, "show stat web 4 -1").removeprefix("# ").splitlines()]
        names, *servers = [row for row in rows if len(row) > 1]
        return {row[names.index("svname")]: row[names.index(column)] for row in servers}

    def servers(self, balancer):
        """The web servers of a load balancer and how it sees them."""
        return self.stat(balancer, "status")

    def sessions(self, balancer):
        """The web servers of a load balancer and how many requests each is answering."""
        return {name: int(count) for name, count in self.stat(balancer, "scur").items()}

    def tell(self, balancer, command):
        """Say something to HAProxy's runtime API."""
        return self.on(balancer, f"echo '{command}' | socat stdio /run/haproxy/admin.sock").stdout.strip()

    def asked(self, balancer):
        """How many requests a load balancer has got from visitors so far."""
        stat = self.tell(balancer, "show stat -1 1 -1")
        names, *rows = [line.split(",") for line in stat.removeprefix("# ").splitlines() if "," in line]
        return sum(int(row[names.index("req_tot")] or 0) for row in rows if row[0] == "site")

    def holds(self, balancer):
        """The virtual IPs that a load balancer holds."""
        text = self.on(balancer, "ip -brief address", check=False).stdout
        return {address for address in VIRTUAL_IPS.values() if f" {address}/" in text}

    def serving(self, times=12):
        """The web servers that answer new visitors."""
        ask = f"curl -so /dev/null -D - --cacert /root/ca.crt --resolve {SITE}:443:{VIRTUAL_IPS[BALANCERS[0]]} https://{SITE}/"
        lines = self.on(CLIENT, f"for n in $(seq {times}); do {ask}; done").stdout.lower().splitlines()
        return {line.split(":")[1].strip() for line in lines if line.startswith("x-served-by:")}

    def signers(self):
        """Visitors who sign the guestbook for the time of a with block."""
        return Signers(VIRTUAL_IPS[BALANCERS[0]], CA)

    def query(self, server, statement):
        return self.on(server, f'mysql --batch --skip-column-names --execute "{statement}"').stdout.split()

    def whole(self):
        """Whether each virtual IP is at home and each load balancer sees all of its web servers up."""
        up = dict.fromkeys(self.web_servers(), "UP")
        return all(
            self.holds(balancer) == {VIRTUAL_IPS[balancer]} and self.servers(balancer) == up for balancer in BALANCERS
        )


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    site.joined = FIFTH in site.servers(BALANCERS[0])
    for file in (CHECKOUT / "tests" / "load.py", CA):
        run("docker", "cp", file, f"{CLIENT}:/root/{file.name}")
    return site


@pytest.fixture(autouse=True)
def whole(site):
    wait_until(site.whole)
