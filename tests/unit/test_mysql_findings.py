"""What the doctor finds in a database tier, each fault alone in a tier that is healthy otherwise, and the remedy that it names."""

import copy

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_findings import errant, findings, nodes, report

ONE, TWO, THREE = (f"{digit * 8}-0000-0000-0000-000000000000" for digit in "123")
GROUP = "99999999-0000-0000-0000-000000000000"
ACCOUNT = {"user": "app", "host": "192.0.2.9", "plugin": "caching_sha2_password", "password": True, "tls": "ANY"}
ACCOUNT |= {"locked": False, "privileges": ["REPLICATION SLAVE"]}
ROOT = ACCOUNT | {"user": "root", "host": "localhost", "tls": "", "privileges": ["SUPER"]}
SPACE = {"path": "/var/lib/mysql", "free": 50, "size": 100}
SEMI_SYNC = {
    "source": False,
    "source_active": False,
    "source_replicas": 0,
    "timeout_ms": 10000,
    "wait_no_replica": False,
}
SEMI_SYNC |= {"replica": True, "replica_active": False}
CHANNEL = {"host": "192.0.2.1", "port": 3306, "user": "replication", "source_uuid": ONE, "lag": 0}
CHANNEL |= {
    "auto_position": True,
    "ssl": True,
    "ssl_ca": "ca",
    "ssl_verify": True,
    "connect_retry": 5,
    "retry_count": 0,
}
CHANNEL |= {"heartbeat": 2.0, "io": "ON", "applier": "ON", "received": f"{ONE}:5-9"}
CHANNEL |= {"io_errno": 0, "io_error": "", "applier_errno": 0, "applier_error": ""}


def node(number, own_uuid, **changes):
    return copy.deepcopy(
        {
            **{"state": "replica", "uuid": own_uuid, "server_id": number, "address": f"192.0.2.{number}", "port": 3306},
            **{"version": "8.4.7", "super_read_only": True, "read_only": True, "offline_mode": False, "seeding": ""},
            **{"gtid_mode": True, "gtid_executed": f"{ONE}:1-9", "gtid_purged": "", "databases": ["site"]},
            **{"replicas": [], "channel": CHANNEL, "channels": [], "semi_sync": SEMI_SYNC, "group": None},
            **{"tables_without_key": [], "accounts": [ROOT, ACCOUNT]},
            "certificate": {"file": "cert.pem", "not_after": "2027-01-31T12:00:00Z", "days": 300},
            "disk": {"data": SPACE, "binary_logs": SPACE, "binary_log_bytes": 2**30, "binary_log_seconds": 604800},
            **changes,
        }
    )


def tier(one=None, two=None):
    """A primary and its replica, with changes."""
    primary = {"state": "primary", "super_read_only": False, "read_only": False, "channel": None, "replicas": [TWO]}
    primary["semi_sync"] = SEMI_SYNC | {"source": True, "source_active": True, "source_replicas": 1}
    replica = {"semi_sync": SEMI_SYNC | {"replica_active": True}}
    return {"db1": node(1, ONE, **primary | (one or {})), "db2": node(2, TWO, **replica | (two or {}))}


def channel(**changes):
    return {"channel": CHANNEL | changes}


def account(**changes):
    return {"accounts": [ROOT, ACCOUNT | changes]}


def semi_sync(**changes):
    return {"semi_sync": SEMI_SYNC | {"source": True, "source_active": True, "source_replicas": 1} | changes}


def disk(**changes):
    return {"disk": node(1, ONE)["disk"] | changes}


def lines(found):
    return [f"{one['severity']}: {','.join(one['nodes'])}: {one['what']} | {one['remedy']}" for one in found]


def test_a_healthy_pair_has_no_findings():
    assert findings(tier(), "db1") == []


