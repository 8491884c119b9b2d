"""One MySQL node, alone: closed to writes, refusing bad settings, and telling the truth about itself."""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import testinfra

import lab

ADDRESS = "172.30.63.11"
STATE = f"http://{ADDRESS}:9201"


@pytest.fixture
def host():
    return testinfra.get_host("docker://mysql-server-sid")


def ask(path):
    """Return status and body of an answer of the state service, no status while it does not listen."""
    try:
        with urllib.request.urlopen(STATE + path, timeout=5) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except urllib.error.URLError:
        return None, {"role": None}


def eventually(expected, probe, seconds=30):
    until = time.monotonic() + seconds
    while (seen := probe()) != expected and time.monotonic() < until:
        time.sleep(0.2)
    assert seen == expected


def uptime(host):
    return int(host.check_output("mysql -Nse \"SHOW STATUS LIKE 'Uptime'\" | cut -f2"))


def test_a_node_starts_closed_to_writes_even_for_root(host):
    host.run_expect([0], "systemctl restart mysql")
    assert "--super-read-only" in host.run("mysql -e 'CREATE DATABASE x'").stderr
    eventually("fenced", lambda: ask("/")[1]["role"])
    assert ask("/write")[0] == 503
    assert ask("/read?max_lag=1000000")[0] == 503


def test_an_initialisation_that_fails_is_done_again(host):
    assert host.file("/root/failed").exists
    # The package's own user, which its script creates last, and a view of those that the server makes after it.
    assert (
        host.check_output("mysql -Nse \"SELECT user FROM mysql.user WHERE user LIKE 'debian%'\"") == "debian-sys-maint"
    )
    assert int(host.check_output("mysql -Nse 'SELECT COUNT(*) FROM information_schema.plugins'")) > 10


def test_data_of_a_package_that_was_configured_are_never_taken_for_remains(host):
    before = uptime(host)
    lab.run(
        "ansible",
        "mysql-server-sid",
        f"--inventory={os.environ['MOLECULE_SCENARIO_DIRECTORY']}/inventory",
        "--module-name=ansible.builtin.include_role",
        "--args=name=foobar.webstack.mysql_server tasks_from=install_again",
    )
    assert host.file("/var/lib/mysql/mysql.ibd").exists
    assert uptime(host) >= before


def test_nothing_of_the_role_counts_as_a_transaction(host):
    assert host.check_output("mysql -Nse 'SELECT @@gtid_executed'") == ""


@pytest.mark.parametrize("port", [33060, 33062])
def test_other_ports_of_mysqld_are_closed(host, port):
    assert not host.socket(f"tcp://{ADDRESS}:{port}").is_listening
    assert not host.socket(f"tcp://127.0.0.1:{port}").is_listening


def test_root_comes_by_socket_only(host):
    assert host.check_output("mysql -Nse 'SELECT CURRENT_USER()'") == "root@localhost"
    assert host.run(f"mysql --host={ADDRESS} --user=root -e 'SELECT 1'").failed
    assert host.run("mysql --host=127.0.0.1 --user=root -e 'SELECT 1'").failed
    assert host.run("runuser -u www-data -- mysql --user=root -e 'SELECT 1'").failed


def test_nobody_is_let_in_without_a_name_or_a_proof(host):
    open_accounts = """
        SELECT user, host FROM mysql.user
        WHERE user = '' OR (plugin <> 'auth_socket' AND authentication_string = '' AND account_locked = 'N')
    """
    assert host.check_output(f'mysql -Nse "{open_accounts}"') == ""


def test_the_state_service_can_read_nothing_but_the_state(host):
    assert host.check_output("ps -o user= -p $(systemctl show -P MainPID mysql-state)") == "mysqlstate"

    def permitted(statement):
        return host.run("runuser -u mysqlstate -- mysql --user=mysqlstate -e %s", statement).rc == 0

    assert permitted("SELECT COUNT(*) FROM performance_schema.replication_connection_status")
    assert not permitted("SELECT * FROM mysql.user")
    assert not permitted("SET GLOBAL super_read_only = OFF")


