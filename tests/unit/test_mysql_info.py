"""What mysql_replica_info makes of a server's answers, and what it says where there is none."""

import json

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import mysql_info

MEMBERS = [
    {"host": "192.0.2.3", "port": 3306, "uuid": "node", "state": "ONLINE", "role": "SECONDARY"},
    {"host": "192.0.2.4", "port": 3306, "uuid": "other", "state": "ONLINE", "role": "PRIMARY"},
]
GROUP = {"name": "group", "mode": "single_primary", "members": MEMBERS}
FENCED = {
    "uuid": "node",
    "super_read_only": True,
    "read_only": True,
    "offline_mode": False,
    "channel": None,
    "channels": [],
    "group": None,
}
OPEN = {"super_read_only": False, "read_only": False}


@pytest.mark.parametrize(
    ("found", "state"),
    [
        pytest.param({}, "fenced", id="read-only without a channel"),
        pytest.param(OPEN, "primary", id="writable without a channel"),
        pytest.param({"super_read_only": False}, "fenced", id="closed to applications but not to administrators"),
        pytest.param({"channel": {"host": "192.0.2.4"}}, "replica", id="a replica"),
        pytest.param({"channel": {"host": "192.0.2.4"}, **OPEN}, "replica", id="a replica that is writable"),
        pytest.param({"channels": ["reports"], **OPEN}, "replica", id="a replica by a channel of its own"),
        pytest.param({"offline_mode": True, **OPEN}, "offline", id="out of service"),
        pytest.param(
            {"offline_mode": True, **OPEN, "seeding": "begun"}, "fenced", id="a seeding was ended in the middle"
        ),
        pytest.param(
            {"group": GROUP, "channels": ["group_replication_applier"], **OPEN}, "group", id="the group's primary"
        ),
        pytest.param(
            {"group": {**GROUP, "members": []}, "channels": ["group_replication_recovery"]},
            "fenced",
            id="configured for a group that it has not joined",
        ),
        pytest.param(
            {"group": {**GROUP, "members": [{**MEMBERS[0], "state": "OFFLINE"}]}}, "fenced", id="has left its group"
        ),
        pytest.param(
            {"group": {**GROUP, "members": [{**MEMBERS[0], "state": "ERROR"}]}}, "group", id="expelled from its group"
        ),
    ],
)
def test_a_node_is_called_what_applications_may_do_with_it(found, state):
    assert mysql_info.name_state({**FENCED, **found}) == state


def test_a_server_without_the_plugin_has_no_group():
    assert mysql_info.group({}, []) is None


def test_a_member_that_has_not_started_is_no_member():
    values = {"group_replication_group_name": "group", "group_replication_single_primary_mode": "OFF"}
    idle = {"host": "", "port": None, "uuid": "", "state": "OFFLINE", "role": ""}
    assert mysql_info.group(values, [idle]) == {"name": "group", "mode": "multi_primary", "members": []}
    assert mysql_info.group({**values, "group_replication_group_name": ""}, [idle]) is None


@pytest.mark.parametrize(("before", "days"), [(86400 * 3, 3), (86400 * 3 - 1, 2), (0, 0), (-1, -1)])
def test_a_certificate_has_whole_days_left(before, days):
    until = 1801396800
    values = {"Ssl_server_not_after": "Jan 31 12:00:00 2027 GMT", "Current_tls_cert": "server.pem"}
    found = mysql_info.certificate(values, until - before)
    assert found == {"file": "server.pem", "not_after": "2027-01-31T12:00:00Z", "days": days}


def test_a_server_without_a_certificate_has_none():
    assert mysql_info.certificate({"Ssl_server_not_after": "", "Current_tls_cert": ""}, 0) is None


def test_privileges_go_to_the_account_that_has_them():
    accounts = [
        {"user": "app", "host": host, "plugin": "auth_socket", "password": 0, "tls": "", "locked": 1}
        for host in ("%", "192.0.2.1")
    ]
    privileges = [{"account": "'app'@'%'", "privilege": name} for name in ("SUPER", "SYSTEM_USER")]
    wide, narrow = mysql_info.with_privileges(accounts, privileges)
    assert wide["privileges"] == ["SUPER", "SYSTEM_USER"]
    assert narrow == {**accounts[1], "password": False, "locked": True, "privileges": []}


class Recorded:
    """Answers queries as a replica does, and keeps them."""

    def __init__(self):
        self.queries = []

    def query(self, statement, arguments=None):
        self.queries.append(statement)
        rows = {
            "SELECT @@GLOBAL.server_id": [
                {"server_id": 3, "address": "192.0.2.3", "port": 3306, "version": "8.4.7", "gtid_purged": "a:1,\nb:1"}
            ],
            "SELECT configuration.HOST": [
                {
                    **{"host": "192.0.2.4", "port": 3306, "user": "replication", "password": "secret", "ssl_ca": ""},
                    **{"auto_position": 1, "ssl_on": 1, "ssl_verify": 1, "heartbeat": 2, "received": "a:1,\nb:2"},
                }
            ],
            "SELECT @@server_uuid": [
                {
                    **{"uuid": "node", "gtid_mode": 1, "super_read_only": 1, "read_only": 1, "offline_mode": 0},
                    **{"clone": 1, "in_group": 0, "gtid_executed": "a:1,\nb:1-2"},
                }
            ],
            "SHOW DATABASES": [{"Database": "mysql"}, {"Database": "site"}],
        }
        return next((answer for start, answer in rows.items() if statement.strip().startswith(start)), [])

    def row(self, statement, arguments=None):
        return next(iter(self.query(statement, arguments)), None)


def test_a_node_is_told_without_secrets_and_without_line_ends():
    server = Recorded()
    node = mysql_info.read(server, [])
    assert (node["state"], node["databases"], node["version"]) == ("replica", ["site"], "8.4.7")
    assert (node["gtid_purged"], node["gtid_executed"], node["channel"]["received"]) == (
        "a:1,b:1",
        "a:1,b:1-2",
        "a:1,b:2",
    )
    assert not [text for text in ("secret", "\\n") if text in json.dumps(node)]
    assert all(query.split()[0] in ("SELECT", "SHOW") for query in server.queries)
    assert len(server.queries) <= 14


def test_a_node_that_answers_has_what_one_that_does_not_has():
    assert {*mysql_info.UNKNOWN, "state", "gtid_mode", "clone", "in_group", "seeding"} == {
        *mysql_info.read(Recorded(), [])
    }
