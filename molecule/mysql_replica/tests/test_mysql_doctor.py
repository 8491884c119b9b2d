"""The doctor over two real servers, sound and sick: what it says, and that it only reads."""

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from conftest import INVENTORY
from test_mysql_replica import FENCE, OPEN, PASSWORD, STRAY, follow

PLAYBOOK = Path(__file__).parents[3] / "playbooks" / "mysql_doctor.yml"
PRIMARY, REPLICA, AWAY = "mysql-replica-primary", "mysql-replica-replica", "mysql-replica-away"


@pytest.fixture
def replica(secondary):
    """The second server as a sound replica; what the test before has done to it is mended."""
    assert follow(secondary, allow_destroy=True)["state_after"] == "running"
    return secondary


@pytest.fixture
def examine(tmp_path):
    """The doctor over the servers as a site's inventory groups them; afterwards its text and exit status."""

    def run(*replicas, strict=True):
        groups = {
            "mysql_primary": {"hosts": {PRIMARY: {}}},
            "mysql_replicas": {"hosts": {name: {} for name in replicas}},
        }
        inventory = tmp_path / "groups.json"
        inventory.write_text(json.dumps({"all": {"children": {"databases": {"children": groups}}}}))
        return subprocess.run(
            [
                *("ansible-playbook", "-vv", "--inventory", INVENTORY, "--inventory", inventory),
                *("--extra-vars", json.dumps({"doctor_strict": strict}), PLAYBOOK),
            ],
            text=True,
            capture_output=True,
            check=False,
        )

    return run


def findings(done) -> list[str]:
    """Each finding with its remedy, in one line."""
    report = done.stdout.split("TASK [Show each node")[1].split("TASK [")[0]
    lines = [line.strip() for line in report.splitlines()]
    severities = ("error: ", "warning: ", "info: ")
    return [f"{line} | {remedy}" for line, remedy in itertools.pairwise(lines) if line.startswith(severities)]


def test_a_sound_pair_has_no_errors_and_is_only_read(primary, replica, examine):
    sets = [node.sql("SELECT @@GLOBAL.gtid_executed") for node in (primary, replica)]
    done = examine(REPLICA)
    assert done.returncode == 0, done.stdout
    assert not [line for line in findings(done) if line.startswith(("error", "warning"))]
    assert f"{REPLICA} ({replica.address}:3306, MySQL " in done.stdout
    assert f": replica of {PRIMARY}" in done.stdout
    assert "receiver ON, applier ON, lag 0 s" in done.stdout
    assert "changed=0" in done.stdout
    assert PASSWORD not in done.stdout
    assert sets == [node.sql("SELECT @@GLOBAL.gtid_executed") for node in (primary, replica)]


def test_what_is_sick_is_named_with_its_remedy(primary, replica, examine):
    primary.sql(
        "CREATE DATABASE clinic",
        "CREATE TABLE clinic.keyless (word TEXT)",
        "CREATE USER mighty IDENTIFIED BY 'of-the-doctor'",
        "GRANT SUPER ON *.* TO mighty",
    )
    written = primary.sql("SELECT @@GLOBAL.gtid_executed").replace("\\n", "")
    assert replica.sql(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{written}', 10)") == "0"
    stray = replica.sql("SELECT @@server_uuid")
    replica.sql(*STRAY, "STOP REPLICA", OPEN, "SET GLOBAL read_only = OFF")
    try:
        done = examine(REPLICA)
    finally:
        primary.sql("DROP DATABASE clinic", "DROP USER mighty")
        # A primary that has the stray transaction, too, needs no new copy of itself.
        executed = replica.sql("SELECT @@gtid_executed").replace("\\n", "")
        newest = re.search(rf"{stray}:(?:\d+-)?(\d+)", executed)[1]
        primary.sql(f"SET GTID_NEXT = '{stray}:{newest}'", "BEGIN", "COMMIT", "SET GTID_NEXT = AUTOMATIC")
        replica.sql("SET SESSION sql_log_bin = OFF", "DROP DATABASE stray", FENCE)
    found = "\n".join(findings(done))
    for finding in (
        f"error: {REPLICA}: has 1 transaction that {PRIMARY} lacks: {stray}:",
        f"ansible-playbook foobar.webstack.rejoin -e node={REPLICA} saves them to a file",
        f"error: {REPLICA}: is a replica, and applications can write to it | SET GLOBAL super_read_only = ON on it.",
        f"error: {REPLICA}: replication is stopped: it receives nothing from {primary.address}:3306 | START REPLICA on it.",
        f"error: {REPLICA}: replication is stopped: it applies nothing of what it receives | START REPLICA on it.",
        f"warning: {PRIMARY}, {REPLICA}: without a primary key a replica searches the whole table for each row",
        "clinic.keyless | ALTER TABLE … ADD PRIMARY KEY (…)",
        f"warning: {PRIMARY}, {REPLICA}: account 'mighty'@'%' may connect without TLS | ALTER USER 'mighty'@'%' REQUIRE SSL.",
        f"warning: {PRIMARY}, {REPLICA}: account 'mighty'@'%' has power over the whole server (SUPER ON *.*) | REVOKE ALL ON *.*",
    ):
        assert finding in found
    assert done.returncode != 0
    assert "4 of the findings above are errors" in done.stdout


def test_servers_that_do_not_answer_are_findings_and_do_not_hide_the_others(primary, replica, examine):
    replica.host.run("systemctl stop mysql")
    try:
        done = examine(REPLICA, AWAY, strict=False)
    finally:
        replica.host.run("systemctl start mysql")
    assert done.returncode == 0, done.stdout
    found = "\n".join(findings(done))
    assert f"error: {REPLICA}: MySQL does not answer: MySQL error 2003: " in found
    assert f"error: {AWAY}: cannot be reached" in found
    assert f"{PRIMARY} ({primary.address}:3306, MySQL " in done.stdout


def test_a_node_is_told_without_its_secrets_and_in_check_mode_too(primary, replica):
    for check in (False, True):
        told = replica.module("mysql_replica_info", check=check, gather=["tables", "accounts", "certificate", "disk"])
        node = told["node"]
        assert (told["changed"], node["state"], node["address"]) == (False, "replica", replica.address)
        assert node["channel"]["source_uuid"] == primary.sql("SELECT @@server_uuid")
        assert node["certificate"]["days"] > 300
        assert node["disk"]["binary_log_bytes"] > 0
        assert {"user": "replication", "tls": "ANY"}.items() <= next(
            account for account in node["accounts"] if account["user"] == "replication"
        ).items()
        assert not [secret for secret in (PASSWORD, "$A$005$") if secret in told["shown"]]
    assert primary.module("mysql_replica_info", gather=[])["node"]["replicas"] == [node["uuid"]]
