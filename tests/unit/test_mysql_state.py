"""What the state service of a MySQL node says, and when a restarted primary opens itself again."""

import importlib.util
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "roles/mysql_server/files/usr/local/libexec/mysql_state.py"
SPEC = importlib.util.spec_from_file_location("mysql_state", PATH)
mysql_state = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mysql_state)

NOW = 1_000_000.0
NODE = {
    "super_read_only": 0,
    "offline_mode": 0,
    "address": "192.0.2.14",
    "server_id": 1,
    "server_uuid": "one",
    "version": "8.4.0",
    "gtid_executed": "one:1-7",
    "clock": NOW,
    "opened": NOW - 60,
}
CHANNEL = {
    "channel": "",
    "source": "192.0.2.14",
    "port": 3306,
    "source_uuid": "one",
    "receiver": "ON",
    "receiver_error": 0,
    "applier": "ON",
    "applier_error": 0,
    "heartbeat_interval": 2,
    "heard": NOW - 1,
    "queued": 0,
    "newest": 0,
    "queueing": 0,
    "processing": None,
    "applying": None,
    "behind": 0,
}


def state(channels=(), members=(), **node):
    channels = [{**CHANNEL, **channel} for channel in channels]
    return mysql_state.describe({**NODE, **node}, channels, members=list(members))


@pytest.mark.parametrize(
    ("channel", "seconds"),
    [
        pytest.param({}, 0.0, id="idle and connected"),
        pytest.param({"heard": NOW - 5.9}, 0.0, id="a heartbeat or two are late"),
        pytest.param({"heard": NOW - 60}, 60.0, id="connected to a source that fell silent"),
        pytest.param({"heard": 0, "queued": NOW - 3}, 0.0, id="a transaction is as good as a heartbeat"),
        pytest.param({"heard": NOW - 60, "queued": NOW - 3}, 0.0, id="the latest sign of life counts"),
        pytest.param({"receiver": "CONNECTING", "heard": NOW - 4}, 4.0, id="disconnected since the last heartbeat"),
        pytest.param({"receiver": "OFF", "heard": NOW - 400}, 400.0, id="receiver stopped"),
        pytest.param({"receiver": "CONNECTING", "heard": 0}, None, id="never connected"),
        pytest.param({"heard": 0}, None, id="connected, nothing heard yet"),
        pytest.param({"applier": "OFF"}, None, id="applier stopped"),
        pytest.param({"applier": "OFF", "behind": 1, "newest": NOW}, None, id="applier stopped with work to do"),
        pytest.param({"behind": 1, "applying": NOW - 7}, 7.0, id="applying"),
        pytest.param({"behind": 1, "applying": NOW - 7, "processing": NOW - 9}, 9.0, id="the oldest in work counts"),
        pytest.param({"queueing": NOW - 30, "heard": NOW - 60}, 30.0, id="a long transaction is no silence"),
        pytest.param({"behind": 1, "newest": NOW - 2}, 2.0, id="received, not begun"),
        pytest.param(
            {"receiver": "CONNECTING", "heard": NOW - 9, "applying": NOW - 3}, 9.0, id="disconnected, working"
        ),
        pytest.param({"behind": 1, "applying": NOW + 5}, 0.0, id="the source's clock is ahead, which nobody knows"),
        pytest.param({"heard": NOW + 3600, "queued": NOW - 1}, 0.0, id="this clock was set back"),
        pytest.param(
            {"heard": NOW + 3600, "queued": NOW - 60}, 60.0, id="this clock was set back, then the source fell silent"
        ),
        pytest.param({"heard": NOW + 3600}, None, id="nothing was heard since this clock was set back"),
    ],
)
def test_lag(channel, seconds):
    assert mysql_state.lag({**CHANNEL, **channel}, NOW) == seconds


@pytest.mark.parametrize("ahead", [-3600, 0, 3600])
@pytest.mark.parametrize(
    ("since", "seconds"),
    [(0.5, 0.5), (7, 7.0), (-0.5, 0.0), (-3600, None)],
    ids=["new", "old", "read late", "set back"],
)
def test_transactions_are_as_old_as_the_clock_of_their_source_has_it(ahead, since, seconds):
    source_now = NOW + ahead
    channel = {**CHANNEL, "behind": 1, "applying": source_now - since}
    assert mysql_state.lag(channel, NOW, source_now) == seconds
    assert mysql_state.describe(NODE, [channel], clocks={"192.0.2.14": source_now, "192.0.2.15": 0})["lag"] == seconds


