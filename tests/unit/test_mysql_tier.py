"""Who is the primary, and who may become it, from what the databases say of themselves."""

import itertools

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_tier import (
    failover,
    own_transactions,
    survey,
    switchover_faults,
)

ADDRESSES = {"server2": "192.0.2.2", "server3": "192.0.2.3", "server4": "192.0.2.4"}
UUIDS = {host: f"{number}e11fa47-71ca-11e1-9e33-c80aa9429562" for number, host in enumerate(ADDRESSES, 2)}
ALL = f"{UUIDS['server4']}:1-100"
DOWN = {"state": "down"}
NEW = {"state": "fenced", "uuid": "n", "gtid_executed": "", "databases": [], "channel": None}


def node(host, state, executed=ALL, **changes):
    found = {
        "state": state,
        "uuid": UUIDS[host],
        "gtid_executed": executed,
        "databases": ["guestbook"],
        "channel": None,
    }
    return {**found, **changes}


def replica(host, source="server4", executed=ALL, **changes):
    channel = {
        "host": ADDRESSES[source],
        "source_uuid": UUIDS[source],
        **{"io": "ON", "applier": "ON", "io_error": "", "applier_error": "", "applier_errno": 0, "lag": 0},
        "received": executed,
    }
    return node(host, "replica", executed, channel={**channel, **changes})


def nodes(server4, server3, **more):
    return {"server4": server4, "server3": server3, **more}


def look(found, planned="server4"):
    return survey(found, ADDRESSES, planned)


HEALTHY = nodes(node("server4", "primary"), replica("server3"))
PROMOTED = nodes(None, node("server3", "primary", ALL))
MORE = f"{ALL},{UUIDS['server3']}:1-7"


def grouped(*inside, primary="server3", lost=()):
    """Nodes of a group as each member sees it; the rest is closed and outside."""
    members = [
        {
            "host": ADDRESSES[host],
            "uuid": UUIDS[host],
            "state": "UNREACHABLE" if host in lost else "ONLINE",
            "role": "PRIMARY" if host == primary else "SECONDARY",
        }
        for host in inside
    ]
    return {
        host: node(host, "group" if host in inside else "fenced", group={"members": members if host in inside else []})
        for host in ADDRESSES
        if host not in lost
    } | dict.fromkeys(lost)


SEEN = {"at": 1000.0, "writable": True, "semi_sync_active": True, "waiting": 0, "gtid_executed": ALL}


