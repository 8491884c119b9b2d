"""What is open and what is closed, tried from outside; who is locked out, and who never is."""

import json
import re
import subprocess
import tempfile
import time
from functools import partial

import pytest

import lab
from lab import run

converge = partial(lab.converge, "firewall", firewall_manage_packages=False)

EDGE, INSIDE, VISITOR = "firewall-edge", "firewall-inside", "firewall-visitor"
ADDRESS = {EDGE: "172.30.64.11", INSIDE: "172.30.64.12", VISITOR: "172.30.64.100"}
SECOND = "172.30.64.101"  # the visitor's, too
VIRTUAL = "172.30.64.10"
PORTS = (22, 443, 3306, 8000, 8404, 9999)
KEPT = "/etc/nftables/webstack.nft"
TOOL = "/usr/local/libexec/webstack-firewall"


def on(host, command, **options):
    return run("docker", "exec", "--interactive", host, "sh", "-c", command, **options)


def knock(host, *doors, seconds=1, source=""):
    """Try (address, port) pairs from a host and return what came of each: open, refused or silent."""
    done = on(host, f"/usr/local/bin/knock.py {seconds} {source}", input=json.dumps(doors))
    return dict(zip(doors, json.loads(done.stdout), strict=True))


def state(host):
    return on(host, f"{TOOL} state").stdout.split("\n")[-2]


def applied(*arguments, **variables):
    done = converge(*arguments, **variables)
    assert done.returncode == 0, done.stdout
    return done


def changes(done):
    """The number of changed tasks for each host."""
    return {host: int(count) for host, count in re.findall(r"^(\S+) +: .*changed=(\d+)", done.stdout, re.MULTILINE)}


class Connection:
    """A TCP connection from one host to another, to a service that answers with what it is sent."""

    PROGRAM = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
print("open", flush=True)
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.recv(100).decode(), end="", flush=True)
"""

    def __init__(self, client, address, port):
        self.process = subprocess.Popen(
            ["docker", "exec", "--interactive", client, "python3", "-c", self.PROGRAM, address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout.readline() == "open\n"

    def answers(self):
        self.process.stdin.write("are you there?\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "are you there?\n"

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module", autouse=True)
def _tables_of_others_stay_as_they_are():
    before = on(INSIDE, "nft list table ip theirs").stdout
    assert "198.51.100.66" in before
    yield
    assert on(INSIDE, "nft list table ip theirs").stdout == before


@pytest.fixture
def _as_it_was():
    """Put the rulesets back in force after a test that wants another one."""
    before = {host: on(host, f"cat {KEPT}").stdout for host in (EDGE, INSIDE)}
    yield
    for host, ruleset in before.items():
        if state(host) != "in force" or on(host, f"cat {KEPT}").stdout != ruleset:
            on(host, f"cat >/etc/nftables/webstack.next.nft && {TOOL} try 30 && {TOOL} keep", input=ruleset)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory):
    """The variables with which a run reaches the inside by ssh."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    on(
        INSIDE,
        "mkdir -p -m 0700 /root/.ssh && cat >/root/.ssh/authorized_keys",
        input=key.with_suffix(".pub").read_text(),
    )
    return {
        "ansible_connection": "ssh",
        "ansible_user": "root",
        "ansible_host": ADDRESS[INSIDE],
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
    }


