"""The name of a node's state, and what is done about it, from evidence alone."""

import itertools

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import (
    Refusal,
    awaits_account,
    donor_fault,
    explain,
    fresh,
    left_alone,
    name_state,
    plan,
    seeding,
    semi_sync,
    settings,
    stalled,
)

WANT = {
    "state": "replica",
    "source_host": "192.0.2.4",
    "source_port": 3306,
    "source_user": "replication",
    "source_password": "secret",
    "source_ssl_ca": "/ca.pem",
    "source_ssl_verify": True,
    "seed": "auto",
    "allow_destroy": False,
    "max_lag": None,
}
GOOD = {
    **settings(WANT),
    **{"io": "ON", "applier": "ON", "io_errno": 0, "io_error": "", "applier_errno": 0, "applier_error": "", "lag": 0},
    "source_uuid": "source",
}
SOURCE = {"uuid": "source", "super_read_only": False, "errant": "", "missing": "", "purged": ""}


def channel(**changes):
    return {**GOOD, **changes}


def node(**changes):
    """A fenced node with data, without a channel."""
    return {
        "uuid": "node",
        "gtid_executed": "source:1-9",
        "super_read_only": True,
        "read_only": True,
        "offline_mode": False,
        "in_group": False,
        "clone": True,
        "databases": ["site"],
        "replicas": [],
        "channels": [],
        "channel": None,
        "seeding": "",
        "semi_sync": None,
        **changes,
    }


OPEN = {"super_read_only": False, "read_only": False}
OFFLINE = {**OPEN, "offline_mode": True}
ASYNC = {"source": False, "wait_no_replica": False, "source_replicas": 0}
SYNC = {**ASYNC, "source": True}
NEW = {"databases": [], "gtid_executed": ""}


@pytest.mark.parametrize(
    ("state", "evidence", "source"),
    [
        ("unconfigured", {}, {}),
        ("unconfigured", {**OPEN, "offline_mode": True}, {}),
        ("primary", OPEN, {}),
        ("primary", {**OPEN, "in_group": True, "channels": ["group_replication_applier"]}, {}),
        ("member", {"in_group": True, "channels": ["group_replication_applier"]}, {}),
        ("other_channels", {"channels": ["from_the_archive"], "channel": channel()}, {}),
        ("other_source", {"channel": channel(host="192.0.2.9")}, {"errant": "node:1"}),
        ("other_source", {"channel": channel(port=3307)}, {}),
        ("errant", {"channel": channel(applier_errno=1062)}, {"errant": "node:1"}),
        ("applier_broken", {"channel": channel(applier_errno=1062, applier="OFF")}, {}),
        ("purged", {"channel": channel(io="OFF")}, {"purged": "source:10"}),
        ("purged", {"channel": channel(io="OFF", io_errno=13114, io_error="the source purged required logs")}, {}),
        ("io_broken", {"channel": channel(io="OFF", io_errno=13117, io_error="equal server ids")}, {}),
        ("auth_failed", {"channel": channel(io="CONNECTING", io_errno=1045)}, {}),
        ("tls_failed", {"channel": channel(io="CONNECTING", io_errno=1045, ssl=False)}, {}),
        ("tls_failed", {"channel": channel(io="CONNECTING", io_errno=3159)}, {}),
        ("tls_failed", {"channel": channel(io="CONNECTING", io_errno=2026)}, {}),
        ("unreachable", {"channel": channel(io="CONNECTING", io_errno=2003)}, {}),
        ("stopped", {"channel": channel(io="OFF", applier="OFF", lag=None)}, {}),
        ("stopped", {"channel": channel(io="OFF", lag=None)}, {}),
        ("stopped", {"channel": channel(applier="OFF", lag=None)}, {}),
        ("connecting", {"channel": channel(io="CONNECTING", lag=None)}, {}),
        ("running", {"channel": channel()}, {}),
        ("running", {"channel": channel(lag=3600)}, {"missing": "source:10-99"}),
        ("running", {"channel": channel(source_uuid="")}, {}),
        ("other_source", {"channel": channel(source_uuid="rebuilt")}, {}),
        ("writable", {"channel": channel(), **OPEN}, {"missing": "source:10"}),
        ("interrupted", {"seeding": "begun", **OFFLINE}, {}),
        ("interrupted", {"seeding": "broken", "channel": channel(applier_errno=1146)}, {}),
        ("seeding", {"seeding": "running", **OFFLINE}, {"errno": 2003, "error": "Can't connect"}),
        # The source has purged what this replica has yet to apply from its relay log.
        ("running", {"channel": channel()}, {"purged": "source:10"}),
    ],
)
def test_a_state_is_named_by_its_evidence(state, evidence, source):
    assert name_state(node(**evidence), {**SOURCE, **source}, WANT) == state