@pytest.mark.parametrize(
    ("channels", "node", "role", "writable"),
    [
        ([], {}, "primary", True),
        ([], {"super_read_only": 1}, "fenced", False),
        ([], {"offline_mode": 1}, "offline", False),
        ([{}], {"super_read_only": 1}, "replica", False),
        ([{}], {"super_read_only": 0}, "replica", False),
    ],
)
def test_a_node_is_writable_only_when_it_is_open_and_nobodys_replica(channels, node, role, writable):
    seen = state(channels, **node)
    assert (seen["role"], seen["writable"]) == (role, writable)


APPLIER = {"channel": "group_replication_applier", "source": "", "heartbeat_interval": None, "heard": 0}


def member(uuid, role="SECONDARY", state="ONLINE"):
    return {
        "uuid": uuid,
        "host": f"of {uuid}",
        "port": 3306,
        "state": state,
        "role": role,
        "name": "the group",
        "received": "a:1,\nb:2",
    }


PRIMARY, SECONDARY = member("one", "PRIMARY"), member("one")
TWO, THREE = member("two"), member("three")
GONE = [member(name, state="UNREACHABLE") for name in ("two", "three")]


@pytest.mark.parametrize(
    ("members", "node", "role", "lag"),
    [
        pytest.param([PRIMARY, TWO, THREE], {}, "primary", 0.0, id="the primary"),
        pytest.param([PRIMARY, TWO, GONE[1]], {}, "primary", 0.0, id="the primary, and one is lost"),
        pytest.param([PRIMARY, *GONE], {}, "fenced", None, id="the primary without a majority"),
        pytest.param([PRIMARY, TWO, THREE], {"super_read_only": 1}, "fenced", None, id="a primary that opens only yet"),
        pytest.param([PRIMARY, TWO, THREE], {"offline_mode": 1}, "offline", None, id="the primary, taken out"),
        pytest.param([PRIMARY], {}, "primary", 0.0, id="the only one left"),
        pytest.param([SECONDARY, TWO, THREE], {"super_read_only": 1}, "replica", 4.0, id="a secondary"),
        pytest.param([SECONDARY, TWO, THREE], {"super_read_only": 0}, "replica", 4.0, id="a secondary that is open"),
        pytest.param([SECONDARY, *GONE], {"super_read_only": 1}, "fenced", None, id="a secondary without a majority"),
        pytest.param([member("one", state="RECOVERING"), TWO, THREE], {}, "fenced", None, id="one that joins"),
        pytest.param([member("one", "", "ERROR")], {"super_read_only": 1}, "fenced", None, id="one that was expelled"),
        pytest.param([member("", "", "OFFLINE")], {"super_read_only": 1}, "fenced", None, id="one that has not joined"),
        pytest.param([member("", "", "OFFLINE")], {}, "primary", 0.0, id="a pair's primary, to be converted"),
    ],
)
def test_of_a_group_the_primary_is_written_to_and_the_secondaries_are_its_replicas(members, node, role, lag):
    seen = state([{**APPLIER, "applying": NOW - 4}], members, **node)
    assert (seen["role"], seen["writable"], seen["lag"]) == (role, role == "primary", lag)
    assert seen["sources"] == []
    assert seen["group"]["received"] == "a:1,b:2"


def test_a_secondary_with_nothing_to_do_is_fresh_however_long_nobody_wrote():
    assert state([APPLIER], [SECONDARY, TWO, THREE], super_read_only=1)["lag"] == 0.0
    assert state([{**APPLIER, "applier": "OFF"}], [SECONDARY, TWO, THREE], super_read_only=1)["lag"] is None


def test_a_replica_whose_conversion_has_only_begun_still_is_one():
    seen = state([{}, {**APPLIER, "applier": "OFF"}], [member("", "", "OFFLINE")], super_read_only=1)
    assert (seen["role"], seen["lag"]) == ("replica", 0.0)


def test_a_member_of_a_group_never_opens_itself():
    for members in ([member("", "", "OFFLINE")], [SECONDARY, TWO, THREE], [PRIMARY, *GONE]):
        verdict, why = mysql_state.judge(state([], members, super_read_only=1), {})
        assert (verdict, "elects its primary" in why) == ("stay", True)