@pytest.fixture
def sockets():
    """A directory for ssh's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="fw") as directory:
        yield directory


@pytest.mark.parametrize(
    ("client", "drawn"),
    [
        (EDGE, {(ADDRESS[INSIDE], 8000), (ADDRESS[INSIDE], 22)}),
        (INSIDE, {(VIRTUAL, 443), (ADDRESS[EDGE], 8404)}),
        (VISITOR, {(VIRTUAL, 443), (ADDRESS[INSIDE], 22)}),
    ],
)
def test_what_is_drawn_is_open_and_everything_else_is_silent(client, drawn):
    doors = [
        (address, port)
        for address in (VIRTUAL, ADDRESS[EDGE], ADDRESS[INSIDE])
        for port in PORTS
        if address != ADDRESS[client] and (client, address) != (EDGE, VIRTUAL)
    ]
    found = knock(client, *doors)
    assert {door for door, result in found.items() if result == "open"} == drawn
    assert {result for door, result in found.items() if door not in drawn} == {"silent"}


def test_a_host_reaches_itself_on_every_port():
    doors = [(address, 9999) for address in ("127.0.0.1", ADDRESS[EDGE], VIRTUAL)]
    assert set(knock(EDGE, *doors).values()) == {"open"}


def test_a_datagram_comes_in_from_a_drawn_network_alone():
    ask = (
        "python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); "
        f's.sendto(b"?", ("{ADDRESS[EDGE]}", 5353)); print(s.recv(9))\''
    )
    assert "?" in on(INSIDE, ask).stdout
    assert "imeout" in on(VISITOR, ask, check=False).stderr


def test_vrrp_is_heard_from_a_peer_alone():
    hear = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112); s.settimeout(2)\n"
        'print("listening", flush=True)\n'
        "try:\n    while True: print(s.recvfrom(99)[1][0])\nexcept TimeoutError: pass"
    )
    listener = subprocess.Popen(["docker", "exec", EDGE, "python3", "-c", hear], stdout=subprocess.PIPE, text=True)
    assert listener.stdout.readline() == "listening\n"
    for host in (VISITOR, INSIDE):
        on(
            host,
            "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)"
            f'.sendto(b"I am the master", ("{ADDRESS[EDGE]}", 0))\'',
        )
    assert listener.communicate(timeout=10)[0].split() == [ADDRESS[INSIDE]]


def test_what_is_dropped_is_counted_and_the_listing_names_the_services():
    on(EDGE, "nft reset counters table inet webstack")
    knock(VISITOR, (ADDRESS[EDGE], 3306), seconds=0.5)
    listing = on(EDGE, "nft list table inet webstack").stdout
    assert re.search(r"counter not_drawn \{[^}]*packets [1-9]", listing)
    assert '"https: visitors"' in listing
    assert '172.30.64.12 comment "firewall-inside"' in listing


def test_ipv6_is_open_and_closed_as_drawn():
    """The containers' network has no IPv6, so the ruleset is loaded into a namespace of the edge that has."""
    space = "ip netns exec guarded"
    ask = "import json, sys; sys.path.append('/usr/local/bin'); import knock; print(json.dumps(knock.knock({}, 1.5, {!r})))"
    doors = [(f"fd00:64::{host}", port) for host in (10, 11) for port in (443, 8404, 3306)]
    on(
        EDGE,
        "ip netns add guarded && ip link add outside type veth peer name inside netns guarded; ip netns add asking; "
        "ip link set outside netns asking; "
        f"{space} sh -c 'ip link set lo up; ip link set inside up; "
        "for a in 10 11; do ip address add fd00:64::$a/64 dev inside nodad; done; "
        f"nft --file {KEPT}' && "
        "ip netns exec asking sh -c 'ip link set outside up; for a in 12 100; do ip address add fd00:64::$a/64 dev outside nodad; done'",
    )
    server = subprocess.Popen(["docker", "exec", EDGE, *space.split(), "/usr/local/bin/echo.py"])
    try:
        lab.wait_until(lambda: ":9999 " in on(EDGE, f"{space} ss --listening --tcp --numeric").stdout)
        results = {
            source: dict(
                zip(
                    doors,
                    json.loads(on(EDGE, f'ip netns exec asking python3 -c "{ask.format(doors, source)}"').stdout),
                    strict=True,
                )
            )
            for source in ("fd00:64::12", "fd00:64::100")
        }
    finally:
        on(EDGE, "ip netns pids guarded | xargs -r kill; ip netns delete guarded; ip netns delete asking")
        server.wait()
    found = {source: {door for door, result in of.items() if result == "open"} for source, of in results.items()}
    assert found == {
        "fd00:64::12": {("fd00:64::10", 443), ("fd00:64::11", 8404)},
        "fd00:64::100": {("fd00:64::10", 443)},
    }
    assert {result for of in results.values() for result in of.values()} == {"open", "silent"}


def test_a_flood_is_limited_and_others_are_served_meanwhile():
    doors = json.dumps([(VIRTUAL, 443)] * 900)
    flood = json.loads(on(VISITOR, "/usr/local/bin/knock.py 0.8", input=doors).stdout)
    assert 400 <= flood.count("open") < 900
    assert "silent" in flood
    assert knock(VISITOR, (VIRTUAL, 443), source=SECOND) == {(VIRTUAL, 443): "open"}
    assert re.search(r"counter too_fast \{[^}]*packets [1-9]", on(EDGE, "nft list counters table inet webstack").stdout)
    # It is over with the flood: nobody stays banned.
    lab.wait_until(lambda: knock(VISITOR, (VIRTUAL, 443)) == {(VIRTUAL, 443): "open"})