@pytest.mark.parametrize(
    ("lag", "missing", "state"),
    [(11, "source:10", "lagging"), (None, "source:10", "lagging"), (10, "source:10", "running"), (99, "", "running")],
)
def test_a_replica_lags_only_if_it_lacks_something_for_longer_than_allowed(lag, missing, state):
    evidence = node(channel=channel(lag=lag))
    assert name_state(evidence, {**SOURCE, "missing": missing}, {**WANT, "max_lag": 10}) == state


def decide(evidence, source=None, peers=(), **options):
    here, want = node(**evidence), {**WANT, **options}
    there = {**SOURCE, **(source or {})}
    return plan(name_state(here, there, want), here, there, want, list(peers))


DEAD = {"errno": 2003, "error": "Can't connect"}
SEED = ["clone", "configure", "start"]
POINT = ["configure", "start"]
AGAIN = ["stop", "configure", "start"]


@pytest.mark.parametrize(
    ("evidence", "source", "options", "actions"),
    [
        # A new node is copied: the source's binary log may not reach back to its beginning.
        (NEW, {}, {}, SEED),
        ({**NEW, **OPEN}, {}, {}, ["fence", *SEED]),
        (NEW, {}, {"seed": "never"}, POINT),
        # Transactions of its own making, such as those of its installation, do not count as data.
        ({**NEW, "gtid_executed": "node:1-3"}, {"errant": "node:1-3"}, {}, SEED),
        # A node that has what the source no longer keeps is only pointed.
        ({}, {}, {}, POINT),
        ({}, {"missing": "source:10-99"}, {}, POINT),
        ({}, {"purged": "source:10"}, {"allow_destroy": True}, SEED),
        ({}, {"errant": "node:1"}, {"allow_destroy": True}, SEED),
        ({"channel": channel()}, {}, {}, []),
        ({"channel": channel(), **OPEN}, {}, {}, ["fence"]),
        ({"channel": channel()}, {"purged": "source:10"}, {}, []),
        ({"channel": channel(io="OFF", applier="OFF")}, {}, {}, ["start"]),
        ({"channel": channel(io="CONNECTING")}, {}, {}, []),
        ({"channel": channel(retry_count=10)}, {}, {}, AGAIN),
        ({"channel": channel(ssl_ca="")}, {}, {}, AGAIN),
        # A new password alone: the receiver takes it, and the applier goes on.
        ({"channel": channel(password="old")}, {}, {}, ["renew"]),
        ({"channel": channel(password="old", io="CONNECTING", io_errno=1045)}, {}, {}, ["renew"]),
        ({"channel": channel(password="old", applier="OFF")}, {}, {}, AGAIN),
        ({"channel": channel(password="old", ssl_ca="")}, {}, {}, AGAIN),
        # The source lets the module in with the same password: the account has been mended since.
        ({"channel": channel(io="CONNECTING", io_errno=1045)}, {}, {}, ["stop", "start"]),
        ({"channel": channel(io="OFF", io_errno=2003)}, {}, {}, ["start"]),
        ({"channel": channel(io="CONNECTING", io_errno=2003)}, {}, {}, []),
        ({"channel": channel(host="192.0.2.9")}, {}, {}, AGAIN),
        ({"channel": channel(host="192.0.2.9", io="CONNECTING")}, {"super_read_only": True}, {}, AGAIN),
        ({"channel": channel(io="OFF")}, {"purged": "source:10"}, {"allow_destroy": True}, ["stop", *SEED]),
        ({"channel": channel(applier_errno=1062)}, {}, {"allow_destroy": True}, ["stop", *SEED]),
        # The source cannot be asked just now, but the channel is as wanted.
        ({"channel": channel()}, {"errno": 1040, "error": "Too many connections"}, {}, []),
        ({"channel": channel(io="CONNECTING", io_errno=2003)}, DEAD, {}, []),
        ({"channel": channel(io="OFF", applier="OFF"), **OPEN}, DEAD, {}, ["fence"]),
        # Another server answers at the source's address.
        ({"channel": channel(source_uuid="rebuilt")}, {}, {}, ["stop", "start"]),
        # A replica's commits wait for nobody.
        ({"channel": channel(), "semi_sync": SYNC}, {}, {}, ["semi_sync_off"]),
        ({"semi_sync": SYNC, **OPEN, **NEW}, {}, {}, ["fence", "semi_sync_off", *SEED]),
        ({"channel": channel(), "semi_sync": ASYNC}, {}, {}, []),
        # An earlier run was ended in the middle: mysqld still copies, has not begun to, or had emptied the node.
        ({"seeding": "running", **OFFLINE, **NEW}, {}, {}, ["await_copy", *POINT]),
        ({"seeding": "begun", **OFFLINE, "channel": channel()}, {}, {}, ["fence", "online"]),
        ({"seeding": "begun", **OFFLINE, **NEW}, {}, {}, ["fence", "online", *SEED]),
        ({"seeding": "broken", "databases": []}, {}, {}, SEED),
        ({"seeding": "broken", "databases": [], "channel": channel()}, {}, {}, ["stop", *SEED]),
    ],
)
def test_a_replica_is_made_with_the_least_that_does_it(evidence, source, options, actions):
    assert decide(evidence, source, **options) == actions