def test_the_state_service_answers_at_once_when_mysqld_hangs(host):
    host.run_expect([0], "pkill -STOP -x mysqld")
    try:
        start = time.monotonic()
        eventually(503, lambda: ask("/")[0])  # what mysqld said before it was stopped serves for 0.1 s
        assert ask("/write")[0] == ask("/read")[0] == 503
        assert time.monotonic() - start < 4
    finally:
        host.run_expect([0], "pkill -CONT -x mysqld")
    eventually(200, lambda: ask("/")[0])


def metrics():
    with urllib.request.urlopen(f"{STATE}/metrics", timeout=5) as answer:  # noqa: S310
        assert answer.headers["Content-Type"].startswith("text/plain")
        return dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))


def test_the_state_service_says_that_mysqld_is_down_and_monitoring_sees_it(host):
    eventually("fenced", lambda: ask("/")[1]["role"])
    assert (metrics()["webstack_mysql_up"], metrics()['webstack_mysql_role{role="fenced"}']) == ("1", "1")
    host.run_expect([0], "systemctl stop mysql")
    try:
        assert ask("/")[1]["role"] == "down"
        assert ask("/write")[0] == ask("/read")[0] == ask("/")[0] == 503
        assert (metrics()["webstack_mysql_up"], metrics()['webstack_mysql_role{role="down"}']) == ("0", "1")
    finally:
        host.run_expect([0], "systemctl start mysql")
    eventually("fenced", lambda: ask("/")[1]["role"])


def test_the_state_service_is_held_up_by_mysqld(host):
    host.run("systemctl stop mysql-state")
    eventually(200, lambda: ask("/")[0])


def test_a_node_that_nobody_has_opened_waits_for_no_replica_and_is_one_that_acknowledges():
    eventually("fenced", lambda: ask("/")[1]["role"])
    sides = ask("/")[1]["semi_sync"]
    assert (sides["source"], sides["replica"], sides["wait_no_replica"], sides["timeout_ms"]) == (
        False,
        True,
        False,
        10000,
    )


def test_bad_input_is_refused_and_the_old_settings_serve_on(host):
    scratch = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "tls"
    files = {"ca": "ca.crt", "certificate": "node.crt", "private_key": "ca.key"}
    wrong_key = {name: (scratch / file).read_text() for name, file in files.items()}
    refused = [
        ({"mysql_server_id": 0}, "mysql_server_id: 0 is not between 1 and 4294967295"),
        (
            {"mysql_server_address": "172.30.63.99"},
            "mysql_server_tls: the certificate is valid for IP:172.30.63.11, IP:172.30.63.12, not for 172.30.63.99",
        ),
        ({"mysql_server_tls": wrong_key}, "the private key does not belong to the certificate"),
        ({"mysql_server_tls": {"ca": "x", "certificate": "y"}}, "missing required arguments: private_key"),
        (
            {"mysql_server_settings": {"max_connections": "5\nskip-grant-tables"}},
            "mysql_server_settings: max_connections",
        ),
        ({"mysql_server_settings": {"[client]": "x"}}, "mysql_server_settings: [client]"),
        ({"mysql_server_when_alone": "stall"}, "mysql_server_when_alone: stall needs mysql_server_peers"),
        (
            {"mysql_server_when_alone": "stall", "mysql_server_semi_sync": False},
            "stall needs mysql_server_semi_sync: true",
        ),
        (
            {"mysql_server_semi_sync_timeout": 0},
            "mysql_server_semi_sync_timeout: 0 is not between 1 and 4294967 seconds",
        ),
        ({"mysql_server_peers": ["172.30.63.12:9201"]}, "mysql_server_peers: 172.30.63.12:9201: a peer is the address"),
        ({"mysql_server_repository": {"name": "mysql"}}, "required together"),
        # What only mysqld itself knows.
        (
            {"mysql_server_settings": {"max_connections": 77, "no_such_setting": 1}},
            "unknown variable 'no_such_setting=1'",
        ),
    ]
    installed = "find /etc/mysql /etc/systemd/system -type f -exec sha256sum {} +"
    before, running = host.check_output(installed), uptime(host)
    lab.assert_refused("mysql_server", refused)
    assert host.check_output(installed) == before
    assert uptime(host) >= running
    host.run_expect([0], "systemctl restart mysql")
    assert host.check_output("mysql -Nse 'SELECT @@max_connections'") != "77"


def test_a_client_of_mariadb_cannot_push_the_server_out(host):
    assert host.run("apt-get install --simulate --yes python3-mysqldb").failed
