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

SCENARIO = Path(__file__).parents[1]
PRIMARY = testinfra.get_host("docker://mysql-primary-1")
REPLICA = testinfra.get_host("docker://mysql-primary-2")
ADDRESS = {PRIMARY: "172.30.61.11", REPLICA: "172.30.61.12"}
WRITER, READER = ("guestbook_writer", "writer-of-the-test"), ("guestbook_reader", "reader-of-the-test")


def play(playbook="converge.yml", **variables):
    command = ["ansible-playbook", f"--inventory={SCENARIO}/inventory"]
    command += [f"--extra-vars={json.dumps(variables)}", f"{SCENARIO}/{playbook}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def converge(**variables):
    result = play(**variables)
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
        eventually(503, lambda: ask(REPLICA, "/read?max_lag=5")[0])
        assert ask(REPLICA, "/read?max_lag=600")[0] == 200
    eventually((False, True), lambda: uses(REPLICA))


def test_a_replica_that_falls_behind_serves_no_reads_until_it_has_caught_up():
    lock = "LOCK TABLES guestbook.entries READ; DO SLEEP(12)"
    with subprocess.Popen(["docker", "exec", "mysql-primary-2", "mysql", "-e", lock]):
        time.sleep(1)
        assert login(PRIMARY, WRITER, "INSERT INTO entries VALUES (3)").rc == 0
        eventually(503, lambda: ask(REPLICA, "/read?max_lag=5")[0], seconds=11)
    eventually((False, True), lambda: uses(REPLICA))
    assert login(REPLICA, READER, "SELECT id FROM entries WHERE id = 3").stdout == "3\n"


def test_a_node_whose_mysqld_is_down_serves_nothing_and_resumes_replication_by_itself():
    with afterwards(REPLICA.run_expect, [0], "systemctl start mysql"):
        REPLICA.run_expect([0], "systemctl stop mysql")
        assert uses(REPLICA) == (False, False)
        assert login(PRIMARY, WRITER, "INSERT INTO entries VALUES (4)").rc == 0
    eventually("4\n", lambda: login(REPLICA, READER, "SELECT id FROM entries WHERE id = 4").stdout)
    assert uses(REPLICA) == (False, True)


@pytest.mark.parametrize("stop", ["systemctl restart mysql", "pkill -9 -x mysqld"])
def test_a_primary_that_restarts_is_open_again_by_itself(stop):
    old = process(PRIMARY)
    PRIMARY.run_expect([0], stop)
    eventually(True, lambda: process(PRIMARY) not in ("", old))
    eventually((True, True), lambda: uses(PRIMARY))
    assert login(PRIMARY, WRITER, "REPLACE INTO entries VALUES (5)").rc == 0


def test_a_primary_that_shall_not_open_by_itself_is_opened_by_the_role():
    with afterwards(converge):
        converge(mysql_primary_open_at_boot=False)
        PRIMARY.run_expect([0], "systemctl restart mysql")
        eventually("fenced", lambda: role(PRIMARY))
        time.sleep(2)
        assert uses(PRIMARY) == (False, False)
    assert uses(PRIMARY) == (True, True)


def test_a_primary_that_restarts_waits_for_a_peer_that_does_not_answer():
    with afterwards(REPLICA.run_expect, [0], "systemctl start mysql"):
        REPLICA.run_expect([0], "systemctl stop mysql")
        PRIMARY.run_expect([0], "systemctl restart mysql")
        eventually(True, lambda: "does not say what it is" in journal(PRIMARY, "mysql-open"))
        assert uses(PRIMARY) == (False, False)
    eventually((True, True), lambda: uses(PRIMARY))


def test_a_primary_that_restarts_stays_closed_once_the_replica_was_promoted():
    def return_to_the_inventory():
        sql(REPLICA, "SET GLOBAL super_read_only = ON")
        converge()

    with afterwards(return_to_the_inventory):
        sql(REPLICA, "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL super_read_only = OFF")
        PRIMARY.run_expect([0], "systemctl restart mysql")
        eventually("failed", lambda: PRIMARY.check_output("systemctl is-active mysql-open || true"))
        assert uses(PRIMARY) == (False, False)
        # The promoted node restarts, too: now nobody is writable, and still neither opens.
        REPLICA.run_expect([0], "systemctl restart mysql")
        PRIMARY.run_expect([0], "systemctl restart mysql")
        eventually("failed", lambda: PRIMARY.check_output("systemctl is-active mysql-open || true"))
        assert uses(PRIMARY) == uses(REPLICA) == (False, False)
    eventually((True, True), lambda: uses(PRIMARY))
    eventually((False, True), lambda: uses(REPLICA))


def test_changed_settings_and_passwords_leave_the_primary_open():
    accounts = [{"name": WRITER[0], "password": "another", "privileges": {"guestbook.*": ["ALL"]}}]
    with afterwards(converge):
        converge(mysql_server_settings={"max_connections": 123}, mysql_primary_accounts=accounts)
        assert sql(PRIMARY, "SELECT @@max_connections") == sql(REPLICA, "SELECT @@max_connections") == "123"
        assert uses(PRIMARY) == (True, True)
        assert login(PRIMARY, (WRITER[0], "another")).rc == 0
        assert login(PRIMARY, WRITER).rc == 0, "clients that have not got the new password yet were shut out"
        converge(mysql_primary_accounts=[{**accounts[0], "old_password": "discard"}])
        assert login(PRIMARY, (WRITER[0], "another")).rc == 0
        assert login(PRIMARY, WRITER).failed
    assert login(PRIMARY, WRITER).rc == 0


def test_a_new_certificate_is_served_without_a_restart():
    def serial():
        return REPLICA.check_output(
            f"openssl s_client -starttls mysql -connect {ADDRESS[PRIMARY]}:3306 </dev/null 2>/dev/null"
            " | openssl x509 -noout -serial"
        )

    old_serial, old_process = serial(), process(PRIMARY)
    (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "tls/mysql-primary-1.crt").unlink()
    assert play("prepare.yml").returncode == 0
    converge()
    assert serial() != old_serial
    assert process(PRIMARY) == old_process
    assert uses(PRIMARY) == (True, True)


@pytest.mark.parametrize(
    ("variables", "refusal"),
    [
        ({"mysql_primary_peers": ["172.30.61.12:9201"]}, "mysql_primary_peers: 172.30.61.12:9201"),
        ({"mysql_primary_databases": ["guestbook"]}, "dictionary requested"),
        ({"mysql_primary_accounts": {"name": "x"}}, "cannot be converted to a list"),
        ({"mysql_replica_seed": "sometimes"}, "value of mysql_replica_seed must be one of"),
        ({"mysql_replica_max_lag": "soon"}, "unable to convert to int"),
    ],
)
def test_bad_input_is_refused_before_anything_changes(variables, refusal):
    result = play(**variables)
    assert result.returncode
    assert refusal in " ".join(result.stdout.split())
    assert "changed=1" not in result.stdout