@pytest.mark.parametrize(
    ("changes", "errno", "awaits"),
    [
        ({"password": "old"}, 1045, True),
        ({"password": "old"}, 2003, False),
        ({"password": "old", "ssl_ca": ""}, 1045, False),
        ({"password": "old", "io": "OFF"}, 1045, False),
        ({}, 1045, False),
    ],
)
def test_a_dry_run_foresees_that_the_account_gets_the_new_password(changes, errno, awaits):
    here, there = node(channel=channel(**changes)), {"errno": errno, "error": "denied"}
    assert awaits_account(name_state(here, there, WANT), here, there, WANT) is awaits


@pytest.mark.parametrize(
    ("evidence", "source", "options", "reason"),
    [
        ({}, {"errant": "node:1"}, {}, "errant: source 192.0.2.4:3306: this node has transactions"),
        ({}, {"purged": "source:10"}, {}, "databases: site"),
        ({"gtid_executed": ""}, {}, {}, "databases: site"),
        ({"gtid_executed": ""}, {}, {"seed": "never"}, "seed=never forbids it"),
        ({**NEW, "gtid_executed": "other:1"}, {"errant": "other:1"}, {}, "none, but transactions of its own"),
        ({**NEW, "clone": False}, {}, {}, "clone plugin is not active"),
        ({"channel": channel(applier_errno=1062, applier_error="Duplicate entry")}, {}, {}, "1062: Duplicate entry."),
        ({"channel": channel(io="OFF", io_errno=13114, io_error="purged")}, {"purged": "source:10"}, {}, "13114"),
        ({}, {"errant": "node:1"}, {"allow_destroy": True, "seed": "never"}, "seed=never forbids it"),
        (OPEN, {}, {"allow_destroy": True}, "may be the primary of now"),
        ({"channels": ["archive"]}, {}, {}, "archive"),
        ({}, {"uuid": "node"}, {}, "is this node itself"),
        ({"replicas": ["source"]}, {}, {"allow_destroy": True}, "replicates from this node"),
        ({"channel": channel(host="192.0.2.9")}, {"super_read_only": True}, {}, "moved only to a primary"),
        ({"channel": channel()}, {"errno": 1045, "error": "Access denied"}, {"source_password": "x"}, "auth_failed"),
        ({}, DEAD, {}, "unreachable: source 192.0.2.4:3306: MySQL error 2003"),
        ({}, {"errno": 2026, "error": "certificate"}, {}, "tls_failed"),
        ({"seeding": "begun", **OFFLINE}, {"errant": "node:1"}, {}, "errant: source"),
        ({"seeding": "broken", "databases": []}, {"errant": "other:1"}, {}, "none, but transactions of its own"),
    ],
)
def test_what_is_not_safe_is_refused_with_the_reason(evidence, source, options, reason):
    with pytest.raises(Refusal) as refusal:
        decide(evidence, source, **options)
    assert reason in str(refusal.value)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("evidence", "peers", "expected"),
    [
        ({}, [], ["open"]),
        (OPEN, [], []),
        (OPEN, ["http://b/write"], []),
        ({**OPEN, "semi_sync": ASYNC}, [], ["semi_sync_on"]),
        ({**OPEN, "semi_sync": SYNC}, [], []),
        ({"semi_sync": ASYNC}, [], ["open"]),
        ({**OFFLINE, "seeding": "begun"}, [], "ended while it seeded this node"),
        ({}, ["http://b/write"], "http://b/write says that it is writable"),
        ({"channel": channel()}, [], "replica of 192.0.2.4:3306"),
        ({"channel": channel(), **OPEN}, [], "replica of 192.0.2.4:3306"),
        ({"channels": ["archive"]}, [], "replica of archive"),
        ({"offline_mode": True}, [], "offline_mode=ON"),
    ],
)
def test_a_node_is_opened_only_where_it_is_the_only_one(evidence, peers, expected):
    def run():
        return decide(evidence, peers=peers, state="primary", source_host=None)

    if isinstance(expected, list):
        assert run() == expected
    else:
        with pytest.raises(Refusal, match=expected):
            run()


