"""Something happens to the databases while clients write. Nothing that was acknowledged is lost, and no two nodes are open at one time.

The tests run in this order, each on the tier that the one before has left whole. Who is the primary changes from test to test, and is mostly
not who the inventory says.
"""

import contextlib
import re
import time

import pytest

from lab import asking, run, wait_until

PLANNED = "mysql-failover-db1"  # by the inventory
DATABASES = "--tags=mysql_primary,mysql_replica"


def nodes_in_turn(result):
    """Who acknowledged, in order. Two nodes that are open at one time would take turns again and again."""
    return [turn[0] for turn in result["turns"]]


def text(done):
    return " ".join((done if isinstance(done, str) else done.stdout + done.stderr).split())


def changed(output):
    return {int(count) for count in re.findall(r"changed=(\d+)", output)}


def failed(done):
    """The hosts on which a run failed, or which it did not reach."""
    recap = re.findall(
        r"(\S+) : ok=\d+ changed=\d+ unreachable=(\d+) failed=(\d+)", text(re.sub(r"\x1b\[[\d;]*m", "", done.stdout))
    )
    assert recap, done.stdout + done.stderr
    return [host for host, *counts in recap if counts != ["0", "0"]]


def promote(tier, node, *arguments, **variables):
    return tier.playbook("failover", *arguments, primary=node, confirm=node, **variables)


def bring_back(tier, node):
    """Make an old primary a replica again."""
    said = text(tier.do("rejoin", node=node))
    wait_until(tier.whole)
    return said


def snapshot(tier):
    """All that a refused run must leave as it is."""
    question = (
        "SELECT @@GLOBAL.super_read_only, @@GLOBAL.read_only, @@GLOBAL.offline_mode, @@GLOBAL.gtid_executed",
        "SELECT HOST, PORT, USER FROM performance_schema.replication_connection_configuration",
        "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status",
        "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status",
    )
    return {node: tier.sql(node, *question) for node in tier.nodes}


def test_a_killed_mysqld_comes_back_and_opens_itself_again(tier):
    primary = tier.primary()
    with tier.ledger("mysqld of the primary is killed (kill -9), starts and opens itself again") as ledger:
        tier.on(primary, "pkill -KILL -x mysqld")
        ledger.wait_for_write()
    assert nodes_in_turn(ledger.nothing_is_lost()) == [primary]


def fresh(tier, node):
    """Whether it is given reads by those who want them at most 2 seconds old."""
    lag = tier.state(node).get("lag")
    return lag is not None and lag <= 2


def test_the_packages_are_upgraded_replicas_first_then_on_the_old_primary(tier):
    old = tier.primary()
    tier.offer_newer_packages()
    fault = "the packages are upgraded on the replicas, one takes over, then on the old primary (rolling_update.yml)"
    with tier.ledger(fault) as ledger:
        tier.do("rolling_update", tiers="databases")
        ledger.wait_for_write()
    assert all(map(tier.has_newer_packages, tier.nodes))
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [old, tier.primary()]
    assert old != tier.primary()
    assert result["gap"] < 5
    wait_until(tier.whole, seconds=10)  # which it is not while a replica has a transaction of its own


def test_the_primary_moves_under_load(tier):
    old = tier.primary()
    new = next(node for node in tier.replicas() if node != PLANNED)
    with tier.ledger("planned move of the primary (switchover.yml)") as ledger:
        tier.do("switchover", primary=new)
        ledger.wait_for_write()
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [old, new]
    assert result["gap"] < 5


def test_the_site_is_applied_again_after_a_switchover_and_the_primary_stays(tier):
    primary = tier.primary()
    assert primary != PLANNED
    with tier.ledger("site.yml is run again after a switchover") as ledger:
        output = tier.do("site")
    assert f"{primary} is the primary, the inventory has {PLANNED}" in text(output)
    assert changed(output) == {0}
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [primary]
    assert result["gap"] < 2


REFUSED = {
    "to nobody": ("switchover", {}, "primary: name the host that shall be the primary"),
    "failover while the primary answers": (
        "failover",
        {"primary": "{replica}", "confirm": "{replica}"},
        "{primary} is writable: hand over with playbooks/switchover.yml",
    ),
    "rejoin of the primary": ("rejoin", {"node": "{primary}"}, "{primary} is the primary, which has nobody to follow"),
}


