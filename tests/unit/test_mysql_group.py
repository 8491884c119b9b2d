"""What makes a node a member of a group, and what is refused, from evidence alone."""

import importlib.util
from pathlib import Path

import pytest
import yaml
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_group import (
    PRIVILEGES,
    Passing,
    changeable,
    different,
    input_faults,
    name_state,
    plan,
    primary,
    quorum,
)
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import Refusal
from hypothesis import assume, given
from hypothesis import strategies as st

PATH = Path(__file__).parents[2] / "roles/mysql_group/files/usr/local/libexec/mysql_group.py"
SPEC = importlib.util.spec_from_file_location("mysql_group", PATH)
mysql_group = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mysql_group)

ONE, TWO, THREE = "192.0.2.1", "192.0.2.2", "192.0.2.3"
GROUP = "99999999-0000-4000-8000-000000000009"
UUIDS = {
    address: f"{number}0000000-0000-4000-8000-00000000000{number}"
    for number, address in enumerate((ONE, TWO, THREE), 1)
}
WANT = {
    "state": "member",
    "name": GROUP,
    "address": ONE,
    "members": [ONE, TWO, THREE],
    "password": "secret",
    "settings": {"member_expel_timeout": 0, "start_on_boot": False},
    "force": None,
    "allow_destroy": False,
}
SETTINGS = {"member_expel_timeout": "0", "start_on_boot": "OFF"}
HELD = f"{GROUP}:1-9"


def members(**states):
    """Rows of three members; the first is the primary."""
    given = {"one": "ONLINE", "two": "ONLINE", "three": "ONLINE", **states}
    addresses = dict(zip(("one", "two", "three"), UUIDS, strict=True))
    return [
        {
            "host": addresses[name],
            "port": 3306,
            "uuid": UUIDS[addresses[name]],
            "state": state,
            "role": "PRIMARY" if name == "one" else "SECONDARY",
        }
        for name, state in given.items()
        if state
    ]


def member(role="SECONDARY", state="ONLINE", quorum=True, **states):
    return {"name": GROUP, "state": state, "role": role, "quorum": quorum, "members": members(**states)}


def node(**changes):
    """A closed node that was a member, with its data."""
    return {
        **{
            "uuid": UUIDS[ONE],
            "server_id": 1,
            "gtid_executed": HELD,
            "databases": ["site"],
            "replicas": [],
            "seeding": "",
            "received": "",
        },
        **{
            "super_read_only": True,
            "read_only": True,
            "offline_mode": False,
            "channel": None,
            "channels": [],
            "semi_sync": None,
        },
        **{"plugin": True, "member": None, "settings": SETTINGS, "unfit": [], "account": True, "credentials": True},
        **changes,
    }


NEW = {"plugin": False, "settings": {}, "account": False, "credentials": False, "gtid_executed": "", "databases": []}
OPEN = {"super_read_only": False, "read_only": False}
ADDED = ["load", "account", "settings", "credentials"]


def peer(address, number=2, **changes):
    said = {
        "role": "fenced",
        "writable": False,
        "server_id": number,
        "server_uuid": UUIDS[address],
        "gtid_executed": HELD,
    }
    return {**said, "group": None, **changes}


def peers(**changes):
    return {TWO: peer(TWO, 2, **changes), THREE: peer(THREE, 3, **changes)}


WORKING = {"role": "replica", "group": {"name": GROUP, "state": "ONLINE", "role": "SECONDARY", "quorum": True}}


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, "outside"),
        (member(), "secondary"),
        (member(role="PRIMARY"), "primary"),
        (member(state="RECOVERING"), "joining"),
        (member(quorum=False), "no_quorum"),
        (member(role="PRIMARY", quorum=False), "no_quorum"),
        (member(state="ERROR", quorum=False), "expelled"),
    ],
)
def test_a_membership_has_a_name(found, state):
    assert name_state(node(member=found)) == state


@pytest.mark.parametrize(
    ("states", "reached"),
    [
        ({}, True),
        ({"three": "UNREACHABLE"}, True),
        ({"three": "RECOVERING", "two": "UNREACHABLE"}, True),
        ({"two": "UNREACHABLE", "three": "UNREACHABLE"}, False),
        ({"two": None, "three": "UNREACHABLE"}, False),
        ({"two": None, "three": None}, True),
        ({"one": "ERROR", "two": None, "three": None}, False),
        ({"one": "OFFLINE"}, False),
        ({"one": None}, False),
    ],
)
def test_a_majority_is_more_than_half_of_the_members(states, reached):
    assert quorum(UUIDS[ONE], members(**states)) is reached


def test_the_primary_is_known_by_its_address():
    assert primary(node(member=member())) == ONE
    assert primary(node()) is None


