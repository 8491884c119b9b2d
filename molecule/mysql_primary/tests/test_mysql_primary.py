"""A primary and its replica, as applications and operators meet them."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import testinfra

import lab

PRIMARY = testinfra.get_host("docker://mysql-primary-1")
REPLICA = testinfra.get_host("docker://mysql-primary-2")
ADDRESS = {PRIMARY: "172.30.61.11", REPLICA: "172.30.61.12"}
WRITER, READER = ("guestbook_writer", "writer-of-the-test"), ("guestbook_reader", "reader-of-the-test")


def converge(playbook="converge.yml", **variables):
    result = lab.converge("mysql_primary", playbook=playbook, **variables)
    assert result.returncode == 0, result.stdout


def sql(node, statement):
    """Return what root reads by socket."""
    return node.check_output("mysql -Nse %s", statement)


def login(node, account, statement="SELECT 1", options="--ssl-mode=VERIFY_IDENTITY --ssl-ca=/etc/mysql/tls/ca.pem"):
    """Run a statement over the network as an application does, from the other node."""
    user, password = account
    client = REPLICA if node is PRIMARY else PRIMARY
    command = f"MYSQL_PWD={password} mysql -N --host={ADDRESS[node]} --user={user} {options} -e %s guestbook"
    return client.run(command, statement)


def ask(node, path):
    """Return status and body of an answer of the node's state service."""
    try:
        with urllib.request.urlopen(f"http://{ADDRESS[node]}:9201{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def uses(node):
    """Return what the node may be used for: (writes, reads 5 seconds old at most)."""
    return ask(node, "/write")[0] == 200, ask(node, "/read?max_lag=5")[0] == 200


def role(node):
    return ask(node, "/")[1]["role"]


def process(node):
    return node.run("pidof mysqld").stdout.strip()


def eventually(expected, probe, seconds=60):
    until = time.monotonic() + seconds
    while (seen := probe()) != expected and time.monotonic() < until:
        time.sleep(0.1)
    assert seen == expected


def journal(node, unit):
    return node.check_output(f"journalctl --unit={unit} --output=cat --no-pager")


@pytest.fixture(scope="module", autouse=True)
def table():
    assert login(PRIMARY, WRITER, "CREATE TABLE entries (id INT PRIMARY KEY)").rc == 0
    yield
    login(PRIMARY, WRITER, "DROP TABLE entries")


@contextmanager
def afterwards(function, *arguments, **keywords):
    """Put things right whatever the test did."""
    try:
        yield
    finally:
        function(*arguments, **keywords)


def test_a_row_written_to_the_primary_is_read_from_the_replica():
    assert login(PRIMARY, WRITER, "INSERT INTO entries VALUES (1)").rc == 0
    eventually("1\n", lambda: login(REPLICA, READER, "SELECT id FROM entries WHERE id = 1").stdout)


def test_replication_travels_over_tls():
    version = """
        SELECT variable_value FROM performance_schema.threads JOIN performance_schema.status_by_thread USING (thread_id)
        WHERE processlist_user = 'replication' AND variable_name = 'Ssl_version'
    """
    assert sql(PRIMARY, version).startswith("TLSv1.")


def test_plain_text_connections_are_refused():
    assert login(PRIMARY, WRITER, options="--ssl-mode=REQUIRED").rc == 0
    assert "Access denied" in login(PRIMARY, WRITER, options="--ssl-mode=DISABLED").stderr


def test_an_application_can_do_what_was_granted_and_no_more():
    assert "1142" in login(PRIMARY, READER, "INSERT INTO entries VALUES (2)").stderr
    assert "1142" in login(PRIMARY, WRITER, "SELECT * FROM mysql.user").stderr


def test_the_replica_refuses_writes_of_everybody():
    assert "1290" in login(REPLICA, WRITER, "INSERT INTO entries VALUES (2)").stderr
    assert "1290" in REPLICA.run("mysql -e 'CREATE DATABASE other'").stderr


@pytest.mark.parametrize("node", [PRIMARY, REPLICA], ids=["primary", "replica"])
def test_root_comes_by_socket_only_on_a_seeded_node_too(node):
    assert sql(node, "SELECT CURRENT_USER()") == "root@localhost"
    assert login(node, ("root", "")).failed
    assert (
        sql(node, "SELECT COUNT(*) FROM mysql.user WHERE user = '' OR (user = 'root' AND host <> 'localhost')") == "0"
    )


def test_the_state_service_knows_the_primary_from_the_replica():
    assert uses(PRIMARY) == (True, True)
    assert uses(REPLICA) == (False, True)


def test_a_replica_whose_applier_stopped_serves_no_reads():
    with afterwards(sql, REPLICA, "START REPLICA"):
        sql(REPLICA, "STOP REPLICA SQL_THREAD")
        eventually((False, False), lambda: uses(REPLICA))
    eventually((False, True), lambda: uses(REPLICA))


def test_a_replica_that_has_lost_its_source_serves_reads_until_they_are_too_old():
    with afterwards(sql, REPLICA, "START REPLICA"):
        sql(REPLICA, "STOP REPLICA IO_THREAD")
        eventually(503, lambda: ask(REPLICA, "/read?max_lag=4")[0])
        assert ask(REPLICA, "/read?max_lag=600")[0] == 200
    eventually((False, True), lambda: uses(REPLICA))


def test_a_replica_that_falls_behind_serves_no_reads_until_it_has_caught_up():
    client = ["docker", "exec", "--interactive", "mysql-primary-2", "mysql", "--skip-column-names", "--unbuffered"]
    with subprocess.Popen(client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lock:
        lock.stdin.write("LOCK TABLES guestbook.entries READ; SELECT 'locked';\n")
        lock.stdin.flush()
        assert lock.stdout.readline() == "locked\n"
        assert login(PRIMARY, WRITER, "INSERT INTO entries VALUES (3)").rc == 0
        eventually(503, lambda: ask(REPLICA, "/read?max_lag=4")[0])
        lock.stdin.close()
    eventually((False, True), lambda: uses(REPLICA))
    eventually("3\n", lambda: login(REPLICA, READER, "SELECT id FROM entries WHERE id = 3").stdout)


def sides(node):
    """Return both sides of semi-synchronous replication, of this node."""
    return ask(node, "/")[1]["semi_sync"]


def armed():
    """Return whether the primary waits for its replica, and would wait for one that has gone."""
    seen = sides(PRIMARY)
    return seen["source"] and seen["source_active"] and seen["source_replicas"] == 1 and seen["wait_no_replica"]


def test_a_commit_waits_for_the_replica_as_soon_as_that_is_attached():
    eventually(True, armed)
    assert (sides(REPLICA)["source"], sides(REPLICA)["replica_active"]) == (False, True)
    before = sides(PRIMARY)["unacknowledged"]
    assert login(PRIMARY, WRITER, "INSERT INTO entries VALUES (10)").rc == 0
    assert sides(PRIMARY)["unacknowledged"] == before


def test_commits_stall_while_the_last_replica_is_gone_and_reads_go_on():
    eventually(True, armed)
    with afterwards(REPLICA.run_expect, [0], "systemctl start mysql"):
        REPLICA.run_expect([0], "systemctl stop mysql")
        assert uses(REPLICA) == (False, False)
        insert = ["docker", "exec", "mysql-primary-1", "mysql", "-e", "INSERT INTO guestbook.entries VALUES (4)"]
        with subprocess.Popen(insert) as client:
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(timeout=3)
            assert sides(PRIMARY)["waiting"] == 1
            assert sql(PRIMARY, "SELECT COUNT(*) FROM guestbook.entries WHERE id = 4") == "0", "seen before it is safe"
            REPLICA.run_expect([0], "systemctl start mysql")
            assert client.wait(timeout=30) == 0
    eventually("4\n", lambda: login(REPLICA, READER, "SELECT id FROM entries WHERE id = 4").stdout)
    assert uses(REPLICA) == (False, True)
    eventually(True, armed)


def test_an_operator_ends_a_stall_and_it_is_armed_again_with_the_next_replica():
    eventually(True, armed)
    with afterwards(sql, REPLICA, "START REPLICA"):
        sql(REPLICA, "STOP REPLICA IO_THREAD")
        eventually(0, lambda: sides(PRIMARY)["source_replicas"])
        sql(PRIMARY, "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF")
        time.sleep(2)
        assert PRIMARY.run("timeout 5 mysql -e 'INSERT INTO guestbook.entries VALUES (11)'").rc == 0
    eventually(True, armed)


def assert_open_by_itself():
    """The primary is open again, and from its first commit on it waits for the replica."""
    eventually((True, True), lambda: uses(PRIMARY))
    assert login(PRIMARY, WRITER, "REPLACE INTO entries VALUES (5)").rc == 0
    assert sides(PRIMARY)["unacknowledged"] == 0
    eventually(True, armed)


def test_a_replica_keeps_what_its_source_said_last_and_the_primary_opens_by_itself_when_it_is_started():
    eventually(True, lambda: (ask(REPLICA, "/")[1]["source_seen"] or {}).get("semi_sync_active"))
    executed = ask(PRIMARY, "/")[1]["gtid_executed"]
    eventually(executed, lambda: ask(REPLICA, "/")[1]["source_seen"]["gtid_executed"])
    with afterwards(PRIMARY.run_expect, [0], "systemctl start mysql"):
        PRIMARY.run_expect([0], "systemctl stop mysql")
        stopped = time.time()
        time.sleep(2)
        seen = ask(REPLICA, "/")[1]["source_seen"]
        assert (seen["gtid_executed"], seen["source"]) == (executed, ADDRESS[PRIMARY])
        assert seen["at"] <= stopped
    assert_open_by_itself()


def test_a_primary_that_is_killed_is_open_again_by_itself():
    old = process(PRIMARY)
    PRIMARY.run_expect([0], "pkill -9 -x mysqld")
    eventually(True, lambda: process(PRIMARY) not in ("", old))
    assert_open_by_itself()


def test_a_primary_that_restarts_waits_for_a_peer_that_does_not_answer():
    with afterwards(REPLICA.run_expect, [0], "systemctl start mysql"):
        REPLICA.run_expect([0], "systemctl stop mysql")
        PRIMARY.run_expect([0], "systemctl restart mysql")
        eventually(True, lambda: "does not say what it is" in journal(PRIMARY, "mysql-open"))
        assert uses(PRIMARY) == (False, False)
    eventually((True, True), lambda: uses(PRIMARY))


def test_settings_passwords_and_certificates_change_on_a_running_primary_that_only_the_role_opens():
    def serial():
        return REPLICA.check_output(
            f"openssl s_client -starttls mysql -connect {ADDRESS[PRIMARY]}:3306 </dev/null 2>/dev/null"
            " | openssl x509 -noout -serial"
        )

    settings = {"max_connections": 123}
    account = {"name": WRITER[0], "password": "another", "privileges": {"guestbook.*": ["ALL"]}}
    converge(mysql_server_settings=settings, mysql_primary_accounts=[account], mysql_server_open_at_boot=False)
    assert sql(PRIMARY, "SELECT @@max_connections") == sql(REPLICA, "SELECT @@max_connections") == "123"
    assert uses(PRIMARY) == (True, True)
    assert login(PRIMARY, (WRITER[0], "another")).rc == 0
    assert login(PRIMARY, WRITER).rc == 0, "clients that have not got the new password yet were shut out"

    PRIMARY.run_expect([0], "systemctl restart mysql")
    eventually("fenced", lambda: role(PRIMARY))
    time.sleep(2)
    assert uses(PRIMARY) == (False, False)

    old_serial, old_process = serial(), process(PRIMARY)
    (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "tls/mysql-primary-1.crt").unlink()
    converge("prepare.yml")
    converge(mysql_server_settings=settings, mysql_primary_accounts=[{**account, "old_password": "discard"}])
    assert uses(PRIMARY) == (True, True)
    assert serial() != old_serial
    assert process(PRIMARY) == old_process
    assert login(PRIMARY, (WRITER[0], "another")).rc == 0
    assert login(PRIMARY, WRITER).failed


def test_a_primary_that_restarts_stays_closed_once_the_replica_was_promoted():
    def return_to_the_inventory():
        # With the settings and the password of before, too.
        sql(REPLICA, "SET GLOBAL super_read_only = ON")
        converge()

    def verdict(node):
        return journal(node, "mysql-open").splitlines()[-1]

    with afterwards(return_to_the_inventory):
        sql(REPLICA, "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only = OFF")
        PRIMARY.run_expect([0], "systemctl restart mysql")
        eventually("stay: http://172.30.61.12:9201/ is the primary", lambda: verdict(PRIMARY))
        assert uses(PRIMARY) == (False, False)
        # The promoted node restarts, too: now nobody is writable, and still neither opens.
        REPLICA.run_expect([0], "systemctl restart mysql")
        PRIMARY.run_expect([0], "systemctl restart mysql")
        for node, peer in ((PRIMARY, "172.30.61.12"), (REPLICA, "172.30.61.11")):
            eventually(f"stay: http://{peer}:9201/ does not replicate from this node", lambda node=node: verdict(node))
            assert uses(node) == (False, False)
            assert node.run("systemctl is-failed mysql-open").rc, "a node that rightly stays closed is no failure"
    eventually((True, True), lambda: uses(PRIMARY))
    eventually((False, True), lambda: uses(REPLICA))
    assert login(PRIMARY, WRITER).rc == 0


def test_a_promoted_node_takes_no_write_that_only_it_would_hold_and_seeds_nobody_meanwhile():
    def module(node, name, **options):
        inventory = lab.CHECKOUT / "molecule/mysql_primary/inventory"
        command = ["ansible", node.backend.name, f"--inventory={inventory}", f"--module-name=foobar.webstack.{name}"]
        done = lab.run(*command, f"--args={json.dumps(options)}", check=False, timeout=120)
        return done.returncode, " ".join(done.stdout.split())

    def follow():
        source = {"source_host": ADDRESS[REPLICA], "source_ssl_ca": "/etc/mysql/tls/ca.pem"}
        account = {"source_user": "replication", "source_password": "replication-of-the-test"}
        return module(PRIMARY, "mysql_replica", state="replica", allow_destroy=True, **source, **account)

    def writing(statement):
        return subprocess.Popen(["docker", "exec", "mysql-primary-2", "mysql", "guestbook", "-e", statement])

    def return_to_the_inventory():
        sql(REPLICA, "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF; SET GLOBAL super_read_only = ON")
        PRIMARY.run_expect([0], "systemctl start mysql")
        sql(PRIMARY, "STOP REPLICA; RESET REPLICA ALL")
        converge(mysql_replica_allow_destroy="mysql-primary-2")

    eventually(True, armed)
    with afterwards(return_to_the_inventory):
        PRIMARY.run_expect([0], "systemctl stop mysql")
        code, told = module(REPLICA, "mysql_switchover", side="new", promote=True, peer="http://172.30.61.11:9201")
        assert code == 0, told
        assert uses(REPLICA) == (True, True)
        with writing("INSERT INTO entries VALUES (20)") as client:
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(timeout=3)
            PRIMARY.run_expect([0], "systemctl start mysql")
            code, told = follow()
            assert code == 0, told
            assert client.wait(timeout=30) == 0
        eventually("20", lambda: sql(PRIMARY, "SELECT id FROM guestbook.entries WHERE id = 20"))
        assert sides(REPLICA)["unacknowledged"] == 0

        # A write of its own: it has to be seeded, which waits for the commit that waits for it.
        sql(PRIMARY, "STOP REPLICA; RESET REPLICA ALL; FLUSH TABLES")
        eventually(0, lambda: sides(REPLICA)["source_replicas"])
        with writing("INSERT INTO entries VALUES (21)") as client:
            eventually(1, lambda: sides(REPLICA)["waiting"])
            code, told = follow()
            assert code != 0
            assert "172.30.61.12:3306: every commit waits there for a replica" in told
            assert "guestbook" in sql(PRIMARY, "SHOW DATABASES").split(), "its data was removed all the same"
            sql(REPLICA, "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF")
            assert client.wait(timeout=30) == 0
        code, told = follow()
        assert code == 0, told
        eventually("21", lambda: sql(PRIMARY, "SELECT id FROM guestbook.entries WHERE id = 21"))
        eventually(True, lambda: sides(REPLICA)["wait_no_replica"])
    eventually(True, armed)
    assert login(PRIMARY, WRITER).rc == 0


def test_a_password_that_the_policy_rejects_is_refused_before_anything_changes():
    accounts = [
        {"name": "of_the_test_1", "password": "Str0ng-enough"},
        {"name": "of_the_test_2", "password": "feeble-one"},
    ]
    with afterwards(sql, PRIMARY, "UNINSTALL COMPONENT 'file://component_validate_password'"):
        sql(PRIMARY, "INSTALL COMPONENT 'file://component_validate_password'")
        before = sql(PRIMARY, "SELECT @@GLOBAL.gtid_executed")
        result = lab.converge(
            "mysql_primary",
            "--tags=mysql_primary",
            mysql_primary_accounts=accounts,
            mysql_primary_databases=[{"name": "of_the_test"}],
        )
        told = " ".join(result.stdout.split())
        assert "of_the_test_2@%: the server's policy rejects the password (validate_password." in told
        assert "policy=MEDIUM" in told
        assert "of_the_test_1@%" not in told
        assert "feeble-one" not in told
        assert sql(PRIMARY, "SELECT @@GLOBAL.gtid_executed") == before


def test_bad_input_is_refused_before_anything_changes():
    result = lab.converge(
        "mysql_primary",
        "--tags=mysql_primary,mysql_replica",
        mysql_primary_peers=["172.30.61.12:9201"],
        mysql_replica_allow_destroy=True,
    )
    told = " ".join(result.stdout.split())
    assert "mysql_primary_peers: 172.30.61.12:9201" in told
    assert "mysql_replica_allow_destroy: True is no host of the inventory" in told
    assert told.count("changed=0") == told.count("failed=1") == 2
