"""Members of a group are lost, restart and come back while clients write. Nothing that was acknowledged is lost, and no two nodes are open.

The tests run in this order, each on the group that the one before has left whole. Who is the primary changes from test to test.
"""

import time

import pytest

from lab import asking, run, wait_until

FIRST = "mysql-group-db1"  # of the members: it begins the group where all hold the same
UPTIME = "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Uptime'"
FORGET = (
    "STOP GROUP_REPLICATION",
    "SET GLOBAL super_read_only = OFF",
    "SET SESSION sql_log_bin = OFF",
    "RESET REPLICA ALL FOR CHANNEL 'group_replication_recovery'",
    "DROP USER group_member",
    "UNINSTALL PLUGIN group_replication",
)


def nodes_in_turn(result):
    """Who acknowledged, in order. Two nodes that are open at one time would take turns again and again."""
    return [turn[0] for turn in result["turns"]]


def text(done):
    return " ".join((done if isinstance(done, str) else done.stdout + done.stderr).split())


def databases(tier, *arguments, **variables):
    """Apply the site's database tier."""
    return tier.playbook("site", "--tags=mysql_group", *arguments, **variables)


def test_the_primary_is_written_to_and_every_other_member_is_read_from(tier):
    primary = tier.primary()
    tier.sql(
        primary, "CREATE TABLE guestbook.note (word VARCHAR(20) PRIMARY KEY)", "INSERT guestbook.note VALUES ('here')"
    )
    for node in tier.replicas():
        wait_until(lambda node=node: tier.sql(node, "SELECT word FROM guestbook.note") == "here", seconds=10)
        assert (tier.state(node)["role"], tier.write_check(node)) == ("replica", False)
        assert tier.state(node)["lag"] < 5
        refused = tier.on(node, "mysql -e \"INSERT guestbook.note VALUES ('there')\"", check=False)
        assert "super-read-only" in refused.stderr
    tier.sql(primary, "DROP TABLE guestbook.note")
    without_key = tier.on(
        primary, "mysql -e 'CREATE TABLE guestbook.log (a INT); INSERT guestbook.log VALUES (1)'", check=False
    )
    assert without_key.returncode
    tier.sql(primary, "DROP TABLE IF EXISTS guestbook.log")


def test_a_primary_whose_mysqld_is_killed_is_replaced_within_seconds_and_comes_back(tier):
    old = tier.primary()
    with tier.ledger("group: mysqld of the primary is killed (kill -9)") as ledger, asking(tier.writable) as seen:
        tier.on(old, "pkill -KILL -x mysqld")
        ledger.wait_for_write()
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result)[0] == old
    assert len(nodes_in_turn(result)) == 2
    assert result["gap"] < 10, "the aim is 8, which a machine that does nothing else meets"
    assert max(map(len, seen)) == 1


def test_the_primary_moves_as_planned_and_its_mysqld_is_restarted(tier):
    old, new = tier.primary(), tier.replicas()[0]
    with tier.ledger("group: planned move of the primary (switchover.yml)") as ledger:
        said = text(tier.do("switchover", primary=new))
        ledger.wait_for_write()
    assert f"{new} took over from {old}" in said
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [old, new]
    assert result["gap"] < 2

    with tier.ledger("group: mysqld of the primary is restarted") as ledger:
        tier.on(new, "systemctl restart mysql", timeout=100)
        assert tier.state(new)["group"]["state"] == "ONLINE", "a restart is over when the member is back"
        ledger.wait_for_write()
    assert ledger.nothing_is_lost()["gap"] < 10


def test_the_packages_are_upgraded_members_first_then_on_the_old_primary(tier):
    old = tier.primary()
    tier.offer_newer_packages()
    with tier.ledger("group: the packages are upgraded, the primary's last (rolling_update.yml)") as ledger:
        tier.do("rolling_update", tiers="databases")
        ledger.wait_for_write()
    assert all(map(tier.has_newer_packages, tier.nodes))
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [old, tier.primary()]
    assert result["gap"] < 5


def test_a_primary_that_is_cut_off_from_the_others_accepts_nothing_although_clients_reach_it(tier):
    old, others = tier.primary(), tier.replicas()
    with tier.ledger("group: the primary is cut off from the other members, not from its clients") as ledger:
        tier.cut(old, nodes=others)
        wait_until(lambda: set(tier.writable()) & set(others))
        ledger.wait_for_write()
        alone = "mysql guestbook -e \"INSERT ledger VALUES ('alone', 1, 1, 'x')\""
        assert tier.on(old, f"timeout 5 {alone}", check=False).returncode != 0
        wait_until(lambda: tier.state(old)["group"]["state"] == "ERROR", seconds=30)
        assert not tier.write_check(old)
        tier.heal(old)
        done = databases(tier)
        assert done.returncode == 0, done.stdout
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result)[0] == old
    assert len(nodes_in_turn(result)) == 2, "both sides accepted writes"
    wait_until(tier.whole, seconds=90)
    for node in tier.nodes:
        assert tier.sql(node, "SELECT COUNT(*) FROM guestbook.ledger WHERE run = 'alone'") == "0"