class TestSurvey:
    def test_a_healthy_pair_is_as_the_inventory_says(self):
        assert look(HEALTHY) == {
            "primary": "server4",
            "old": "server4",
            "places": {"server4": "primary", "server3": "replica"},
            "notes": [],
            "faults": [],
        }

    def test_of_new_nodes_the_inventory_chooses(self):
        for found in itertools.product([NEW, {"state": "not_installed"}], repeat=2):
            assert look(nodes(*found))["places"] == {"server4": "primary", "server3": "replica"}

    def test_after_a_switchover_the_databases_know_better_than_the_inventory(self):
        seen = look(nodes(replica("server4", "server3"), node("server3", "primary")))
        assert seen["places"] == {"server4": "replica", "server3": "primary"}
        assert "exchange the two" in seen["notes"][0]

    @pytest.mark.parametrize("lost", [None, {}, DOWN])
    def test_a_lost_primary_is_replaced_by_nobody(self, lost):
        seen = look(nodes(lost, replica("server3", io="CONNECTING")))
        assert seen["primary"] is None
        assert set(seen["places"].values()) == {"leave"}
        assert "failover" in seen["notes"][0]
        assert seen["old"] == "server4"

    def test_an_old_primary_that_is_back_is_not_opened_while_the_new_one_is_away(self):
        seen = look(nodes(node("server4", "fenced"), None))
        assert seen["primary"] is None

    def test_an_old_primary_that_is_back_follows_the_new_one_if_it_holds_nothing_of_its_own(self):
        seen = look(nodes(node("server4", "fenced"), node("server3", "primary", MORE)))
        assert seen["places"] == {"server4": "replica", "server3": "primary"}

    def test_an_old_primary_that_holds_more_is_left_with_the_remedy(self):
        seen = look(nodes(node("server4", "fenced", f"{UUIDS['server4']}:1-103"), node("server3", "primary", MORE)))
        assert seen["places"] == {"server4": "leave", "server3": "primary"}
        assert f"3 transactions that server3 lacks ({UUIDS['server4']}:101-103)" in seen["notes"][1]
        assert "rejoin.yml -e node=server4" in seen["notes"][1]

    def test_a_restarted_primary_is_opened_if_everybody_still_follows_it(self):
        assert look(nodes(node("server4", "fenced"), replica("server3")))["places"]["server4"] == "primary"

    def test_a_restarted_primary_that_was_promoted_stays_it(self):
        seen = look(nodes(replica("server4", "server3"), node("server3", "fenced")))
        assert seen["primary"] == "server3"

    def test_a_new_replica_beside_a_filled_primary_gets_its_place(self):
        assert look(nodes(node("server4", "primary"), NEW))["places"]["server3"] == "replica"

    def test_a_rebuilt_primary_does_not_become_it_again_without_its_data(self):
        seen = look(nodes(NEW, replica("server3", io="CONNECTING")))
        assert seen["primary"] is None

    @pytest.mark.parametrize(
        "held",
        [
            pytest.param({"executed": f"{UUIDS['server4']}:1-110"}, id="executed"),
            pytest.param({"received": f"{UUIDS['server4']}:60-110"}, id="in the relay log"),
            pytest.param({"executed": f"{ALL},{UUIDS['server2']}:1-10"}, id="of an earlier primary"),
        ],
    )
    def test_a_primary_that_was_set_back_is_not_opened_again(self, held):
        seen = look(nodes(node("server4", "fenced"), replica("server3", **held)))
        assert (seen["primary"], set(seen["places"].values())) == (None, {"leave"})
        (fault,) = seen["faults"]
        assert "server4 was the primary, is closed, and lacks transactions: server3 holds 10 (" in fault
        assert "failover.yml -e primary=server3, then playbooks/rejoin.yml -e node=server4" in fault

    def test_of_several_that_hold_more_the_one_with_most_is_the_remedy(self):
        ahead = {host: replica(host, executed=f"{UUIDS['server4']}:1-1{n}0") for n, host in enumerate(ADDRESSES, 1)}
        (fault,) = look({**ahead, "server4": node("server4", "fenced")})["faults"]
        assert "server2 holds 10" in fault
        assert "server3 holds 20" in fault
        assert "failover.yml -e primary=server3," in fault

    def test_a_restored_primary_with_an_identity_of_its_own_is_not_opened_beside_what_was_undone(self):
        restored = node("server4", "fenced", f"{UUIDS['server4']}:1-90", uuid="0e11fa47-71ca-11e1-9e33-c80aa9429562")
        assert "server3 holds 10" in look(nodes(restored, replica("server3")))["faults"][0]

    def test_what_a_replica_made_itself_does_not_keep_its_primary_closed(self):
        seen = look(nodes(node("server4", "fenced"), replica("server3", executed=MORE)))
        assert (seen["primary"], seen["faults"]) == ("server4", [])

    def test_a_primary_that_is_open_has_only_been_asked_before_its_replicas(self):
        seen = look(nodes(node("server4", "primary"), replica("server3", executed=f"{UUIDS['server4']}:1-110")))
        assert (seen["primary"], seen["faults"]) == ("server4", [])

    def test_two_open_nodes_are_a_fault(self):
        seen = look(nodes(node("server4", "primary"), node("server3", "primary")))
        assert seen["primary"] is None
        assert "server4, server3 are writable" in seen["faults"][0]

    def test_never_more_than_one_primary_and_none_without_the_others_word(self):
        """Every combination of what three nodes may say."""

        def ways(host):
            others = [other for other in ADDRESSES if other != host]
            return [None, DOWN, NEW, node(host, "fenced"), node(host, "primary"), *(replica(host, o) for o in others)]

        for found in itertools.product(*map(ways, ADDRESSES)):
            found = dict(zip(ADDRESSES, found, strict=True))
            seen = look(found)
            assert list(seen["places"].values()).count("primary") <= 1
            chosen = seen["primary"]
            if chosen is None:
                assert set(seen["places"].values()) == {"leave"}
                continue
            for host, other in found.items():
                if host != chosen and (other or {}).get("state") == "primary":
                    pytest.fail(f"{chosen} beside {host}: {found}")
                if found[chosen]["state"] != "primary" and host != chosen:
                    assert other
                    assert other["state"] in ("fenced", "replica")