@pytest.mark.parametrize(("playbook", "variables", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_succeed_is_refused_and_changes_nothing(tier, playbook, variables, reason):
    names = {"primary": tier.primary(), "replica": tier.replicas()[0]}
    before = snapshot(tier)
    done = tier.playbook(playbook, **{name: value.format(**names) for name, value in variables.items()})
    assert done.returncode != 0
    assert reason.format(**names) in text(done)
    assert snapshot(tier) == before


def test_a_switchover_to_the_primary_itself_does_nothing(tier):
    before = snapshot(tier)
    output = tier.do("switchover", primary=tier.primary())
    assert "is the primary already: nothing was done" in text(output)
    assert changed(output) == {0}
    assert snapshot(tier) == before


def test_a_replica_that_is_stopped_does_not_take_over(tier):
    replica = tier.replicas()[0]
    tier.sql(replica, "STOP REPLICA")
    before = snapshot(tier)
    try:
        done = tier.playbook("switchover", primary=replica)
        assert done.returncode != 0
        assert f"replication does not run on {replica}" in text(done)
        assert snapshot(tier) == before
    finally:
        tier.sql(replica, "START REPLICA")


def test_what_only_a_replica_holds_lets_neither_it_take_over_nor_its_primary_open_until_it_is_saved(tier):
    """Transactions of its own, and one that the primary made and lacks, as after a crash or from an older snapshot."""
    primary, replica = tier.primary(), tier.replicas()[0]
    lost = f"{tier.state(primary)['server_uuid']}:1000000"
    tier.sql(
        replica,
        "SET GLOBAL super_read_only = OFF",
        "CREATE DATABASE astray",
        f"SET gtid_next = '{lost}'",
        "CREATE DATABASE lost",
        "SET gtid_next = AUTOMATIC",
        "SET GLOBAL super_read_only = ON",
    )
    before = snapshot(tier)
    done = tier.playbook("switchover", primary=replica)
    assert done.returncode != 0
    assert f"{replica} holds transactions that {primary} lacks" in text(done)
    assert snapshot(tier) == before

    tier.on(primary, "systemctl restart mysql")
    done = tier.playbook("site", DATABASES)
    assert done.returncode != 0
    assert f"lacks transactions: {replica} holds 1 ({lost})" in text(done)
    assert f"failover.yml -e primary={replica}" in text(done)
    assert tier.writable() == []
    done = promote(tier, primary, accept_loss=True)
    assert failed(done) == [replica], text(done)  # whose data nobody has agreed to lose
    assert tier.writable() == [primary]

    (file,) = re.findall(r"are in (/\S+\.sql) on it", bring_back(tier, replica))
    saved = tier.on(replica, f"cat {file}").stdout
    for database in ("astray", "lost"):
        assert f"CREATE DATABASE {database}" in saved
        assert database not in tier.sql(replica, "SHOW DATABASES").split()


@contextlib.contextmanager
def late(tier, replica):
    """A replica that receives, and cannot apply."""
    holder = ("docker", "exec", "--detach", replica, "mysql", "guestbook", "--execute")
    run(*holder, "LOCK TABLES ledger READ; SELECT SLEEP(120)")
    find = "SELECT PROCESSLIST_ID FROM performance_schema.threads WHERE PROCESSLIST_INFO LIKE 'SELECT SLEEP(120)%'"
    session = wait_until(lambda: tier.sql(replica, find), seconds=10)
    try:
        yield
    finally:
        tier.sql(replica, f"KILL {session.split()[0]}")


def test_a_replica_that_does_not_catch_up_in_time_does_not_take_over_and_the_primary_goes_on(tier):
    primary, replica = tier.primary(), tier.replicas()[0]
    with tier.ledger("planned move to a replica that does not catch up: given up after 2 s") as ledger:
        with late(tier, replica):
            time.sleep(1)
            done = tier.playbook("switchover", primary=replica, webstack_max_lag=300, timeout=2)
            assert done.returncode != 0
            assert "it stays a replica" in text(done)
            ledger.wait_for_write()
        assert tier.primary() == primary
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [primary]
    assert result["gap"] < 12


def set_clock(tier, node, ahead):
    """Set the clock of mysqld and of the state service so many seconds ahead of this machine's."""
    tier.on(node, f"python3 -c \"import struct; open('/var/lib/clock', 'r+b').write(struct.pack('q', {ahead}))\"")
    wait_until(lambda: abs(tier.state(node).get("clock", 0) - time.time() - ahead) < 60, seconds=5)


def set_right(tier):
    for node in tier.nodes:
        set_clock(tier, node, 0)


def test_a_clock_that_jumps_moves_no_primary_and_neither_makes_a_replica_late_nor_hides_that_it_is(tier):
    primary, replica = tier.primary(), tier.replicas()[0]

    def all_fresh():
        return all(fresh(tier, node) for node in tier.nodes)

    fault = "the clock of the primary, then of a replica, jumps an hour ahead, two hours back, and is set right"
    try:
        with tier.ledger(fault) as ledger, asking(tier.writable, pause=0.1) as open_nodes:
            for node, hides_lateness in ((primary, 3600), (replica, -3600)):
                for ahead in (3600, -3600, 0):
                    set_clock(tier, node, ahead)
                    time.sleep(1.5)  # within which the replicas ask the primary for its clock
                    wait_until(all_fresh, seconds=5)
                    with asking(all_fresh) as seen:
                        time.sleep(1)
                    assert all(seen)
                    if ahead == hides_lateness:
                        with late(tier, replica):
                            wait_until(lambda: not fresh(tier, replica), seconds=5)
                        wait_until(all_fresh, seconds=5)
                ledger.wait_for_write()
    finally:
        set_right(tier)
    assert [nodes for nodes in open_nodes if nodes != [primary]] == []
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [primary]
    assert result["gap"] < 2


def test_a_replica_takes_the_place_of_a_primary_that_is_lost(tier):
    old = tier.primary()
    with tier.ledger("the primary's server is lost (failover.yml)") as ledger:
        tier.kill(old)
        new = tier.most_advanced([node for node in tier.nodes if node != old])
        done = tier.playbook("failover", primary=new, confirm="somebody else")
        assert f"To make {new} the primary" in text(done)
        assert tier.writable() == []
        assert promote(tier, new).returncode == 0
        ledger.wait_for_write()
    assert nodes_in_turn(ledger.nothing_is_lost()) == [old, new]

    with tier.ledger("site.yml is run while the old primary is down, and when it is back") as ledger:
        assert failed(tier.playbook("site", DATABASES)) == [old]
        assert tier.writable() == [new]
        tier.start(old)
        assert tier.state(old)["role"] == "fenced"
        tier.do("site", DATABASES)
        assert tier.writable() == [new]
        tier.do("rejoin", node=old)
    wait_until(tier.whole)  # which hardly two nodes are at one time while clients write
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [new]
    assert result["gap"] < 2


def test_a_primary_that_applications_still_reach_is_not_replaced(tier, tmp_path):
    old, (new, other) = tier.primary(), tier.replicas()
    tier.cut(old, nodes=[new, other])
    try:
        done = promote(tier, new, *tier.out_of_reach(old, tmp_path))
        assert done.returncode != 0
        assert f"Applications on {tier.application} still reach {old}, and write to it." in text(done)
        assert (tier.writable(), tier.state(new)["role"]) == ([old], "replica")
    finally:
        tier.heal(old)


def test_a_primary_that_was_cut_off_stays_closed_when_the_network_heals(tier, tmp_path):
    old = tier.primary()
    fault = "the primary is cut off from all others, replaced by one whose clock is an hour behind (failover.yml), and comes back unchanged"
    with tier.ledger(fault) as ledger:
        tier.cut(old)
        try:
            new = tier.most_advanced([node for node in tier.nodes if node != old])
            set_clock(tier, new, -3600)
            done = promote(tier, new, *tier.out_of_reach(old, tmp_path))
            assert tier.writable() == [new], text(done)
            ledger.wait_for_write()
            with asking(tier.writable) as seen:
                tier.heal(old)
                time.sleep(4)
            assert [nodes for nodes in seen if nodes != [new]] == []
        finally:
            tier.on(old, "nft delete table inet cut", check=False)
            set_right(tier)
    assert nodes_in_turn(ledger.nothing_is_lost()) == [old, new]
    bring_back(tier, old)


def hang(tier, node):
    """Let mysqld hang so that it does not even end when it is told to: systemd wakes a stopped process for that."""
    again = "pid=$(pgrep -x mysqld); while kill -STOP $pid; do sleep 0.01; done"
    run("docker", "exec", "--detach", node, "sh", "-c", again)
    wait_until(lambda: tier.state(node).get("role") == "down", seconds=10)


def test_while_packets_are_lost_in_one_direction_nothing_is_acknowledged_that_a_replica_lacks(tier):
    old, replicas = tier.primary(), tier.replicas()
    fault = (
        "the primary does not hear its replicas for 3 s, then they do not hear it for 3 s, and it hangs (failover.yml)"
    )
    with tier.ledger(fault) as ledger:
        for direction in ("input", "output"):
            tier.cut(old, [direction], replicas)
            time.sleep(3)
            assert tier.state(old)["semi_sync"]["waiting"] > 0, "nothing was cut"
            if direction == "input":
                tier.heal(old)
                ledger.wait_for_write()
        hang(tier, old)
        tier.heal(old)
        new = tier.most_advanced(replicas)
        begun = time.monotonic()
        done = promote(tier, new)
        assert done.returncode == 0, text(done)
        assert time.monotonic() - begun < 60
        ledger.wait_for_write()
    assert nodes_in_turn(ledger.nothing_is_lost()) == [old, new]
    assert tier.on(old, "pgrep -x mysqld", check=False).stdout == ""
    bring_back(tier, old)


SMALL_DISK = """
systemctl stop mysql
mkdir /srv/small
mount -t tmpfs -o size=$(($(du --summarize --block-size=1M /var/lib/mysql | cut --fields=1) + 64))M tmpfs /srv/small
cp --archive /var/lib/mysql/. /srv/small
chown mysql: /srv/small
mount --bind /srv/small /var/lib/mysql
systemctl start mysql
"""


def test_a_primary_whose_disk_is_full_acknowledges_nothing_and_is_replaced(tier):
    full = tier.replicas()[0]
    tier.on(full, SMALL_DISK)
    wait_until(tier.whole)
    tier.do("switchover", primary=full)
    with tier.ledger("the disk of the primary is full; its server is given up after 3 s (failover.yml)") as ledger:
        tier.on(full, "dd if=/dev/zero of=/var/lib/mysql/filler bs=1M", check=False)
        time.sleep(3)
        tier.kill(full)  # and with it goes the small disk
        new = tier.most_advanced([node for node in tier.nodes if node != full])
        assert promote(tier, new).returncode == 0
        ledger.wait_for_write()
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [full, new]
    assert result["gap"] > 3, "the disk was not full"
    tier.start(full)
    bring_back(tier, full)


def test_a_replica_that_lacks_what_another_one_has_does_not_take_over(tier):
    old, (cut_off, stalled) = tier.primary(), tier.replicas()
    with tier.ledger("one replica is cut off, the other one stalls, then the primary is lost (failover.yml)") as ledger:
        tier.cut(cut_off)
        time.sleep(1)
        tier.stall(stalled)
        time.sleep(1)
        tier.kill(old)
        tier.heal(cut_off)
        tier.resume(stalled)
        refused = promote(tier, cut_off)
        assert refused.returncode != 0
        assert f"transactions that {cut_off} lacks" in text(refused)
        assert promote(tier, stalled).returncode == 0
        ledger.wait_for_write()
    assert nodes_in_turn(ledger.nothing_is_lost()) == [old, stalled]
    tier.start(old)
    bring_back(tier, old)


def test_without_semi_synchronous_replication_the_loss_is_foretold_counted_and_can_be_brought_back(tier):
    old, replicas = tier.primary(), tier.replicas()
    fault = "semi-synchronous replication switched off, both replicas cut off for 2 s, then the primary is lost"
    with tier.ledger(fault + " (failover.yml -e accept_loss=true)") as ledger:
        tier.sql(old, "SET GLOBAL rpl_semi_sync_source_enabled = OFF")
        time.sleep(1.5)
        for node in replicas:
            tier.cut(node)
        time.sleep(2)
        tier.kill(old)
        for node in replicas:
            tier.heal(node)
        new = tier.most_advanced(replicas)
        refused = promote(tier, new)
        assert refused.returncode != 0
        assert "semi-synchronous replication was off" in text(refused)
        assert tier.writable() == []
        assert promote(tier, new, accept_loss=True).returncode == 0
        ledger.wait_for_write()
    result = ledger.note()
    assert nodes_in_turn(result) == [old, new]
    assert result["lost"] > 0
    assert result["phantom"] == 0

    tier.start(old)
    (file,) = re.findall(r"are in (/\S+\.sql) on it", bring_back(tier, old))
    run("docker", "exec", "--interactive", new, "mysql", input=tier.on(old, f"cat {file}").stdout)
    assert ledger.compare()["lost"] == 0