def test_a_page_with_all_that_belongs_to_it_is_far_below_the_limit():
    doors = json.dumps([(VIRTUAL, 443)] * 50)
    for _ in range(4):
        assert set(json.loads(on(VISITOR, "/usr/local/bin/knock.py", input=doors).stdout)) == {"open"}
        time.sleep(0.2)


@pytest.mark.usefixtures("_as_it_was")
def test_a_connection_stays_when_its_flow_goes_and_a_drawn_service_opens_to_more_clients_by_its_name():
    door = (ADDRESS[INSIDE], 8000)
    app = {"service": "app", "port": 8000, "protocol": "http", "address": ADDRESS[INSIDE]}
    drawn = {"incoming": [app | {"clients": [{"name": "visitor", "address": ADDRESS[VISITOR]}]}]}
    more = {"incoming": [{"service": "app", "clients": [{"name": "office", "address": SECOND}]}]}
    assert knock(VISITOR, door, source=SECOND) == {door: "silent"}
    with Connection(EDGE, *door) as connection:
        assert connection.answers()
        applied("--limit", INSIDE, firewall_flows=drawn, firewall_extra_flows=more)
        assert knock(EDGE, door) == {door: "silent"}
        assert connection.answers()
    for source in (ADDRESS[VISITOR], SECOND):
        assert knock(VISITOR, door, source=source) == {door: "open"}


@pytest.mark.usefixtures("_as_it_was")
def test_it_is_removed_without_trace_and_a_connection_from_before_it_comes_back_stays():
    assert changes(applied("--limit", EDGE, firewall_state="absent"))[EDGE] > 0
    assert changes(applied("--limit", EDGE, firewall_state="absent"))[EDGE] == 0
    assert on(EDGE, f"ls -d {KEPT} {TOOL}; systemctl cat webstack-firewall", check=False).stdout == ""
    tables = on(EDGE, "nft list tables").stdout
    assert "webstack" not in tables
    assert "table ip nat" in tables, "the container engine's own table is gone"
    assert knock(VISITOR, (ADDRESS[EDGE], 3306)) == {(ADDRESS[EDGE], 3306): "open"}
    with Connection(INSIDE, ADDRESS[EDGE], 8404) as connection:
        assert connection.answers()
        applied("--limit", EDGE, firewall_outgoing="drop")
        assert connection.answers()
    # What leaves now is what is drawn, and the essentials.
    doors = [(ADDRESS[INSIDE], port) for port in (8000, 22)] + [(ADDRESS[VISITOR], port) for port in (443, 9999)]
    assert list(knock(EDGE, *doors).values()) == ["open", "silent", "open", "silent"]
    assert knock(VISITOR, (VIRTUAL, 443)) == {(VIRTUAL, 443): "open"}


@pytest.mark.parametrize(
    "meddling",
    [
        "nft delete table inet webstack",
        "nft insert rule inet webstack input tcp dport 9999 accept",
        "nft add element inet webstack status_clients '{ 172.30.64.100 }'",
        f"rm {KEPT}",
        "systemctl --quiet disable webstack-firewall",
    ],
)
def test_what_somebody_changed_by_hand_is_found(meddling):
    on(EDGE, meddling)
    assert state(EDGE) == "different"
    on(EDGE, f"{TOOL} try 30 && {TOOL} keep")
    assert state(EDGE) == "in force"
    assert set(knock(VISITOR, (ADDRESS[EDGE], 9999), (ADDRESS[EDGE], 8404), seconds=0.5).values()) == {"silent"}


def test_a_flushed_table_is_announced_by_a_dry_run_and_mended_by_a_run():
    on(EDGE, "nft flush table inet webstack")
    assert changes(applied("--limit", EDGE, "--check"))[EDGE] == 1
    assert state(EDGE) == "different"
    assert changes(applied("--limit", EDGE))[EDGE] > 0
    assert state(EDGE) == "in force"


def test_limiting_a_visitor_is_no_change():
    knock(VISITOR, (VIRTUAL, 443))
    assert "172.30.64.100" in on(EDGE, "nft list set inet webstack visitors").stdout
    assert state(EDGE) == "in force"


@pytest.mark.parametrize("verb", ["start", "reload", "restart", "stop"])
def test_the_table_outlives_the_distributions_own_unit(verb):
    on(EDGE, f"systemctl {verb} nftables")
    assert state(EDGE) == "in force"