class TestGroup:
    def test_a_group_says_who_its_primary_is_and_who_is_in_it(self):
        seen = look(grouped(*ADDRESSES))
        assert seen["primary"] == "server3"
        assert seen["places"] == {"server2": "member", "server3": "primary", "server4": "member"}
        assert (seen["notes"], seen["faults"]) == ([], [])

    def test_who_is_not_in_it_is_named_and_left(self):
        for found in (grouped("server2", "server3"), grouped(*ADDRESSES, lost=["server4"])):
            seen = look(found)
            assert seen["places"] == {"server2": "member", "server3": "primary", "server4": "leave"}
            assert "server4" in seen["notes"][0]

    def test_without_a_majority_there_is_no_primary(self):
        seen = look(grouped(*ADDRESSES, lost=["server2", "server4"]))
        assert seen["primary"] is None
        assert set(seen["places"].values()) == {"leave"}

    def test_any_member_may_become_the_primary_and_nobody_else(self):
        found = grouped("server2", "server3")
        assert switchover_faults(found, look(found), "server2", 10) == []
        assert switchover_faults(found, look(found), "server3", 10) == []
        assert switchover_faults(found, look(found), "server4", 10) != []

    def test_nobody_is_promoted_beside_a_group_even_where_no_member_is_in_it(self):
        for found in (grouped(*ADDRESSES), grouped()):
            assert "elects its primary by itself" in failover(found, look(found), {})["faults"][0]


class TestSwitchover:
    def faults(self, found, target="server3"):
        return switchover_faults(found, look(found), target, 10)

    def test_a_running_replica_may_take_over(self):
        assert self.faults(HEALTHY) == []

    def test_the_primary_itself_is_no_fault(self):
        assert self.faults(HEALTHY, "server4") == []

    def test_what_it_received_while_the_primary_was_not_asked_is_not_its_own(self):
        assert (
            self.faults(nodes(node("server4", "primary"), replica("server3", executed=f"{UUIDS['server4']}:1-150")))
            == []
        )

    @pytest.mark.parametrize(
        ("server3", "word"),
        [
            (None, "unreachable"),
            (DOWN, "down"),
            (node("server3", "fenced"), "fenced"),
            (replica("server3", io="OFF"), "receiver OFF"),
            (replica("server3", applier="OFF", applier_error="Duplicate entry"), "Duplicate entry"),
            (replica("server3", lag=11), "11 s behind"),
            (replica("server3", source_uuid=UUIDS["server2"]), "not from server4"),
            (replica("server3", executed=MORE), "lacks"),
        ],
    )
    def test_one_that_is_not_ready_may_not(self, server3, word):
        assert any(word in fault for fault in self.faults(nodes(node("server4", "primary"), server3)))

    def test_an_unknown_host_is_named_with_the_known_ones(self):
        assert self.faults(HEALTHY, "server9") == ["primary: 'server9' is no database. There are server4, server3."]

    def test_without_a_primary_nothing_is_handed_over(self):
        assert "failover" in self.faults(nodes(None, replica("server3")))[0]


