"""Each test breaks replication between two real servers, and sees what the module says and does about it."""

import contextlib
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

import lab

PASSWORD = "of-the-replica-test"
DONOR = "172.30.62.11:3306"
FENCE, OPEN = "SET GLOBAL super_read_only = ON", "SET GLOBAL super_read_only = OFF"
ADD = "INSERT site.note SELECT MAX(id) + 1, '{}' FROM site.note"
LAST = "SELECT word FROM site.note ORDER BY id DESC LIMIT 1"
STRAY = (OPEN, "CREATE DATABASE IF NOT EXISTS stray", FENCE)
NEW = (
    "STOP REPLICA",
    "RESET REPLICA ALL",
    "SET GLOBAL offline_mode = ON",  # or the primary would take it for its successor
    OPEN,
    "SET SESSION sql_log_bin = OFF",
    "DROP DATABASE IF EXISTS site",
    "RESET BINARY LOGS AND GTIDS",
    FENCE,
    "SET GLOBAL offline_mode = OFF",
)


def follow(node, check=False, **options):
    wanted = {
        "state": "replica",
        "source_host": "172.30.62.11",
        "source_user": "replication",
        "source_password": PASSWORD,
        "source_ssl_ca": "/etc/mysql/tls/ca.pem",
        "timeout": 60,
    }
    return node.module("mysql_replica", check=check, **{**wanted, **options})


def eventually(question, seconds=10):
    until = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < until:
        time.sleep(0.1)
    return answer