@pytest.mark.parametrize(
    ("seen", "max_lag", "serves"),
    [
        (state(), 0, True),
        (state([{}]), 0, True),
        (state([{"applying": NOW - 7}]), 10, True),
        (state([{"applying": NOW - 7}]), 5, False),
        (state([{}, {"applying": NOW - 7}]), 5, False),
        (state([{}, {"applier": "OFF"}]), 1e9, False),
        (state(super_read_only=1), 1e9, False),
        (state([{}], offline_mode=1), 1e9, False),
        (mysql_state.DOWN, 1e9, False),
        (state([{"applying": NOW - 7}]), float("nan"), False),
    ],
)
def test_reads_are_served_by_nodes_that_are_known_to_be_fresh_enough(seen, max_lag, serves):
    assert mysql_state.may_read(seen, max_lag) is serves


FENCED = state(super_read_only=1)
FOLLOWS = {**state([{}], super_read_only=1, address="192.0.2.13", server_uuid="two"), "ahead": False}


@pytest.mark.parametrize(
    ("peers", "verdict"),
    [
        pytest.param([], "open", id="no peers"),
        pytest.param([FOLLOWS, FOLLOWS], "open", id="all follow"),
        pytest.param([FOLLOWS, {**mysql_state.DOWN, "ahead": False}], "wait", id="one does not answer"),
        pytest.param([{**FOLLOWS, "role": "offline"}], "wait", id="one is offline"),
        pytest.param([{**FOLLOWS, "sources": [{**CHANNEL, "receiver": "OFF"}]}], "wait", id="a failover has begun"),
        pytest.param([{**FOLLOWS, "sources": [{**CHANNEL, "receiver": "CONNECTING"}]}], "open", id="one reconnects"),
        pytest.param([FOLLOWS, {**state(), "ahead": False}], "stay", id="one was promoted"),
        pytest.param([{**mysql_state.DOWN, "ahead": False}, {**state(), "ahead": False}], "stay", id="no waits for no"),
        pytest.param([{**FENCED, "ahead": False}], "stay", id="one was promoted and restarted"),
        pytest.param([{**FOLLOWS, "ahead": True}], "stay", id="one knows more"),
        pytest.param(
            [{**FOLLOWS, "sources": [{**CHANNEL, "source": "192.0.2.15", "source_uuid": "three"}]}],
            "stay",
            id="one follows another",
        ),
        pytest.param(
            [{**FOLLOWS, "sources": [{**CHANNEL, "source_uuid": ""}]}], "open", id="known by address before it connects"
        ),
        pytest.param(
            [{**FOLLOWS, "sources": [{**CHANNEL, "source": "db.example.com"}]}], "open", id="known by its identity"
        ),
    ],
)
def test_a_restarted_primary_opens_only_while_everybody_follows_it(peers, verdict):
    named = {f"http://192.0.2.{number}:9201/": peer for number, peer in enumerate(peers)}
    assert mysql_state.judge(FENCED, named)[0] == verdict


@pytest.mark.parametrize(
    "here",
    [state([{}], super_read_only=1), state(), state(super_read_only=1, gtid_executed="")],
    ids=["a replica", "an open node", "a new node"],
)
def test_some_nodes_never_open_themselves(here):
    assert mysql_state.judge(here, {})[0] == "stay"


def opened(at, server_id=1, channels=(), members=(), **node):
    """A node that was opened at a time."""
    return state(channels, members, opened=at, server_id=server_id, **node)