OPEN = {"super_read_only": False, "read_only": False}
FENCED = {"state": "fenced", "channel": None}
REPLICA = [
    (channel(io="OFF"), "error: db2: replication is stopped: it receives nothing from 192.0.2.1:3306 | START REPLICA"),
    (channel(applier="OFF"), "error: db2: replication is stopped: it applies nothing"),
    (channel(io="CONNECTING"), "error: db2: connects to 192.0.2.1:3306 without end | The source must run"),
    (channel(io="CONNECTING", io_errno=1045, io_error="denied"), "error 1045: denied | source_user must exist"),
    (channel(io="OFF", io_errno=13114, io_error="has purged"), "foobar.webstack.rejoin -e node=db2 seeds it anew"),
    (channel(applier="OFF", applier_errno=1062, applier_error="Duplicate"), "MySQL error 1062: Duplicate | Mend what"),
    (channel(lag=11), "warning: db2: is 11 s behind: it serves no reads until it is at most 10 s behind"),
    (channel(retry_count=10, heartbeat=30.0), "warning: db2: its channel differs from what the role sets: retry_count"),
    (channel(ssl=False), "error: db2: its channel differs from what the role sets: ssl is False instead of True"),
    (channel(ssl_verify=False), "ssl_verify is False instead of True | ansible-playbook foobar.webstack.site"),
    (channel(host="192.0.2.7", source_uuid=THREE), "error: db2: replicates from 192.0.2.7:3306 and not from db1"),
    (channel(host="192.0.2.2", source_uuid=""), "error: db2: replicates from db2 and not from db1, the primary"),
    (OPEN, "error: db2: is a replica, and applications can write to it | SET GLOBAL super_read_only = ON"),
    ({"super_read_only": False}, "error: db2: is a replica, and administrators can write to it | SET GLOBAL"),
    ({"read_only": False, "super_read_only": False, "state": "primary", "channel": None}, "db1 and db2 accept writes"),
    (
        {"gtid_executed": f"{ONE}:1-9,{TWO}:1-3"},
        f"error: db2: has 3 transactions that db1 lacks: {TWO}:1-3 | ansible-pl",
    ),
    ({"gtid_executed": f"{ONE}:1-9,{TWO}:1"}, "foobar.webstack.rejoin -e node=db2 saves them to a file"),
    (
        FENCED | {"gtid_executed": ""},
        "neither accepts writes nor replicates | ansible-playbook foobar.webstack.site makes",
    ),
    (FENCED, "error: db2: neither accepts writes nor replicates | ansible-playbook foobar.webstack.rejoin -e node=db2"),
    (
        {"offline_mode": True, "state": "offline"},
        "error: db2: offline_mode is on: applications cannot connect | SET GLOBAL",
    ),
    (
        {"seeding": "broken", **FENCED},
        "error: db2: its seeding was ended in the middle | ansible-playbook foobar.webstack",
    ),
    ({"seeding": "running", "offline_mode": True, **FENCED}, "info: db2: is being seeded | ansible-playbook"),
    ({"channels": ["reports"]}, "warning: db2: has a replication channel of its own: reports"),
    ({"gtid_mode": False}, "error: db2: gtid_mode is not ON"),
    ({"version": "8.4.6"}, "warning: db2: runs MySQL 8.4.6, older than its primary's 8.4.7"),
    ({"version": "8.3.0"}, "error: db2: runs MySQL 8.3.0, older"),
    ({"server_id": 1}, "error: db1,db2: have the same server_id, 1"),
    (
        {"uuid": ONE},
        f"error: db1,db2: have the same uuid, {ONE}: the source drops the one when the other connects | Stop",
    ),
    ({"semi_sync": SEMI_SYNC | {"replica": False}}, "warning: db2: acknowledges nothing to its primary | SET GLOBAL"),
    ({"semi_sync": SEMI_SYNC | {"source": True}}, "warning: db2: waits for acknowledgements as if it were the primary"),
    ({"semi_sync": None}, "info: db2: without semi-synchronous replication"),
    ({"tables_without_key": ["site.log"]}, "warning: db2: without a primary key a replica searches"),
    ({"certificate": None}, "error: db2: has no certificate"),
    (
        {"certificate": {"not_after": "2026", "days": -1}},
        "error: db2: the certificate has expired: 2026 | ansible-playbook",
    ),
    ({"certificate": {"not_after": "2026", "days": 29}}, "warning: db2: the certificate expires in 29 days: 2026"),
    (disk(data=SPACE | {"free": 9}), "warning: db2: 9 % of the disk is free (/var/lib/mysql)"),
    (disk(data=SPACE | {"path": "/data", "free": 2}), "error: db2: 2 % of the disk is free (/data)"),
    (disk(binary_log_seconds=0), "warning: db2: keeps binary logs for ever"),
    (disk(binary_log_seconds=3600), "warning: db2: keeps binary logs for 1 hours"),
    (disk(binary_logs=None), "error: db2: writes no binary log"),
    (
        account(host="%", tls=""),
        "warning: db2: account 'app'@'%' may connect without TLS | ALTER USER 'app'@'%' REQUIRE",
    ),
    (account(password=False), "error: db2: account 'app'@'192.0.2.9' has no password"),
    (account(plugin=""), "error: db2: account 'app'@'192.0.2.9' has no password"),
    (account(user="", host="localhost"), "error: db2: account ''@'localhost' lets anybody in"),
    (account(plugin="mysql_native_password"), "warning: db2: account 'app'@'192.0.2.9' proves itself by SHA-1"),
    (
        account(privileges=["SELECT", "SUPER"]),
        "warning: db2: account 'app'@'192.0.2.9' has power over the whole server (SUPER",
    ),
    (
        account(host="localhost", tls="", privileges=["UPDATE"]),
        "has power over the whole server (UPDATE ON *.*) | REVOKE",
    ),
    (account(user="root", host="%", privileges=["SUPER"]), "warning: db2: account 'root'@'%' has power over"),
]