def logs_in(tier, node, password):
    """Whether a member lets another one in that comes back."""
    options = ("--user=group_member", f"--host={tier.nodes[node]}", "--ssl-mode=REQUIRED", "--execute=SELECT 1")
    command = ("docker", "exec", "--interactive", node, "mysql", "--defaults-extra-file=/dev/stdin", *options)
    done = run(*command, input=f'[client]\npassword="{password}"\n', check=False)
    assert done.returncode == 0 or "1045" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_rotation_ends_the_password_with_which_members_came_back_before(tier):
    secret = tier.directory / "inventory.secrets" / "mysql_replication"
    old = secret.read_text().strip()
    assert all(logs_in(tier, node, old) for node in tier.nodes)
    # HAProxy is all there is of the application here, and stays as it is.
    application = {"gunicorn_name": "haproxy", "gunicorn_secrets": {}, "gunicorn_readiness_path": ""}
    tier.do("rotate_secrets", "--skip-tags=mysql_server,haproxy", rotate="replication", **application)
    new = secret.read_text().strip()
    assert new != old
    wait_until(tier.whole)
    for node in tier.nodes:
        assert logs_in(tier, node, new)
        assert not logs_in(tier, node, old)


def test_without_a_majority_nobody_writes_until_it_is_said_that_the_others_are_lost(tier):
    last, (first, other) = tier.primary(), tier.replicas()
    with tier.ledger("group: the server of a secondary is lost") as ledger:
        tier.kill(first)
        ledger.wait_for_write()
        time.sleep(8)  # until it is expelled
        ledger.wait_for_write()
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [last]
    assert result["gap"] < 5

    with tier.ledger("group: then another server is lost, and with it the majority (mysql_group_force)") as ledger:
        tier.kill(other)
        wait_until(lambda: not tier.writable(), seconds=15)
        refused = databases(tier, f"--limit={last}")
        assert refused.returncode != 0
        said = text(refused)
        assert tier.nodes[first] in said
        assert tier.nodes[other] in said
        assert f"force={tier.nodes[last]} (mysql_group_force)" in said
        assert tier.writable() == []
        done = databases(tier, f"--limit={last}", mysql_group_force=tier.nodes[last])
        assert done.returncode == 0, done.stdout
        ledger.wait_for_write()
    assert nodes_in_turn(ledger.nothing_is_lost()) == [last]
    # They find the group by themselves.
    tier.start(first)
    tier.start(other)


def test_after_all_were_down_the_largest_set_begins_and_nobody_before_a_run(tier):
    # What one member alone holds: it was the last one of the group.
    last = next(node for node in tier.nodes if node not in (FIRST, tier.primary()))
    for node in tier.nodes:
        if node != last:
            tier.sql(node, "STOP GROUP_REPLICATION")
    wait_until(lambda: tier.writable() == [last])
    tier.sql(last, "CREATE TABLE guestbook.last (id INT PRIMARY KEY)")
    for node in tier.nodes:
        tier.on(node, "pkill -KILL -x mysqld")
    wait_until(lambda: all(tier.state(node).get("role") == "fenced" for node in tier.nodes))
    time.sleep(3)
    assert tier.members() == {}
    done = databases(tier)
    assert done.returncode == 0, done.stdout
    assert tier.primary() == last
    assert tier.sql(FIRST, "SHOW TABLES FROM guestbook LIKE 'last'") == "last"
    tier.sql(last, "DROP TABLE guestbook.last")


@pytest.fixture
def pair(tier):
    """A primary with one replica, as mysql_replication_mode: pair makes them, and a node that was emptied after it had been a member."""
    primary, (replica, new) = tier.primary(), tier.replicas()
    close, no_more = "SET GLOBAL super_read_only = ON", "RESET REPLICA ALL FOR CHANNEL 'group_replication_applier'"
    last = {
        new: ("DROP DATABASE guestbook", "RESET BINARY LOGS AND GTIDS", close),
        replica: (no_more, close),
        primary: (no_more, "SET GLOBAL rpl_semi_sync_source_enabled = ON", "SET GLOBAL read_only = OFF"),
    }
    files = "/etc/mysql/mysql.conf.d/zz-webstack-group.cnf /etc/systemd/system/mysql.service.d/webstack-group.conf"
    for node, statements in last.items():
        tier.sql(node, *FORGET, *statements)
        tier.on(node, f"rm {files} && systemctl daemon-reload")
    password = (tier.directory / "inventory.secrets" / "mysql_replication").read_text().strip()
    tier.sql(
        replica,
        f"CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{tier.nodes[primary]}', SOURCE_USER = 'replication', SOURCE_PASSWORD = '{password}', "
        "SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_SSL_CA = '/etc/mysql/tls/ca.pem', SOURCE_SSL_VERIFY_SERVER_CERT = 1",
        "START REPLICA",
    )
    wait_until(lambda: tier.follows(replica))
    return primary


def test_a_pair_becomes_a_group_while_clients_write(tier, pair):
    primary, up = pair, int(tier.sql(pair, UPTIME))
    tier.sql(primary, "CREATE TABLE guestbook.log (a INT)")
    before = {node: tier.state(node)["role"] for node in tier.nodes}
    refused = databases(tier)
    assert refused.returncode != 0
    assert "guestbook.log" in text(refused)
    assert {node: tier.state(node)["role"] for node in tier.nodes} == before, "what was refused has changed something"
    assert tier.on(primary, "ls /etc/mysql/mysql.conf.d").stdout.count("webstack-group") == 0
    tier.sql(primary, "DROP TABLE guestbook.log")

    with tier.ledger("a pair becomes a group (site.yml)") as ledger:
        done = databases(tier)
        assert done.returncode == 0, done.stdout
        ledger.wait_for_write()
    result = ledger.nothing_is_lost()
    assert nodes_in_turn(result) == [primary]
    wait_until(tier.whole)
    assert len({tier.sql(node, "SELECT COUNT(*) FROM guestbook.ledger") for node in tier.nodes}) == 1
    assert int(tier.sql(primary, UPTIME)) >= up, "the primary was restarted"
    assert tier.sql(primary, "SELECT @@rpl_semi_sync_source_enabled") == "0"