@pytest.mark.parametrize(
    ("mine", "peer", "yields"),
    [
        pytest.param(opened(1), opened(2, 2), True, id="the successor"),
        pytest.param(opened(2), opened(1, 2), False, id="the predecessor"),
        pytest.param(opened(1, 1), opened(1, 2), False, id="at the same time, the smaller id stays"),
        pytest.param(opened(1, 2), opened(1, 1), True, id="at the same time, the greater id goes"),
        pytest.param(opened(None), opened(1, 2), True, id="open since its start"),
        pytest.param(opened(1), opened(2, 2, gtid_executed="two:1-9"), False, id="a stranger"),
        pytest.param(opened(1), opened(2, 2, gtid_executed="two:1-9,\none:1-4"), True, id="it has lacked some"),
        pytest.param(opened(1), opened(2, 2, super_read_only=1), False, id="a closed peer"),
        pytest.param(opened(1), opened(2, 2, offline_mode=1), False, id="a peer that is being seeded"),
        pytest.param(opened(1), opened(2, 2, [{}]), False, id="a replica that somebody has opened"),
        pytest.param(opened(1), mysql_state.DOWN, False, id="a peer that is down"),
        pytest.param(opened(1, super_read_only=1), opened(2, 2), False, id="closed already"),
        pytest.param(opened(1, 1, [{}]), opened(2, 2), False, id="a replica"),
        pytest.param(mysql_state.DOWN, opened(2, 2), False, id="down"),
        pytest.param(opened(1, 1, (), [PRIMARY, TWO, THREE]), opened(2, 2), False, id="a group knows by itself"),
        pytest.param(opened(1, 1, (), [member("", "", "OFFLINE")]), opened(2, 2), True, id="not in its group yet"),
    ],
)
def test_of_two_open_nodes_the_one_that_was_opened_last_is_the_primary(mine, peer, yields):
    assert mysql_state.rival(mine, {"http://192.0.2.13:9201/": peer}) == ("http://192.0.2.13:9201/" if yields else None)


@pytest.mark.parametrize(
    ("mine", "peer", "yields"),
    [
        pytest.param(1, 2, True, id="the successor, whose clock is slow"),
        pytest.param(2, 1, False, id="the predecessor, whose clock is fast"),
        pytest.param(0, 1, True, id="open since before there were terms"),
        pytest.param(2, 2, None, id="two in one term: by the clock"),
        pytest.param(2, None, None, id="the peer has a previous version: by the clock"),
        pytest.param(None, 2, None, id="this node has a previous version: by the clock"),
    ],
)
def test_the_higher_term_is_the_primary_whatever_the_clocks_say(mine, peer, yields):
    terms = [{} if term is None else {"term": term} for term in (mine, peer)]
    for here, there in ((1, 2), (2, 1)):
        one, two = {**opened(here), **terms[0]}, {**opened(there, 2), **terms[1]}
        expected = here < there if yields is None else yields
        assert bool(mysql_state.rival(one, {"peer": two})) is expected
        assert bool(mysql_state.rival(two, {"peer": one})) is not expected


CLOSED = state(super_read_only=1)


@pytest.mark.parametrize(
    ("before", "here", "known", "after"),
    [
        pytest.param(None, CLOSED, 4, (4, None), id="a new node has what the others have"),
        pytest.param(None, opened(7), 4, (0, 7), id="open since before this service had terms"),
        pytest.param((4, None), opened(7), 3, (5, 7), id="opened"),
        pytest.param((4, None), opened(7), 6, (7, 7), id="opened after others, of which it has not heard"),
        pytest.param((5, 7), opened(7), 9, (5, 7), id="still the same opening, whatever others have"),
        pytest.param((5, 7), CLOSED, 4, (5, 7), id="closed"),
        pytest.param((5, 7), mysql_state.DOWN, 4, (5, 7), id="down"),
        pytest.param((5, 7), state([{}], super_read_only=1), 6, (6, 7), id="a replica now, of its successor"),
        pytest.param((5, 7), opened(6), 5, (6, 6), id="opened again, by a clock that was set back"),
        pytest.param((5, 7), opened(None), 5, (5, 7), id="open since its start: nobody has opened it"),
        pytest.param((5, None), opened(7, 1, [{}]), 5, (5, None), id="a replica that somebody has opened"),
    ],
)
def test_a_term_begins_with_each_opening(before, here, known, after):
    before, after = (pair and {"term": pair[0], "opened": pair[1]} for pair in (before, after))
    assert mysql_state.count(before, here, known) == after


def test_an_open_node_is_closed_only_once_nobody_can_be_told_that_a_commit_succeeded():
    statements = mysql_state.closing({**sides(), "offline_mode": False})
    gone, closed, back, waits = (
        next(number for number, statement in enumerate(statements) if part in statement)
        for part in ("offline_mode = ON", "super_read_only = ON", "offline_mode = OFF", "source_enabled = OFF")
    )
    assert gone < closed < back
    assert gone < waits
    assert "SET GLOBAL offline_mode = OFF" not in mysql_state.closing({**sides(), "offline_mode": True})