@pytest.mark.parametrize(("changes", "said"), REPLICA, ids=[said for _changes, said in REPLICA])
def test_a_fault_of_the_replica_is_named_with_its_remedy_and_alone(changes, said):
    found = findings(tier(two=changes), "db1")
    assert said in "\n".join(lines(found))
    assert len(found) == 1 or "accept writes" in said or "same uuid" in said


PRIMARY = [
    (
        semi_sync(source_active=False, source_replicas=0),
        "warning: db1: commits wait for no replica now (0 acknowledge)",
    ),
    (
        semi_sync(source_active=False) | {"gtid_executed": f"{ONE}:1-10"},
        "warning: db1: commits wait for no replica now (1 acknowledge)",
    ),
    (semi_sync(source=False, source_active=False), "warning: db1: commits wait for no replica | SET GLOBAL rpl"),
    (semi_sync(source_replicas=0, wait_no_replica=True), "error: db1: writes stall until a replica acknowledges them"),
    ({"replicas": [TWO, THREE]}, f"info: db1: a server that is not among those asked replicates from it: {THREE}"),
    (
        {"state": "fenced", "super_read_only": True},
        "error: db1,db2: no node accepts writes | systemctl restart mysql-open on db1 opens it if it still is the primary",
    ),
]


@pytest.mark.parametrize(("changes", "said"), PRIMARY, ids=[said for _changes, said in PRIMARY])
def test_a_fault_of_the_primary_is_named_with_its_remedy_and_alone(changes, said):
    assert [said in line for line in lines(findings(tier(one=changes), "db1"))] == [True]


@pytest.mark.parametrize(
    "changes",
    [
        account(locked=True, password=False, privileges=["SUPER"]),
        account(user="operator", host="localhost", plugin="auth_socket", password=False, tls="", privileges=["SUPER"]),
        account(user="mysql.sys", host="localhost", tls="", privileges=["SUPER"]),
        {"gtid_executed": f"{ONE}:1-12"},
        {"tables_without_key": []},
    ],
    ids=["locked", "by socket", "of the system", "read later than the primary", "no table"],
)
def test_what_is_no_fault_is_no_finding(changes):
    assert findings(tier(two=changes), "db1") == []


def test_the_primary_of_now_counts_and_the_inventory_is_said_to_lag_behind():
    (found,) = lines(findings(tier(), "db2"))
    assert found.startswith("info: db1: is the primary; by the inventory it is db2 | ")
    assert "foobar.webstack.switchover -e primary=db2" in found