def says_writable(node) -> bool:
    try:
        return urllib.request.urlopen(f"http://{node.address}:9201/write", timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def snapshot(node) -> str:
    """Everything that a refused run, or one in check mode, must leave as it was."""
    return node.sql(
        "SELECT Host, Port, User_name, User_password, Enabled_ssl, Ssl_ca, Connect_retry FROM mysql.slave_master_info",
        "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status",
        "SELECT SERVICE_STATE <> 'OFF' FROM performance_schema.replication_connection_status",
        "SELECT @@gtid_executed, @@super_read_only, @@read_only, @@offline_mode",
        "SHOW DATABASES",
    )


def purge(node) -> None:
    """Drop all binary logs but a new, empty one. One that a replica still reads would stay."""
    reading = "SELECT COUNT(*) FROM performance_schema.processlist WHERE COMMAND LIKE 'Binlog Dump%'"
    assert eventually(lambda: node.sql(reading) == "0")
    node.sql("FLUSH BINARY LOGS")
    log = node.sql("SHOW BINARY LOG STATUS").split()[0]
    node.sql(f"PURGE BINARY LOGS TO '{log}'")


@pytest.fixture(scope="session")
def filled(primary):
    """A primary with data."""
    primary.sql(
        "CREATE DATABASE IF NOT EXISTS site",
        "CREATE TABLE IF NOT EXISTS site.note (id INT PRIMARY KEY, word TEXT)",
        "INSERT IGNORE site.note VALUES (0, 'first')",
    )
    return primary


@pytest.fixture
def replica(filled, secondary):
    """A replica that has caught up with the primary; what the test before has done to it is mended."""
    ours, theirs = (node.sql("SELECT @@gtid_executed").replace("\\n", "") for node in (secondary, filled))
    healthy = secondary.sql(
        f"SELECT GTID_SUBTRACT('{ours}', '{theirs}') = '' AND @@super_read_only",
        "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status",
        "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status",
    )
    if healthy.split() != ["1", "ON", "ON"]:
        secondary.sql(FENCE)
        result = follow(secondary, allow_destroy=True)
        assert result["state_after"] == "running", result
    assert secondary.sql(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{theirs}', 10)") == "0"
    return secondary


def test_a_row_written_on_the_primary_arrives(filled, replica):
    filled.sql(ADD.format("written on the primary"))
    assert eventually(lambda: replica.sql(LAST) == "written on the primary")


def test_the_replica_refuses_writes_even_of_root(replica):
    refused = replica.mysql("--execute", "INSERT site.note VALUES (2, 'written on the replica')")
    assert "ERROR 1290" in refused.stderr


def test_a_second_run_changes_nothing(replica):
    result = follow(replica)
    assert (result["changed"], result["actions"]) == (False, [])


MENDED = {
    "stopped": (("STOP REPLICA",), ["start"]),
    "receiver stopped": (("STOP REPLICA IO_THREAD",), ["start"]),
    "writable": ((OPEN, "SET GLOBAL read_only = OFF"), ["fence"]),
    "commits wait for a replica": (("SET GLOBAL rpl_semi_sync_source_enabled = ON",), ["semi_sync_off"]),
    "a seeding was ended before it began": (
        (f"SET GLOBAL clone_valid_donor_list = '{DONOR}'", "SET GLOBAL offline_mode = ON", OPEN),
        ["fence", "online"],
    ),
    "without TLS": (
        ("STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_SSL = 0", "START REPLICA"),
        ["stop", "configure", "start"],
    ),
    "wrong source": (
        ("STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '172.30.62.99'", "START REPLICA"),
        ["stop", "configure", "start"],
    ),
    "wrong password": (
        ("STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = 'stale'", "START REPLICA"),
        ["renew"],
    ),
}


@pytest.mark.parametrize(("broken", "actions"), MENDED.values(), ids=MENDED)
def test_what_loses_nothing_is_mended(replica, broken, actions):
    replica.sql(*broken)
    before = snapshot(replica)

    foretold = follow(replica, check=True)
    assert (foretold["changed"], foretold["actions"]) == (True, actions)
    assert snapshot(replica) == before, "check mode changed something"

    done = follow(replica)
    assert (done["actions"], done["state_after"]) == (actions, "running")
    assert replica.sql("SELECT @@super_read_only, @@offline_mode, @@rpl_semi_sync_source_enabled") == "1\t0\t0"


@pytest.mark.parametrize(
    ("state", "options"),
    [
        ("auth_failed", {"source_password": "wrong"}),
        ("tls_failed", {"source_ssl_ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ("tls_failed", {"source_ssl_ca": "/etc/mysql/tls/missing.pem"}),
        ("tls_failed", {"source_host": "172.30.62.1", "source_port": 13306}),
        ("unreachable", {"source_host": "172.30.62.99"}),
    ],
    ids=["wrong password", "wrong authority", "missing authority", "certificate of another address", "wrong address"],
)
def test_a_source_that_cannot_be_used_is_named_and_the_running_channel_kept(primary, replica, state, options):
    if "source_port" in options:
        # The host forwards this port to the primary, whose certificate does not carry the host's address.
        forward(primary)
    before = snapshot(replica)
    # A dry run cannot know whether the account is to get that password: it warns, as another test sees.
    for check in (False,) if state == "auth_failed" else (True, False):
        result = follow(replica, check=check, **options)
        assert result["failed"]
        assert result["msg"].startswith(f"{state}: source {options.get('source_host', primary.address)}:"), result[
            "msg"
        ]
    assert PASSWORD not in result["shown"]
    assert snapshot(replica) == before


def forward(primary):
    """Listen on the lab network's gateway and pass on to the primary, for as long as the tests run."""

    def pump(source, sink):
        reading, writing = source.makefile("rb", 0), sink.makefile("wb", 0)
        with contextlib.suppress(OSError), reading, writing:
            shutil.copyfileobj(reading, writing)

    def serve(listener):
        while True:
            client, _address = listener.accept()
            server = socket.create_connection((primary.address, 3306))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    try:
        listener = socket.create_server(("172.30.62.1", 13306))
    except OSError:
        return
    threading.Thread(target=serve, args=(listener,), daemon=True).start()


def diverge(_primary, replica):
    replica.sql(*STRAY)


def collide(primary, replica):
    replica.sql(OPEN, "SET SESSION sql_log_bin = OFF", ADD.format("only here"), FENCE)
    primary.sql(ADD.format("from the primary"))
    error = "SELECT MAX(LAST_ERROR_NUMBER) FROM performance_schema.replication_applier_status_by_worker"
    assert eventually(lambda: replica.sql(error) != "0")


def remove_what_collides(_primary, replica):
    replica.sql(OPEN, "SET SESSION sql_log_bin = OFF", "DELETE FROM site.note WHERE word = 'only here'", FENCE)
    replica.sql("STOP REPLICA", "START REPLICA")


def miss(primary, replica):
    replica.sql("STOP REPLICA")
    primary.sql(ADD.format("in a purged log"))
    purge(primary)


def load_without_gtids(_primary, replica):
    replica.sql("STOP REPLICA", "RESET REPLICA ALL", "RESET BINARY LOGS AND GTIDS")


def say_what_was_loaded(primary, replica):
    gtids = primary.sql("SELECT @@gtid_executed").replace("\\n", "")
    replica.sql(f"SET GLOBAL gtid_purged = '{gtids}'")
    assert follow(replica)["actions"] == ["configure", "start"]


def copy_it_again(_primary, replica):
    done = follow(replica, allow_destroy=True)
    assert (done["state_after"], done["errant_gtid"]) == ("running", "")
    assert "stray" not in replica.sql("SHOW DATABASES")


@pytest.mark.parametrize(
    ("break_it", "state", "evidence", "mend"),
    [
        (diverge, "errant", "stray", copy_it_again),
        (collide, "applier_broken", "Duplicate entry", remove_what_collides),
        (miss, "purged", "has purged", copy_it_again),
        (load_without_gtids, "purged", "databases: site", say_what_was_loaded),
    ],
)
def test_data_is_destroyed_only_when_told_so(primary, replica, break_it, state, evidence, mend):
    break_it(primary, replica)
    before = snapshot(replica)

    for check in (True, False):
        refused = follow(replica, check=check)
        assert refused["failed"]
        assert refused["msg"].startswith(f"{state}: "), refused["msg"]
        assert evidence in refused["msg"]
        assert "allow_destroy=true" in refused["msg"]
        assert "site" in refused["msg"].split("databases: ")[1]
    assert (refused["errant_gtid"] != "") == (state == "errant")

    foretold = follow(replica, check=True, allow_destroy=True)
    assert "clone" in foretold["actions"]
    assert snapshot(replica) == before

    mend(primary, replica)
    assert eventually(lambda: replica.sql("CHECKSUM TABLE site.note") == primary.sql("CHECKSUM TABLE site.note")), (
        "the replica's rows are not the primary's"
    )


def test_a_new_node_gets_what_the_binary_logs_no_longer_hold_and_never_seems_writable(primary, replica):
    replica.sql(*NEW)
    primary.sql(ADD.format("older than the logs"))
    purge(primary)

    with lab.asking(lambda: says_writable(replica), pause=0.05) as answers:
        primary.sql("REVOKE BACKUP_ADMIN ON *.* FROM replication")
        try:
            refused = follow(replica)
        finally:
            primary.sql("GRANT BACKUP_ADMIN ON *.* TO replication")
        assert refused["failed"]
        assert "BACKUP_ADMIN" in refused["msg"]
        assert replica.sql("SELECT @@super_read_only, @@offline_mode").split() == ["1", "0"]
        result = follow(replica)
    assert result["actions"] == ["clone", "configure", "start"]
    assert replica.sql(LAST) == "older than the logs"
    assert replica.sql("SELECT @@super_read_only, @@offline_mode").split() == ["1", "0"]
    assert len(answers) > 20
    assert not any(answers)


def test_a_new_password_is_taken_over_once(primary, replica):
    try:
        primary.sql("ALTER USER replication IDENTIFIED BY 'of-the-second-year'")
        replica.sql("STOP REPLICA", "START REPLICA")
        assert follow(replica)["msg"].startswith("auth_failed")
        assert follow(replica, source_password="of-the-second-year")["actions"] == ["renew"]
        assert not follow(replica, source_password="of-the-second-year")["changed"]
    finally:
        primary.sql(f"ALTER USER replication IDENTIFIED BY '{PASSWORD}'")


def test_the_applier_goes_on_while_the_receiver_gets_another_password(primary, replica):
    def applier():
        return replica.sql("SELECT THREAD_ID FROM performance_schema.replication_applier_status_by_coordinator")

    follow(replica)
    before = applier()
    try:
        foretold = follow(replica, check=True, source_password="of-the-third-year")
        assert foretold["actions"] == ["renew"]
        assert "does not know source_password yet" in foretold["warnings"]
        assert follow(replica, source_password="of-the-third-year")["failed"], "without the account, nothing is changed"
        primary.sql("ALTER USER replication IDENTIFIED BY 'of-the-third-year' RETAIN CURRENT PASSWORD")
        assert follow(replica, source_password="of-the-third-year")["actions"] == ["renew"]
        assert applier() == before != ""
        primary.sql("ALTER USER replication DISCARD OLD PASSWORD")
        replica.sql("STOP REPLICA IO_THREAD", "START REPLICA IO_THREAD")
        assert not follow(replica, source_password="of-the-third-year")["changed"]
    finally:
        primary.sql(f"ALTER USER replication IDENTIFIED BY '{PASSWORD}'")


def test_a_second_primary_is_never_opened(primary, replica):
    said = f"http://{primary.address}:9201/write"

    def open_it(**options):
        return replica.module("mysql_replica", state="primary", **options)

    assert "this node is a replica of 172.30.62.11:3306" in open_it()["msg"]
    assert replica.module("mysql_replica", state="absent")["actions"] == ["stop", "reset"]
    assert not replica.module("mysql_replica", state="absent")["changed"]
    refused = open_it(peers=[said])
    assert f"{said} says that it is writable" in refused["msg"]
    assert replica.sql("SELECT @@super_read_only") == "1"

    # Nobody answers at that port: it does not hinder. The node that was open before gives way.
    assert open_it(peers=[f"http://{primary.address}:9299/write"])["state_after"] == "primary"
    assert eventually(lambda: primary.sql("SELECT @@super_read_only") == "1")
    assert "it may be the primary of now" in follow(replica)["msg"]
    replica.sql(FENCE)
    assert follow(replica)["actions"] == ["semi_sync_off", "configure", "start"], (
        "a node that lacks nothing needs no copy"
    )
    assert primary.module("mysql_replica", state="primary")["actions"] == ["open"]


def test_roles_the_other_way_round_are_refused(primary, replica):
    try:
        primary.sql(FENCE)
        assert "replicates from this node" in follow(primary, source_host=replica.address)["msg"]
    finally:
        opened = primary.module("mysql_replica", state="primary", peers=[f"http://{replica.address}:9201/write"])
    assert opened["actions"] == ["open"]


def test_stopped_keeps_the_channel(replica):
    assert replica.module("mysql_replica", state="stopped")["actions"] == ["stop"]
    assert not replica.module("mysql_replica", state="stopped")["changed"]
    assert follow(replica)["actions"] == ["start"]


SIDES = """
    SELECT CONCAT(VARIABLE_NAME, ' ', VARIABLE_VALUE) FROM performance_schema.global_status
    WHERE VARIABLE_NAME IN ('Rpl_semi_sync_source_status', 'Rpl_semi_sync_source_clients', 'Rpl_semi_sync_source_no_tx')
"""


def semi_sync(node) -> dict:
    return dict(line.removeprefix("Rpl_semi_sync_source_").split() for line in node.sql(SIDES).splitlines())


def waits(node) -> bool:
    seen = semi_sync(node)
    return (seen["status"], seen["clients"]) == ("ON", "1")


def seconds_of_a_write(node) -> float:
    begun = time.monotonic()
    node.sql(ADD.format("timed"))
    return time.monotonic() - begun


def test_commits_wait_for_the_replica_and_go_on_without_one_until_it_is_back(primary, replica):
    assert eventually(lambda: waits(primary))
    before = semi_sync(primary)["no_tx"]
    assert seconds_of_a_write(primary) < 3
    assert semi_sync(primary)["no_tx"] == before, "a commit went on without the replica"
    replica.sql("STOP REPLICA IO_THREAD")
    assert eventually(lambda: semi_sync(primary)["status"] == "OFF")
    assert seconds_of_a_write(primary) < 3, "nobody is there to wait for"
    assert int(semi_sync(primary)["no_tx"]) == int(before) + 1
    replica.sql("START REPLICA IO_THREAD")
    assert eventually(lambda: waits(primary))


def test_a_replica_that_hangs_is_waited_for_as_long_as_the_time_out_says(primary, replica):
    assert eventually(lambda: waits(primary))
    primary.sql("SET GLOBAL rpl_semi_sync_source_timeout = 3000")
    replica.host.run_expect([0], "pkill -STOP -x mysqld")
    try:
        assert 2.9 < seconds_of_a_write(primary) < 6
        assert seconds_of_a_write(primary) < 2, "each commit waits anew"
    finally:
        replica.host.run_expect([0], "pkill -CONT -x mysqld")
        primary.sql("SET GLOBAL rpl_semi_sync_source_timeout = 10000")
    assert eventually(lambda: waits(primary), seconds=20)


def test_the_primary_is_told_to_wait_again(primary, replica):
    def open_it(**options):
        return primary.module("mysql_replica", state="primary", **options)

    primary.sql("SET GLOBAL rpl_semi_sync_source_enabled = OFF")
    assert open_it(check=True)["diff"]["after"]["commits_wait_for_replicas"] is True
    assert open_it()["actions"] == ["semi_sync_on"]
    assert not open_it()["changed"]
    assert eventually(lambda: waits(primary))


def test_a_replica_is_left_as_it_is_while_its_source_is_away(primary, replica):
    primary.host.run_expect([0], "systemctl stop mysql")
    try:
        before = snapshot(replica)
        for check in (True, False):
            result = follow(replica, check=check)
            assert not result["failed"], result
            assert (result["changed"], result["state_after"]) == (False, "unreachable")
            assert "unreachable: source 172.30.62.11:3306: MySQL error 2003" in result["warnings"]
        assert follow(replica, source_password="of-another-year")["failed"], "a change is not made blindly"
        assert snapshot(replica) == before
    finally:
        primary.host.run_expect([0], "systemctl start mysql")
    assert eventually(lambda: says_writable(primary), seconds=30), "every peer follows it, and it stays closed"
    assert eventually(lambda: waits(primary), seconds=30)
    assert follow(replica)["state_after"] == "running"


def test_a_promoted_node_reopens_after_a_restart_and_waits_for_its_replica(primary, replica):
    def swap(old, new):
        old.sql(FENCE)
        assert eventually(lambda: new.sql("SELECT @@gtid_executed") == old.sql("SELECT @@gtid_executed"))
        assert new.module("mysql_replica", state="absent")["actions"] == ["stop", "reset"]
        opened = new.module("mysql_replica", state="primary", peers=[f"http://{old.address}:9201/write"])
        assert opened["actions"] == ["open"]
        assert follow(old, source_host=new.address)["actions"] == ["semi_sync_off", "configure", "start"]
        assert old.sql("SELECT @@rpl_semi_sync_source_enabled") == "0"
        assert eventually(lambda: waits(new))

    swap(primary, replica)
    try:
        replica.host.run_expect([0], "systemctl restart mysql")
        assert eventually(lambda: says_writable(replica), seconds=30)
        assert eventually(lambda: waits(replica), seconds=30)
        assert semi_sync(replica)["no_tx"] == "0"
    finally:
        swap(replica, primary)


COPY = "SELECT STATE FROM performance_schema.clone_status"
COPIED_FROM = "SELECT SOURCE FROM performance_schema.clone_status"


FULL_SPEED = "SET GLOBAL clone_max_network_bandwidth = 0"


def kill_while_it_seeds(replica):
    """Have the node copied at 1 MiB a second, and kill the module that does it."""
    replica.sql("SET GLOBAL clone_max_network_bandwidth = 1")
    with ThreadPoolExecutor() as background:
        background.submit(follow, replica)
        assert eventually(lambda: replica.mysql("--execute", COPY).stdout.strip() == "In Progress", seconds=30)
        replica.host.run_expect([0], "pkill -9 --full '[m]odules.mysql_replica'")
    assert replica.sql("SELECT @@super_read_only, @@offline_mode").split() == ["0", "1"]


def progress(node, begun: float) -> str:
    return node.host.run(f"journalctl --since=@{int(begun)} --grep 'mysql_replica: cop' --output=cat").stdout


def test_a_copy_goes_on_when_its_module_is_killed_and_a_node_that_it_emptied_is_never_taken_for_a_replica(
    primary, replica
):
    replica.sql(*NEW)
    kill_while_it_seeds(replica)
    copying = replica.sql("SELECT PID FROM performance_schema.clone_status")
    replica.sql(f"KILL QUERY {copying}")
    assert eventually(lambda: replica.sql(COPY) == "Failed", seconds=30)
    found = follow(replica, check=True)
    assert (found["state_before"], found["actions"]) == ("interrupted", ["fence", "clone", "configure", "start"])

    # The copy begins anew, and the next run waits for it.
    kill_while_it_seeds(replica)
    begun = time.time()
    with ThreadPoolExecutor() as background:
        run = background.submit(follow, replica)
        assert eventually(lambda: " MiB from its donor" in progress(replica, begun), seconds=30), (
            "nobody can see how far it is"
        )
        replica.sql(FULL_SPEED)
        done = run.result()
    assert (done["state_before"], done["state_after"]) == ("seeding", "running")
    assert done["actions"] == ["await_copy", "configure", "start"]
    assert replica.sql("SELECT @@super_read_only, @@offline_mode").split() == ["1", "0"]
    assert replica.sql("CHECKSUM TABLE site.note") == primary.sql("CHECKSUM TABLE site.note")


@pytest.fixture(scope="module")
def donor(filled):
    """Another replica of the primary, beside it on port 3307."""
    where = "/var/lib/mysql-files/donor"
    filled.sql(f"CLONE LOCAL DATA DIRECTORY = '{where}'")
    options = "--port=3307 --socket=/run/mysqld/donor.sock --pid-file=/run/mysqld/donor.pid --server-id=3 --skip-replica-start"
    filled.host.run_expect(
        [0], f"systemd-run --unit=donor --uid=mysql --property=Type=notify /usr/sbin/mysqld --datadir={where} {options}"
    )
    sql = "mysql --socket=/run/mysqld/donor.sock --execute"
    source = (
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = '172.30.62.11', SOURCE_USER = 'replication', SOURCE_PASSWORD = '{PASSWORD}', "
        "SOURCE_SSL = 1, SOURCE_AUTO_POSITION = 1; START REPLICA"
    )
    filled.host.run_expect([0], f'{sql} "{source}"')
    yield lambda statement: filled.host.run_expect([0], f'{sql} "{statement}"')
    filled.host.run_expect([0], f"systemctl stop donor; rm -r {where}")


def test_a_replica_is_copied_and_the_primary_spared(primary, replica, donor):
    seed_from = [{"host": primary.address, "port": port} for port in (3399, 3307)]  # nobody listens on the first
    replica.sql(*NEW)
    foretold = follow(replica, check=True, seed_from=seed_from)
    assert f"copied from {primary.address}:3307" in foretold["shown"]
    begun = time.time()
    done = follow(replica, seed_from=seed_from)
    assert (done["actions"], done["state_after"]) == (["clone", "configure", "start"], "running"), done
    assert f"{primary.address}:3399 does not seed this node: MySQL error 2003" in done["warnings"]
    assert replica.sql(COPIED_FROM) == f"{primary.address}:3307"
    # The donor's channel came along, and is gone: the replica follows the primary.
    assert replica.sql("SELECT HOST, PORT FROM performance_schema.replication_connection_configuration").split() == [
        primary.address,
        "3306",
    ]
    assert "copying 172.30.62.11:3307 over this node" in progress(replica, begun)


def test_a_replica_that_went_its_own_way_seeds_nobody(primary, replica, donor):
    donor("SET GLOBAL super_read_only = OFF; CREATE DATABASE stray; SET GLOBAL super_read_only = ON")
    replica.sql(*NEW)
    done = follow(replica, seed_from=[{"host": primary.address, "port": 3307}])
    assert "3307 does not seed this node: it has transactions that the source lacks" in done["warnings"]
    assert replica.sql(COPIED_FROM) == DONOR
    assert "stray" not in replica.sql("SHOW DATABASES")