JOIN = ["await_group", "join"]
PLANS = {
    "a member is left as it is": (node(member=member()), peers(**WORKING), []),
    "a member that still joins is waited for": (node(member=member(state="RECOVERING")), peers(**WORKING), ["wait"]),
    "the account is made on the primary": (
        node(member=member(role="PRIMARY"), account=False),
        peers(**WORKING),
        ["account"],
    ),
    "and comes to a secondary from there": (node(member=member(), account=False), peers(**WORKING), []),
    "settings and password of a member change while it runs": (
        node(member=member(), settings={**SETTINGS, "member_expel_timeout": "5"}, credentials=False),
        peers(**WORKING),
        ["settings", "credentials"],
    ),
    "new nodes begin with the first in the list": (node(**NEW), peers(gtid_executed=""), [*ADDED, "bootstrap"]),
    "a node that was away joins": (node(), peers(**WORKING), JOIN),
    "an expelled one leaves first, and goes online": (
        node(member=member(state="ERROR", quorum=False), offline_mode=True),
        peers(**WORKING),
        ["leave", *JOIN, "online"],
    ),
    "a new one is copied from a member": (node(**NEW), peers(**WORKING), ["await_group", *ADDED, "clone", "join"]),
    "a new one with transactions of its own, but no data, loses them": (
        node(**{**NEW, "gtid_executed": f"{UUIDS[ONE]}:1-2"}),
        peers(**WORKING),
        ["await_group", "load", "account", "reset", "settings", "credentials", "clone", "join"],
    ),
    "one that was emptied forgets what it has received": (
        node(**{**NEW, "received": HELD}),
        peers(**WORKING),
        ["await_group", "load", "account", "reset", "settings", "credentials", "clone", "join"],
    ),
    "and does not begin the group": (
        node(),
        {
            **peers(),
            TWO: peer(TWO, gtid_executed="", group={"state": "OFFLINE", "quorum": False, "received": f"{GROUP}:1-99"}),
        },
        ["bootstrap"],
    ),
    "after all were down the first of equals begins": (node(), peers(), ["bootstrap"]),
    "also where it has not applied all of it": (
        node(),
        {**peers(), TWO: peer(TWO, group={"state": "OFFLINE", "quorum": False, "received": f"{GROUP}:1-10"})},
        JOIN,
    ),
    "or the one that holds most": (node(), {**peers(), TWO: peer(TWO, gtid_executed=f"{GROUP}:1-10")}, JOIN),
    "a primary begins, though it goes on writing": (
        node(**OPEN, plugin=False, settings={}, semi_sync={"source": True}),
        peers(role="replica", gtid_executed=f"{HELD},{UUIDS[ONE]}:1"),
        ["load", "settings", "semi_sync_off", "bootstrap"],
    ),
    "its replica follows once it has caught up": (
        node(channel={"host": TWO}, plugin=False, settings={}),
        {**peers(), TWO: peer(TWO, role="primary", writable=True)},
        ["await_group", "catch_up", "detach", "load", "settings", "join"],
    ),
}


@pytest.mark.parametrize(("found", "others", "actions"), PLANS.values(), ids=PLANS)
def test_the_actions_follow_from_what_is_found(found, others, actions):
    assert plan(found, others, WANT) == actions


REFUSED = {
    "without a majority": (
        node(member=member(quorum=False, two="UNREACHABLE", three="UNREACHABLE")),
        peers(),
        f"Start {TWO}, {THREE}",
    ),
    "in another group": (node(member={**member(), "name": "other"}), peers(), "a member of the group other"),
    "others in another group": (
        node(),
        peers(group={"name": "other", "quorum": True}),
        f"{TWO} is a member of the group other",
    ),
    "a member that does not answer": (node(), {**peers(), THREE: {}}, f"{THREE} cannot be asked"),
    "a member whose mysqld is down": (node(), {**peers(), THREE: {"role": "down"}}, f"{THREE} cannot be asked"),
    "others that have lost the majority": (
        node(),
        peers(group={"state": "ONLINE", "quorum": False}),
        f"{TWO}, {THREE} is in the group without",
    ),
    "two that are open": (node(**OPEN), peers(writable=True), f"{ONE}, {TWO}, {THREE} are writable"),
    "two that went their own ways": (
        node(gtid_executed=f"{GROUP}:1-8,{UUIDS[ONE]}:1"),
        peers(),
        f"holds 1 transactions that {ONE} lacks",
    ),
    "the same server id": (node(server_id=3), peers(), f"{THREE} has the same server id, 3"),
    "a copied disk": (node(uuid=UUIDS[TWO]), peers(), f"{TWO} has the same server_uuid"),
    "tables without a key": (node(unfit=["site.log", "site.note"]), peers(), "site.log, site.note"),
    "channels of its own": (node(channels=["archive"]), peers(), "archive"),
    "a replica of somebody else": (node(channel={"host": "192.0.2.9"}), peers(), "a replica of 192.0.2.9"),
    "taken out of service": (node(offline_mode=True), peers(**WORKING), "taken out of service"),
    "transactions that the group lacks": (
        node(gtid_executed=f"{HELD},{UUIDS[ONE]}:1"),
        peers(**WORKING),
        f"{UUIDS[ONE]}:1",
    ),
    "data without transactions, to begin with": (node(gtid_executed=""), peers(gtid_executed=""), "Write to it once"),
    "data without transactions, to join with": (node(gtid_executed=""), peers(**WORKING), "data of its own"),
}