def test_a_dead_primary_leads_to_the_replica_with_the_most_transactions():
    found = tier()
    found["db3"] = node(3, THREE, gtid_executed=f"{ONE}:1-8")
    found["db1"] = {"state": "down", "error": "MySQL error 2002: no socket", "uuid": None}
    down, nobody, *others = lines(findings(found, "db1"))
    assert down.startswith("error: db1: MySQL does not answer: MySQL error 2002: no socket | systemctl status mysql")
    assert nobody.startswith("error: db2,db3: no node accepts writes | ")
    assert "foobar.webstack.failover -e primary=db2 -e confirm=db2" in nobody
    assert others == []


def test_a_host_that_could_not_be_asked_is_a_finding():
    answers = {host: {"node": found} for host, found in tier().items()}
    answers["db2"] = {"unreachable": True, "msg": "It failed:\nConnection timed out."}
    first, *_others = lines(findings(nodes(answers), "db1"))
    assert first.startswith("error: db2: cannot be reached: Connection timed out | Bring the host back.")


def test_semi_sync_that_only_waits_for_the_next_commit_is_no_fault():
    assert findings(tier(one=semi_sync(source_active=False))) == []


def test_a_primary_whose_replica_is_away_is_said_to_have_no_copy_and_one_that_is_alone_is_not():
    found = tier(one=semi_sync(source_active=False, source_replicas=0) | {"replicas": []})
    assert "commits wait for no replica now" in "\n".join(lines(findings(found | {"db2": {"state": "unreachable"}})))
    assert findings({"db1": found["db1"]}) == []


def test_what_was_not_gathered_is_not_judged_and_not_shown():
    found = tier()
    for one in found.values():
        for name in ("tables_without_key", "accounts", "certificate", "disk"):
            del one[name]
    assert findings(found, "db1") == []
    assert "certificate" not in report(found, [])


def test_nothing_at_all_is_survived():
    silent = {"db1": {"state": "not_installed", "uuid": None}, "db2": {"state": "unreachable", "error": ""}}
    assert [one["severity"] for one in findings(silent)] == ["error", "error"]
    assert findings({}) == []
    assert "no MySQL server" in report(silent, [])


def test_what_is_on_every_node_is_one_finding_and_errors_come_first():
    changes = {"tables_without_key": [f"site.t{number}" for number in range(12)]}
    found = findings(tier(one=changes, two={**changes, **OPEN}), "db1")
    assert [(one["severity"], one["nodes"]) for one in found] == [("error", ["db2"]), ("warning", ["db1", "db2"])]
    assert "site.t9 and 2 more" in found[1]["what"]


@pytest.mark.parametrize(("limits", "number"), [({}, 0), ({"certificate_days": "301"}, 1), ({"disk_free": 60}, 1)])
def test_limits_are_the_users(limits, number):
    assert len(findings(tier(), "db1", limits)) == number


def test_a_limit_that_is_none_is_refused_by_name():
    with pytest.raises(ValueError, match="days: no limit; there are max_lag"):
        findings(tier(), "db1", {"days": 3})


def group(*states, **changes):
    """A group whose first member is the primary, each member seen by all as its state."""
    uuids = (ONE, TWO, THREE)[: len(states)]
    members = [
        {"host": f"192.0.2.{number}", "port": 3306, "uuid": uuid, "state": state, "role": role}
        for number, (uuid, state, role) in enumerate(
            zip(uuids, states, ["PRIMARY", "SECONDARY", "SECONDARY"], strict=False), 1
        )
    ]
    shape = {"name": GROUP, "mode": "single_primary", "members": members}
    common = {"state": "group", "channel": None, "group": shape, "channels": ["group_replication_applier"]}
    common |= {"gtid_executed": f"{GROUP}:1-9", "semi_sync": None} | changes
    return {
        f"db{number}": node(number, uuid, **common | (OPEN if number == 1 else {}))
        for number, uuid in enumerate(uuids, 1)
    }