@pytest.mark.parametrize(
    ("state", "evidence", "actions"),
    [
        ("stopped", {}, []),
        ("stopped", {"channel": channel()}, ["stop"]),
        ("stopped", {"channel": channel(applier="OFF")}, ["stop"]),
        ("stopped", {"channel": channel(io="OFF", applier="OFF")}, []),
        ("absent", {}, []),
        ("absent", OPEN, []),
        ("absent", {"channel": channel()}, ["stop", "reset"]),
        ("absent", {"channel": channel(), **OPEN}, ["fence", "stop", "reset"]),
    ],
)
def test_a_channel_is_stopped_or_removed(state, evidence, actions):
    assert decide(evidence, state=state, source_host=None) == actions


def every_case():
    """All combinations of what matters for a copy over a node."""
    channels = [None, channel(), channel(io="OFF", applier="OFF"), channel(host="192.0.2.9"), channel(applier_errno=1)]
    sets = ["", "node:1", "other:1"]
    for place, errant, purged, databases, executed, opened in itertools.product(
        channels, sets, ["", "source:10"], [[], ["site"]], ["", "source:1-9"], [{}, OPEN]
    ):
        evidence = {"channel": place, "databases": databases, "gtid_executed": executed, **opened}
        yield evidence, {"errant": errant, "purged": purged}


def test_nothing_that_holds_data_is_ever_wiped_without_being_told_to():
    seeded = 0
    for evidence, source in every_case():
        try:
            actions = decide(evidence, source)
        except Refusal:
            continue
        if "clone" in actions:
            seeded += 1
            assert fresh(node(**evidence), {**SOURCE, **source})
    assert seeded > 10


def test_every_plan_ends_with_a_fenced_node():
    for (evidence, source), allow in itertools.product(every_case(), [False, True]):
        try:
            actions = decide(evidence, source, allow_destroy=allow)
        except Refusal:
            continue
        assert node(**evidence)["super_read_only"] or actions[0] == "fence"


def test_an_explanation_quotes_number_text_and_remedy():
    here = node(channel=channel(io="CONNECTING", io_errno=2003, io_error="Can't connect"))
    told = explain("unreachable", here, SOURCE, WANT)
    assert told.startswith("unreachable: source 192.0.2.4:3306: MySQL error 2003: Can't connect. The source must run")


@pytest.mark.parametrize(
    ("evidence", "source", "alone"),
    [
        ({"channel": channel(io="CONNECTING", io_errno=2003)}, DEAD, True),
        ({"channel": channel(io="OFF", applier="OFF")}, DEAD, True),
        ({"channel": channel(io="CONNECTING", io_errno=2003)}, {}, False),
        ({"channel": channel(io="CONNECTING", io_errno=2003)}, {"errno": 1045, "error": "Access denied"}, False),
        ({"channel": channel(host="192.0.2.9")}, DEAD, False),
        ({"channel": channel(password="old")}, DEAD, False),
        ({"channel": channel(applier_errno=1062)}, DEAD, False),
        ({"channel": channel(), "gtid_executed": ""}, DEAD, False),
        ({"channel": channel(), "seeding": "broken"}, DEAD, False),
        ({"channel": channel(), "channels": ["archive"]}, DEAD, False),
        ({}, DEAD, False),
    ],
)
def test_only_a_replica_that_is_as_it_should_be_is_left_alone_while_its_source_is_away(evidence, source, alone):
    assert left_alone(node(**evidence), {**SOURCE, **source}, WANT) is alone