@pytest.mark.usefixtures("_as_it_was")
def test_a_reboot_in_the_middle_of_a_trial_brings_back_what_was_kept():
    kept = on(INSIDE, f"cat {KEPT}").stdout
    on(INSIDE, f"sed 's/tcp dport 22/tcp dport 2222/' {KEPT} >/etc/nftables/webstack.next.nft && {TOOL} try 600")
    door, closed = (ADDRESS[INSIDE], 22), (ADDRESS[INSIDE], 9999)
    assert knock(VISITOR, door) == {door: "silent"}
    theirs = on(INSIDE, "nft list table ip theirs").stdout
    run("docker", "restart", "--time", "5", INSIDE)
    on(INSIDE, "nft --file -", input=theirs)
    lab.wait_until(lambda: knock(VISITOR, door, seconds=0.5) == {door: "open"})
    assert on(INSIDE, f"cat {KEPT}").stdout == kept
    assert on(INSIDE, "systemctl is-active echo").stdout == "active\n"
    assert knock(VISITOR, closed) == {closed: "silent"}


@pytest.mark.usefixtures("_as_it_was")
def test_a_ruleset_that_lets_no_new_connection_in_is_taken_back(ssh, sockets):
    """The run comes from a pool of addresses: the connection that is open is admitted, the next one is not."""
    on(VISITOR, "rm -f /root/count")
    pool = (
        f"-o ProxyCommand='docker exec --interactive {VISITOR} /usr/local/bin/jump.py /root/count "
        f"{ADDRESS[INSIDE]} 22 {ADDRESS[VISITOR]} {SECOND}' -o ControlPath={sockets}/%C"
    )
    ssh = ssh | {"ansible_ssh_common_args": f"{ssh['ansible_ssh_common_args']} {pool}"}
    before = on(INSIDE, f"cat {KEPT}; nft --stateless list table inet webstack").stdout
    began = time.monotonic()
    done = converge(
        *("--limit", INSIDE),
        **ssh,
        firewall_admin_networks=[ADDRESS[VISITOR]],
        firewall_confirm_timeout=10,
    )
    assert done.returncode == 2, done.stdout
    assert "has the previous one again" in done.stdout
    assert "firewall_admin_networks" in done.stdout
    assert time.monotonic() - began < 60
    assert on(INSIDE, f"cat {KEPT}; nft --stateless list table inet webstack").stdout == before
    assert knock(VISITOR, (ADDRESS[INSIDE], 22), source=SECOND) == {(ADDRESS[INSIDE], 22): "open"}
    # The next run tries again, and a good one is kept.
    again = applied("--limit", INSIDE, **ssh, firewall_admin_networks=[ADDRESS[VISITOR], SECOND])
    assert changes(again)[INSIDE] > 0
    assert SECOND in on(INSIDE, f"cat {KEPT}").stdout
    assert on(INSIDE, "systemctl list-timers --all --no-legend 'webstack-firewall*'").stdout == ""


def test_the_connection_of_the_run_is_found_although_sudo_has_hidden_it(ssh):
    login = ("ssh", "-i", ssh["ansible_ssh_private_key_file"], *ssh["ansible_ssh_common_args"].split())
    seen = run(*login, f"root@{ADDRESS[INSIDE]}", f"env --ignore-environment {TOOL} state; true").stdout
    assert re.fullmatch(r"172\.30\.64\.1 \d+ 172\.30\.64\.12 22\nin force\n", seen)


def incoming(**changes):
    return {"firewall_extra_flows": {"incoming": [{"service": "cache", "port": 6379, "internet": True} | changes]}}


def test_what_cannot_be_a_rule_or_would_lock_the_run_out_is_refused_and_what_is_in_force_stays(ssh):
    refused = [
        ({"firewall_admin_networks": ["172.30.64.5/24"]}, "the network of that address is 172.30.64.0/24"),
        (incoming(protocol="sctp"), "sctp"),
        (incoming(port=65536), "firewall_extra_flows.incoming[cache].port is 65536: give a port from 1 to 65535"),
        (incoming(internet=False), "nobody draws it"),
        (incoming(port=None), "no one draws it on this host (drawn: app"),
        ({"firewall_confirm_timeout": 1}, "firewall_confirm_timeout is 1: give 10 to 600 seconds"),
        (
            {"firewall_admin_networks": ["198.51.100.0/24"]},
            "Add 172.30.64.1, or its network, to firewall_admin_networks",
        ),
        ({"firewall_ssh_port": 2222}, "Set firewall_ssh_port: 22"),
    ]
    before = on(INSIDE, "cat /etc/nftables/*").stdout
    lab.assert_refused("firewall", refused, "--limit", INSIDE, f"--extra-vars={json.dumps(ssh)}")
    assert on(INSIDE, "cat /etc/nftables/*").stdout == before
    assert state(INSIDE) == "in force"
