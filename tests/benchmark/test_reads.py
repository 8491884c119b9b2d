"""Reads a second through HAProxy's read port, with no replica (the primary answers), one, two and three.

Every database has the same small share of a processor, so that a machine with two of them can show what more machines would. Builds four
databases and an application server of its own as the site does, and removes them again.
"""

import json

import pytest
import yaml

import lab

SHARE = 0.15  # of a processor, for each database
SECONDS = 4  # of each measurement
ROUNDS = 3  # the best counts: what else the machine does meanwhile is no measure
CLIENTS = 12
SKIPPED = "firewall,hardening,gunicorn,mysql_backup,intrusion_detection"
APPLICATION = "reads-app"
DATABASES = [f"reads-db{number}" for number in range(1, 5)]
PRIMARY, *REPLICAS = DATABASES
# Rows that a query has to look through, so that it costs the database much and the client little.
FILL = """
USE guestbook;
SET SESSION cte_max_recursion_depth = 2000;
CREATE TABLE entries (id INT PRIMARY KEY, message TEXT);
INSERT INTO entries WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 2000)
  SELECT id, REPEAT(SHA2(id, 256), 4) FROM n;
"""
# Each client keeps its connection, as an application with a pool does.
LOAD = """
import json, ssl, sys, threading, time
import pymysql

password, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
unverified = ssl._create_unverified_context()
served = {}

def read():
    connection = pymysql.connect(host="127.0.0.1", port=6447, user="reader", password=password, ssl=unverified, read_timeout=60)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@hostname")
        (node,) = cursor.fetchone()
        ready.wait()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            cursor.execute("SELECT COUNT(*) FROM guestbook.entries WHERE message LIKE '%needle%'")
            with lock:
                served[node] = served.get(node, 0) + 1

lock, ready = threading.Lock(), threading.Barrier(clients)
threads = [threading.Thread(target=read) for _ in range(clients)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps({node: count / seconds for node, count in served.items()}))
"""


def inventory(directory):
    """Write the inventory of the lab, which is molecule/mysql_failover's with other hosts; return its directory."""
    sites = directory / "reads"
    sites.mkdir()
    model = lab.CHECKOUT / "molecule" / "mysql_failover" / "inventory"
    (sites / "group_vars").symlink_to((model / "group_vars").resolve())
    everything = yaml.safe_load((model / "hosts.yml").read_text())["all"]
    everything["vars"] |= {"lab_network": "webstack-reads", "lab_subnet": "172.30.73.0/24"}
    databases = {name: {"webstack_address": f"172.30.73.{number}"} for number, name in enumerate(DATABASES, 11)}
    everything["children"] = {
        "appservers": {"hosts": {APPLICATION: {"webstack_address": "172.30.73.10", "lab_image": "debian13"}}},
        "databases": {"hosts": databases},
        "mysql_primary": {"hosts": {PRIMARY: {}}},
        "mysql_replicas": {"hosts": {name: {} for name in REPLICAS}},
    }
    (sites / "hosts.yml").write_text(yaml.safe_dump({"all": everything}))
    return sites


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The databases behind the read port; the password of who reads."""
    where = inventory(tmp_path_factory.mktemp("lab"))
    try:
        lab.playbook("molecule/default/create.yml", inventories=[where])
        lab.playbook("molecule/mysql_failover/prepare.yml", inventories=[where])
        lab.playbook("playbooks/site.yml", "--skip-tags", SKIPPED, inventories=[where])
        lab.run("docker", "exec", "--interactive", PRIMARY, "mysql", input=FILL)
        for name in REPLICAS:
            lab.wait_until(
                lambda name=name: (
                    lab.inside(name, "mysql -NBe 'SELECT COUNT(*) FROM guestbook.entries'").strip() == "2000"
                )
            )
        lab.run("docker", "update", "--cpus", str(SHARE), *DATABASES)
        yield (where.with_suffix(".secrets") / "mysql_reader").read_text().strip()
    finally:
        lab.playbook("molecule/default/destroy.yml", inventories=[where])


def serve(replicas):
    """Leave so many replicas in the read port's pool."""
    for number, name in enumerate(REPLICAS):
        state = "ready" if number < replicas else "maint"
        lab.inside(
            APPLICATION, f"echo 'set server mysql_read/{name} state {state}' | socat stdio /run/haproxy/admin.sock"
        )


def reads(password):
    """Reads a second, by the database that answered them."""
    arguments = (password, str(CLIENTS), str(SECONDS))
    done = lab.run("docker", "exec", "--interactive", APPLICATION, "python3", "-", *arguments, input=LOAD, timeout=180)
    return json.loads(done.stdout)


def test_a_replica_more_serves_more_reads(site, capsys):
    totals = dict.fromkeys(range(len(REPLICAS) + 1), 0.0)
    for _ in range(ROUNDS):
        for replicas in totals:
            serve(replicas)
            served = reads(site)
            assert set(served) == set(REPLICAS[:replicas] or [PRIMARY])
            totals[replicas] = max(totals[replicas], sum(served.values()))
    with capsys.disabled():
        print(f"\nreads a second through the read port, each database with {SHARE} of a processor:")
        for replicas, total in totals.items():
            who = (
                "no replica: the primary" if not replicas else "1 replica" if replicas == 1 else f"{replicas} replicas"
            )
            print(f"  {who:<24} {total:6.0f}   {total / totals[1]:.2f} times one replica")
    assert totals[1] * 1.3 < totals[2]
    assert totals[1] * 1.6 < totals[3]