@pytest.mark.parametrize(
    ("copy", "emptied", "databases", "offline", "donors", "seen"),
    [
        (None, False, ["site"], False, "", ""),
        (None, False, ["site"], True, "", ""),
        (None, False, ["site"], True, "192.0.2.4:3306", "begun"),
        (None, False, ["site"], False, "192.0.2.4:3306", ""),
        ("Completed", True, [], True, "192.0.2.4:3306", "begun"),
        ("In Progress", True, [], True, "192.0.2.4:3306", "running"),
        ("Failed", True, [], True, "192.0.2.4:3306", "broken"),
        ("Failed", True, [], False, "", "broken"),
        ("Failed", True, ["site"], False, "", ""),
        ("Failed", False, [], False, "", ""),
    ],
)
def test_a_seeding_that_was_ended_in_the_middle_is_seen(copy, emptied, databases, offline, donors, seen):
    assert seeding(copy, emptied, databases, offline, donors) == seen


@pytest.mark.parametrize(
    ("donor", "fault"),
    [
        ({}, None),
        (DEAD, "MySQL error 2003: Can't connect"),
        ({"errno": 0, "error": "the server is MariaDB"}, "the server is MariaDB"),
        ({"uuid": "node"}, "this node itself"),
        ({"clone": 0}, "clone plugin"),
        ({"executed": ""}, "replicated nothing yet"),
        ({"errant": "other:1"}, "the source lacks: other:1"),
        ({"purged": "source:1-5"}, "no longer keeps what it lacks: source:1-5"),
    ],
)
def test_only_a_donor_from_which_replication_can_go_on_spares_the_source(donor, fault):
    good = {"uuid": "donor", "clone": 1, "executed": "source:1-9", "errant": "", "purged": ""}
    found = donor_fault({**good, **donor}, node())
    assert found == fault if fault is None else fault in found


def test_semi_sync_tells_what_is_wanted_from_what_is():
    values = {
        "rpl_semi_sync_source_enabled": "ON",
        "rpl_semi_sync_source_timeout": "10000",
        "rpl_semi_sync_source_wait_no_replica": "OFF",
        "rpl_semi_sync_source_wait_point": "AFTER_SYNC",
        "rpl_semi_sync_source_status": "OFF",
        "rpl_semi_sync_source_clients": "2",
    }
    assert semi_sync(values) == {
        "source": True,
        "source_active": False,
        "source_replicas": 2,
        "timeout_ms": 10000,
        "wait_no_replica": False,
        "replica": False,
        "replica_active": False,
    }


def test_a_server_without_the_plugins_has_no_semi_sync():
    assert semi_sync({"clone_valid_donor_list": ""}) is None


@pytest.mark.parametrize(
    ("sides", "waits"),
    [
        (None, False),
        (ASYNC, False),
        (SYNC, False),
        ({**SYNC, "wait_no_replica": True}, True),
        ({**SYNC, "wait_no_replica": True, "source_replicas": 1}, False),
    ],
)
def test_commits_are_stalled_only_where_they_wait_for_a_replica_that_is_not_there(sides, waits):
    assert stalled(node(semi_sync=sides)) is waits


@pytest.mark.parametrize("wanted", ["replica", "primary", "stopped", "absent"])
def test_a_member_of_a_group_is_left_to_its_group(wanted):
    member = node(in_group=True, channels=["group_replication_applier"])
    with pytest.raises(Refusal, match="mysql_group manages it"):
        plan("member", member, SOURCE, {**WANT, "state": wanted}, [])


def test_the_primary_of_a_group_is_open_already_and_waits_for_no_replica():
    assert plan("primary", node(in_group=True, semi_sync=ASYNC, **OPEN), None, {**WANT, "state": "primary"}, []) == []