@pytest.mark.parametrize(("found", "others", "message"), REFUSED.values(), ids=REFUSED)
def test_what_could_lose_data_or_make_a_second_group_is_refused(found, others, message):
    with pytest.raises(Refusal) as refusal:
        plan(found, others, WANT)
    assert message in str(refusal.value)


def test_only_what_passes_is_asked_for_again():
    passing = {name for name, (found, others, _message) in REFUSED.items() if _passes(found, others)}
    assert passing == {
        "without a majority",
        "a member that does not answer",
        "a member whose mysqld is down",
        "others that have lost the majority",
        "transactions that the group lacks",
        "data without transactions, to join with",
    }


def _passes(found, others):
    with pytest.raises(Refusal) as refusal:
        plan(found, others, WANT)
    return isinstance(refusal.value, Passing)


def test_a_member_that_is_lost_for_ever_holds_up_the_others_until_that_is_said():
    lost = {TWO: peer(TWO), THREE: {}}
    with pytest.raises(Refusal, match="mysql_group_force"):
        plan(node(), lost, WANT)
    assert plan(node(), lost, {**WANT, "force": ONE}) == ["bootstrap"]
    assert plan(node(), lost, {**WANT, "force": TWO}) == JOIN


def test_force_begins_no_group_while_one_works_and_drops_nothing_that_can_be_asked():
    force = {**WANT, "force": ONE}
    assert plan(node(), {**peers(**WORKING), THREE: {}}, force) == JOIN
    more = {TWO: peer(TWO, gtid_executed=f"{GROUP}:1-10"), THREE: {}}
    with pytest.raises(Refusal, match=f"{TWO} holds 1 transactions"):
        plan(node(), more, force)
    with pytest.raises(Refusal, match=f"{THREE} cannot be asked"):
        plan(node(), more, {**WANT, "force": THREE})
    # Nobody is lost: the largest set begins, whatever is said.
    assert plan(node(), {**peers(), TWO: peer(TWO, gtid_executed=f"{GROUP}:1-10")}, force) == JOIN


def test_a_node_is_wiped_only_where_that_is_allowed():
    own = node(gtid_executed=f"{HELD},{UUIDS[ONE]}:1")
    assert plan(own, peers(**WORKING), {**WANT, "allow_destroy": True}) == ["await_group", "reset", "clone", "join"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"members": [ONE, TWO]}, "not 2"),
        ({"members": [ONE, TWO, THREE, "192.0.2.4"]}, "not 4"),
        ({"members": [ONE]}, "not 1"),
        ({"members": [f"192.0.2.{number}" for number in range(1, 12)]}, "not 11"),
        ({"members": [ONE, TWO, TWO]}, f"{TWO} stands twice"),
        ({"address": "192.0.2.9"}, "address: 192.0.2.9 is not among"),
        ({"force": "192.0.2.9"}, "force: 192.0.2.9 is not among"),
        ({"password": ""}, "1 to 32 bytes"),
        ({"password": "ü" * 17}, "1 to 32 bytes"),
        ({"password": "x" * 32}, None),
    ],
)
def test_input_that_cannot_work_is_named(changes, message):
    found = " ".join(input_faults({**WANT, **changes}))
    assert message in found if message else not found


def test_settings_are_compared_as_mysql_shows_them():
    want = {
        "settings": {
            "start_on_boot": False,
            "member_expel_timeout": 0,
            "ssl_mode": "VERIFY_IDENTITY",
            "group_name": "b",
        }
    }
    have = {"start_on_boot": "ON", "member_expel_timeout": "0", "ssl_mode": "verify_identity", "group_name": "a"}
    found = {"settings": have, "member": None}
    assert different(found, want) == ["start_on_boot", "group_name"]
    assert changeable(found, want) == ["start_on_boot", "group_name"]
    assert changeable({**found, "member": member()}, want) == ["start_on_boot"], "a member cannot change its group"


def test_a_node_that_is_half_open_is_open_as_its_state_service_says():
    half = node(super_read_only=False, uuid=UUIDS[TWO], server_id=9)
    assert plan(half, {ONE: peer(ONE), THREE: peer(THREE, 3)}, {**WANT, "address": TWO}) == ["bootstrap"]