class TestFailover:
    def choose(self, found, target=None, sight=SEEN):
        return failover(found, look(found), {"server3": {"source_seen": sight}, "server2": {}}, target, now=1009.0)

    def test_a_replica_that_the_primary_waited_for_loses_nothing(self):
        chosen = self.choose(nodes(None, replica("server3", io="CONNECTING")))
        assert (chosen["target"], chosen["old"], chosen["losses"], chosen["faults"]) == ("server3", "server4", [], [])
        assert "alive until 1970-01-01 00:16:40 UTC, 9 s ago" in chosen["report"][0]

    @pytest.mark.parametrize(
        ("sight", "word"),
        [
            (None, "Nobody knows"),
            ({**SEEN, "semi_sync_active": False}, "was off"),
            ({**SEEN, "gtid_executed": f"{UUIDS['server4']}:1-105"}, "5 transactions then that server3 never received"),
        ],
    )
    def test_what_may_be_lost_is_said(self, sight, word):
        assert word in self.choose(nodes(None, replica("server3")), sight=sight)["losses"][0]

    @pytest.mark.parametrize("ahead", [-3600, 3600])
    def test_the_last_sight_is_found_whatever_the_clocks_of_the_replicas_say(self, ahead):
        found = nodes(None, replica("server3"), server2=replica("server2"))
        late = {**SEEN, "gtid_executed": f"{UUIDS['server4']}:1-99", "semi_sync_active": False}
        for early in (late, {**SEEN, "semi_sync_active": False}):
            sights = {"server3": {**SEEN, "at": 1000.0 + ahead, "ago": 3.0}, "server2": {**early, "ago": 5.0}}
            states = {host: {"source_seen": sight} for host, sight in sights.items()}
            chosen = failover(found, look(found), states, "server3", now=1009.0)
            assert chosen["losses"] == []
            assert "server3 saw server4 alive until 1970-01-01 00:16:46 UTC, 3 s ago" in chosen["report"][0]

    def test_what_is_in_the_relay_log_is_not_lost(self):
        behind = replica("server3", executed=f"{UUIDS['server4']}:1-50", received=ALL)
        assert self.choose(nodes(None, behind))["losses"] == []

    def test_what_cannot_be_applied_is(self):
        stuck = replica(
            "server3", executed=f"{UUIDS['server4']}:1-50", received=ALL, applier_errno=1062, applier_error="Duplicate"
        )
        assert "50 transactions that it cannot apply" in self.choose(nodes(None, stuck))["losses"][0]

    def test_the_replica_with_the_most_is_chosen_and_another_one_is_a_loss(self):
        found = nodes(None, replica("server3"), server2=replica("server2", executed=f"{UUIDS['server4']}:1-90"))
        assert self.choose(found)["target"] == "server3"
        assert "server3 holds 10 transactions that server2 lacks" in self.choose(found, "server2")["losses"][0]

    def test_a_replica_that_is_away_may_be_the_one_that_was_waited_for(self):
        assert "server2 cannot be asked" in self.choose(nodes(None, replica("server3"), server2=None))["losses"][0]

    @pytest.mark.parametrize(
        ("servers", "losses", "report"),
        [
            ([("server4", True), ("server3", False)], "Applications on app1 still reach server4, and write to it.", ""),
            ([("server4", False), ("server3", False)], "", ""),
            ([], "", "app1 does not say whether its applications still reach server4."),
        ],
    )
    def test_a_primary_that_applications_still_reach_is_not_lost(self, servers, losses, report):
        found = nodes(None, replica("server3"))
        served = {"app1": [{"name": name, "healthy": healthy} for name, healthy in servers]}
        chosen = failover(found, look(found), {"server3": {"source_seen": SEEN}}, None, 1009.0, served)
        assert "\n".join(chosen["losses"]).startswith(losses)
        assert bool(chosen["losses"]) == bool(losses)
        assert report in chosen["report"] or not report

    def test_of_a_primary_that_was_set_back_the_replica_that_holds_more_takes_the_place(self):
        found = nodes(node("server4", "fenced", f"{UUIDS['server4']}:1-90"), replica("server3"))
        assert (self.choose(found)["target"], self.choose(found)["losses"]) == ("server3", [])
        assert "server3 holds 10 transactions that server4 lacks" in self.choose(found, "server4")["losses"][0]

    def test_an_old_primary_that_is_back_is_the_first_choice(self):
        chosen = self.choose(nodes(node("server4", "fenced"), replica("server3")))
        assert (chosen["target"], chosen["losses"]) == ("server4", [])

    def test_an_old_primary_is_not_opened_while_another_node_may_be_open(self):
        assert "server3 cannot be asked" in self.choose(nodes(node("server4", "fenced"), None))["losses"][0]

    @pytest.mark.parametrize(
        ("found", "target", "word"),
        [
            (HEALTHY, "server3", "switchover.yml"),
            (PROMOTED, None, "server3 is writable"),
            (nodes(None, replica("server3")), "server9", "no database"),
            (nodes(None, replica("server3")), "server4", "server4 is unreachable"),
            (nodes(None, DOWN), None, "No database answers"),
            (nodes(None, NEW), None, "No database answers"),
        ],
    )
    def test_what_is_no_failover_is_refused(self, found, target, word):
        assert word in self.choose(found, target)["faults"][0]


def test_the_file_of_what_only_a_node_holds_has_the_same_name_in_the_next_run():
    old, leader = node("server4", "fenced", f"{UUIDS['server4']}:1-103"), node("server3", "primary", MORE)
    own = own_transactions(old, leader)
    assert (own["gtids"], own["count"]) == (f"{UUIDS['server4']}:101-103", 3)
    assert own == own_transactions(old, {**leader, "gtid_executed": f"{ALL},{UUIDS['server3']}:1-9"})
    assert own_transactions(leader, leader)["count"] == 0


def test_what_began_on_a_primary_that_was_set_back_since_is_only_here():
    leader = node("server4", "primary", f"{UUIDS['server4']}:1-90")
    assert own_transactions(replica("server3"), leader)["gtids"] == f"{UUIDS['server4']}:91-100"
    behind = node("server3", "fenced")
    seen = look(nodes(leader, behind))
    assert seen["places"]["server3"] == "leave"
    assert "holds 10 transactions that server4 lacks" in seen["notes"][0]