def test_a_healthy_group_has_no_findings_whoever_is_its_primary():
    found = group("ONLINE", "ONLINE", "ONLINE")
    found["db2"]["gtid_executed"] = f"{GROUP}:1-11"
    assert findings(found, "db3") == []
    text = report(found, [])
    assert f"primary of group {GROUP}, ONLINE" in text
    assert "  group        192.0.2.1 ONLINE, 192.0.2.2 ONLINE, 192.0.2.3 ONLINE" in text


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (group("ONLINE", "ONLINE"), "warning: db1,db2: a group of 2 survives no more losses than one of 1"),
        (group("ONLINE", "RECOVERING", "ONLINE"), "error: db2: is RECOVERING in its group | RECOVERING passes"),
        (
            group("ONLINE", "UNREACHABLE", "UNREACHABLE"),
            "does not see 2 of 3 members: without a majority nobody writes",
        ),
        (
            group("ONLINE", "ONLINE", "ONLINE", tables_without_key=["site.log"]),
            "error: db1,db2,db3: without a primary key",
        ),
    ],
)
def test_a_fault_of_a_group_is_named(members, said):
    assert said in "\n".join(lines(findings(members)))


def test_a_group_without_a_writer_is_no_case_for_a_failover():
    found = lines(findings(group("ONLINE", "ONLINE", "ONLINE", super_read_only=True) | {"db1": {"state": "down"}}))
    (line,) = (line for line in found if "no node accepts writes" in line)
    assert "foobar.webstack.site starts a group anew" in line
    assert "failover" not in line


def test_a_member_that_left_its_group_is_sent_back():
    found = group("ONLINE", "ONLINE", "ONLINE")
    left = {"state": "fenced", "group": found["db3"]["group"] | {"members": []}}
    found["db3"] |= left
    assert lines(findings(found))[0].startswith("error: db3: is not in its group | START GROUP_REPLICATION")
    (nobody,) = lines(findings({host: one | left for host, one in found.items()}))
    assert "no node accepts writes" in nobody, "nobody can join a group that is gone"


@pytest.mark.parametrize(("state", "leave"), [("fenced", ""), ("group", " and STOP GROUP_REPLICATION on it")])
def test_what_only_one_node_of_a_group_holds_is_no_case_for_rejoin(state, leave):
    found = group("ONLINE", "ONLINE", "ONLINE")
    found["db3"] |= {"state": state, "gtid_executed": f"{GROUP}:1-9,{THREE}:1"}
    (line,) = (line for line in lines(findings(found)) if "has 1 transaction that db1 lacks" in line)
    again = "ansible-playbook foobar.webstack.site -e mysql_group_allow_destroy=192.0.2.3"
    assert line.endswith(
        f"| Save them (mysqlbinlog --include-gtids){leave}; then {again} copies the group over the node."
    )


def test_transactions_of_the_primary_are_never_errant():
    found = tier(two={"gtid_executed": f"{ONE}:1-20,{THREE}:4"})
    assert str(errant(found["db2"], found["db1"])) == f"{THREE}:4"


def test_the_report_shows_every_node_and_every_remedy():
    found = tier(two={"gtid_executed": f"{ONE}:1-7,{TWO}:1"} | channel(io="OFF", lag=None))
    text = report(found, findings(found, "db1"))
    for line in (
        "db1 (192.0.2.1:3306, MySQL 8.4.7): primary",
        "  replicas     db2",
        "  semi-sync    active, 1 acknowledge; without, writes go on after 10 s",
        "  disk         0.0 of 0.0 GiB free; 1.0 GiB of binary logs, kept 7 days",
        "db2 (192.0.2.2:3306, MySQL 8.4.7): replica of db1",
        "  semi-sync    acknowledges",
        "  missing      2 transactions of db1",
        f"  errant       {TWO}:1",
        "  channel      receiver OFF, applier ON, lag unknown",
        "  certificate  until 2027-01-31T12:00:00Z (300 days)",
        "error: db2: replication is stopped: it receives nothing from 192.0.2.1:3306",
        "  START REPLICA on it. ansible-playbook foobar.webstack.site does so, too.",
        "2 errors",
    ):
        assert line in text.splitlines()
    assert report(tier(), []).splitlines()[-1] == "Nothing is wrong."