LOGS = st.lists(st.integers(0, 12), min_size=3, max_size=3)


def together(lengths, dead=(), force=None, writable=None):
    """What each of three nodes that hold so many transactions of the group decides; None where it refuses."""
    decisions = {}
    for address in UUIDS:
        found, others = {}, {}
        for other, length in zip(UUIDS, lengths, strict=True):
            gtids = f"{GROUP}:1-{length}" if length else ""
            closed = other != writable
            if other == address:
                found = node(
                    uuid=UUIDS[other],
                    gtid_executed=gtids,
                    databases=[],
                    server_id=None,
                    super_read_only=closed,
                    read_only=closed,
                )
            else:
                others[other] = {} if other in dead else peer(other, other, gtid_executed=gtids, writable=not closed)
        try:
            decisions[address] = plan(found, others, {**WANT, "address": address, "force": force})
        except Refusal:
            decisions[address] = None
    return {address: decision for address, decision in decisions.items() if address not in dead}


@given(LOGS)
def test_exactly_one_begins_the_group_and_it_holds_most(lengths):
    decisions = together(lengths)
    beginners = [address for address, actions in decisions.items() if "bootstrap" in actions]
    assert len(beginners) == 1
    held = dict(zip(UUIDS, lengths, strict=True))
    assert held[beginners[0]] == max(lengths)
    assert all(actions[-1] == "join" for address, actions in decisions.items() if address not in beginners)


@given(LOGS, st.sets(st.sampled_from(sorted(UUIDS)), min_size=1, max_size=2), st.sampled_from([None, *UUIDS]))
def test_of_those_that_answer_at_most_one_begins_and_only_when_told(lengths, dead, force):
    decisions = together(lengths, dead, force)
    beginners = [address for address, actions in decisions.items() if actions and "bootstrap" in actions]
    assert beginners in ([], [force])
    if force is None or force in dead:
        assert set(decisions.values() if not beginners else [1]) == {None}
    held = dict(zip(UUIDS, lengths, strict=True))
    assert all(held[address] >= held[other] for address in beginners for other in decisions)


@given(LOGS, st.sampled_from(sorted(UUIDS)))
def test_a_writable_node_that_lacks_something_begins_nothing(lengths, writable):
    held = dict(zip(UUIDS, lengths, strict=True))
    assume(held[writable] < max(lengths))
    assert set(together(lengths, writable=writable).values()) == {None}


# roles/mysql_group/files/usr/local/libexec/mysql_group.py: what a member does after mysqld has started.
URL, OTHER = f"http://{TWO}:9201/", f"http://{THREE}:9201/"
OUT = {"role": "fenced", "sources": [], "group": {"state": "OFFLINE", "quorum": False}}
IN = {"role": "primary", "group": {"state": "ONLINE", "quorum": True}}
ALONE = {"role": "fenced", "group": {"state": "ONLINE", "quorum": False}}
DOWN = {"role": "down"}


@pytest.mark.parametrize(
    ("mine", "others", "verdict"),
    [
        pytest.param(OUT, [IN, DOWN], "join", id="a majority works"),
        pytest.param(OUT, [OUT, IN], "join", id="another one is out, too"),
        pytest.param(OUT, [ALONE, {}], "wait", id="no majority, and one is silent"),
        pytest.param(OUT, [DOWN, OUT], "wait", id="one has not started yet"),
        pytest.param(OUT, [OUT, OUT], "stay", id="nobody is in the group"),
        pytest.param({}, [IN, IN], "wait", id="this one does not answer yet"),
        pytest.param({"role": "down"}, [IN, IN], "wait", id="its mysqld does not"),
        pytest.param({**OUT, "group": None}, [IN, IN], "stay", id="no group here"),
        pytest.param({**OUT, "sources": [{"source": ONE}]}, [IN, IN], "stay", id="still a replica"),
        pytest.param({**OUT, "group": {"state": "RECOVERING"}}, [IN, IN], "wait", id="joining"),
        pytest.param({**OUT, "group": {"state": "ONLINE"}}, [IN, IN], "stay", id="in the group"),
        pytest.param({**OUT, "group": {"state": "ERROR"}}, [IN, IN], "stay", id="refused by the group"),
    ],
)
def test_after_a_start_a_node_joins_where_a_majority_works_and_begins_nothing(mine, others, verdict):
    peers = dict(zip((URL, OTHER), others, strict=True))
    assert mysql_group.judge(mine, peers)[0] == verdict


def test_a_rotation_leaves_the_members_account_its_privileges():
    play = yaml.safe_load((Path(__file__).parents[2] / "playbooks/rotate_secrets.yml").read_text())[0]
    assert play["vars"]["member"]["privileges"] == {"*.*": [*PRIVILEGES]}