@pytest.fixture
def peer():
    """A state service that says what it is given, and falls silent when it is stopped."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(server.state).encode())

        def log_message(self, *_args):
            pass

    server.RequestHandlerClass = Handler
    server.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def listed(tmp_path):
    return tmp_path / "peers"


def test_a_successor_that_falls_silent_still_is_the_successor_until_it_is_no_peer(peer, listed, monkeypatch):
    monkeypatch.setattr(mysql_state, "PEER_CACHE", 0)
    listed.write_text("")
    peers = mysql_state.Peers(listed)
    peer.state = opened(3, 2)
    assert peers.rival(opened(2)) is None
    listed.write_text(f"{peer.url}\n")
    peer.state = opened(1, 2)
    assert peers.rival(opened(2)) is None
    peer.state = opened(3, 2)
    assert peers.rival(opened(2)) == peer.url
    peer.shutdown()
    peer.server_close()
    assert peers.rival(opened(2)) == peer.url
    assert peers.rival(opened(4)) is None
    listed.write_text("")
    assert peers.rival(opened(2)) is None


def test_an_opening_has_the_term_after_all_that_anybody_knows_of_also_after_a_restart_of_the_service(
    peer, listed, tmp_path
):
    listed.write_text(peer.url)
    peer.state = {**state([{}], super_read_only=1), "term": 6}

    def term():
        return mysql_state.Term(tmp_path / "term", mysql_state.Peers(listed))

    first = term()
    assert first.of(mysql_state.DOWN) == 0
    assert first.of(CLOSED) == 0
    first.heard = 3
    assert [first.of(CLOSED), first.of(opened(1)), first.of(opened(1))] == [3, 7, 7]
    assert [term().of(opened(1)), term().of(CLOSED), term().of(opened(2))] == [7, 7, 8]
    (tmp_path / "term").write_text("")
    assert [term().of(CLOSED), term().of(opened(3))] == [0, 7]


def test_a_term_that_cannot_be_kept_is_said_and_counts(listed, tmp_path, capsys):
    listed.write_text("")
    term = mysql_state.Term(tmp_path / "missing" / "term", mysql_state.Peers(listed))
    assert [term.of(CLOSED), term.of(opened(1)), term.of(opened(1))] == [0, 1, 1]
    assert "the term is not kept" in capsys.readouterr().err


def test_a_peer_that_never_answers_hinders_nobody(listed):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listed.write_text(f"http://127.0.0.1:{silent.getsockname()[1]}/\n")
        peers = mysql_state.Peers(listed)
        begun = time.monotonic()
        assert [peers.rival(opened(1)) for _ in range(5)] == [None] * 5
        assert time.monotonic() - begun < 2 * mysql_state.PEER_ANSWERS_WITHIN


SOURCE_SIDE = {
    "rpl_semi_sync_source_enabled": "ON",
    "rpl_semi_sync_source_timeout": "10000",
    "rpl_semi_sync_source_wait_no_replica": "OFF",
    "rpl_semi_sync_source_status": "ON",
    "rpl_semi_sync_source_clients": "1",
    "rpl_semi_sync_source_wait_sessions": "3",
    "rpl_semi_sync_source_no_tx": "17",
}


def sides(channels=(), values=None, **node):
    return mysql_state.describe(
        {**NODE, **node}, [{**CHANNEL, **channel} for channel in channels], {**SOURCE_SIDE, **(values or {})}
    )


def test_semi_sync_tells_what_is_wanted_from_what_is():
    assert sides(values={"rpl_semi_sync_source_status": "OFF"})["semi_sync"] == {
        "source": True,
        "source_active": False,
        "source_replicas": 1,
        "timeout_ms": 10000,
        "wait_no_replica": False,
        "replica": False,
        "replica_active": False,
        "waiting": 3,
        "unacknowledged": 17,
    }
    assert state()["semi_sync"] is None


def test_a_node_is_opened_only_once_its_commits_wait():
    statements = mysql_state.opening(sides(super_read_only=1), stalls=True)
    waits = [number for number, statement in enumerate(statements) if "rpl_semi_sync" in statement]
    opens = [number for number, statement in enumerate(statements) if "read_only" in statement]
    assert len(waits) == len(opens) == 2
    assert max(waits) < min(opens)
    assert not [statement for statement in mysql_state.opening(sides(), stalls=False) if "wait_no_replica" in statement]
    assert not [statement for statement in mysql_state.opening(state(), stalls=True) if "semi_sync" in statement]


ALONE = {"rpl_semi_sync_source_clients": "0"}
STALLS = {"rpl_semi_sync_source_wait_no_replica": "ON"}


@pytest.mark.parametrize(
    ("seen", "setting"),
    [
        pytest.param(sides(values=ALONE), None, id="a new primary works without a replica"),
        pytest.param(sides(), "ON", id="its first replica is attached"),
        pytest.param(sides(values=STALLS), None, id="armed"),
        pytest.param(sides(values={**STALLS, **ALONE}), None, id="armed, the replica is gone: it stays armed"),
        pytest.param(sides(values={"rpl_semi_sync_source_enabled": "OFF"}), None, id="turned off by somebody"),
        pytest.param(sides(super_read_only=1), None, id="fenced"),
        pytest.param(sides([{}], values=STALLS), "OFF", id="a replica now"),
        pytest.param(sides([{}]), None, id="a replica"),
        pytest.param(state(), None, id="without the plugins"),
        pytest.param(mysql_state.DOWN, None, id="down"),
    ],
)
def test_commits_begin_to_stall_with_the_first_replica_and_never_before(seen, setting):
    assert mysql_state.arming(seen) == setting


def test_what_the_source_said_last_is_kept_when_it_falls_silent():
    seen = mysql_state.remember(None, "192.0.2.14", sides(), NOW)
    assert seen == {
        "source": "192.0.2.14",
        "at": NOW,
        "writable": True,
        "semi_sync_active": True,
        "waiting": 3,
        "gtid_executed": "one:1-7",
    }
    assert mysql_state.remember(seen, "192.0.2.14", mysql_state.DOWN, NOW + 60) == seen
    assert mysql_state.remember(seen, "192.0.2.14", sides(gtid_executed="one:1-8"), NOW + 1)["at"] == NOW + 1
    assert mysql_state.remember(seen, "192.0.2.15", mysql_state.DOWN, NOW + 60) is None


@pytest.mark.parametrize("off", ["rpl_semi_sync_source_enabled", "rpl_semi_sync_source_status"])
def test_a_source_that_did_not_wait_is_remembered_as_such(off):
    assert mysql_state.remember(None, "192.0.2.14", sides(values={off: "OFF"}), NOW)["semi_sync_active"] is False
    assert mysql_state.remember(None, "192.0.2.14", state(), NOW)["semi_sync_active"] is False


def samples(seen):
    """The samples of the metrics, after a check of their format."""
    lines = mysql_state.metrics(seen).splitlines()
    assert all(
        line.startswith(("# HELP webstack_mysql_", "# TYPE webstack_mysql_", "webstack_mysql_")) for line in lines
    )
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_monitoring_reads_the_same_state():
    seen = samples({**sides([{"applying": NOW - 7}]), "source_seen": {"at": NOW}})
    assert (seen["webstack_mysql_up"], seen["webstack_mysql_writable"], seen["webstack_mysql_lag_seconds"]) == (1, 0, 7)
    assert (seen['webstack_mysql_role{role="replica"}'], seen['webstack_mysql_role{role="primary"}']) == (1, 0)
    assert (seen["webstack_mysql_semi_sync_active"], seen["webstack_mysql_semi_sync_replicas"]) == (1, 1)
    assert seen["webstack_mysql_semi_sync_unacknowledged_total"] == 17
    assert seen["webstack_mysql_source_seen_timestamp_seconds"] == NOW


def test_monitoring_is_not_told_what_nobody_knows():
    seen = samples(mysql_state.DOWN)
    assert (seen["webstack_mysql_up"], seen['webstack_mysql_role{role="down"}']) == (0, 1)
    assert not [name for name in seen if "lag" in name or "semi_sync" in name or "source_seen" in name]


def test_many_clients_cost_one_query(tmp_path, listed):
    class Node:
        asked = 0

        def state(self):
            self.asked += 1
            return mysql_state.DOWN

    node = Node()
    cache = mysql_state.Cache(node, mysql_state.Term(tmp_path / "term", mysql_state.Peers(listed)))
    assert {cache.state()["role"] for _ in range(50)} == {"down"}
    assert node.asked == 1
