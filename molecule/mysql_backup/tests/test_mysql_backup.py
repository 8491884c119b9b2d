"""A replica that makes backups: mistakes are undone, damage is found, and what is bad is refused before anything changes."""

import json
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import testinfra

import lab

SCENARIO = Path(__file__).parents[1]
PRIMARY = testinfra.get_host("docker://mysql-backup-primary")
REPLICA = testinfra.get_host("docker://mysql-backup-replica")
PROGRAM = "python3 -I /usr/local/libexec/mysql_backup"
FULL = "/var/backups/mysql/full"
SIDE = "--socket=/var/lib/mysql-files/webstack/side/mysql.sock"
WRITER = """
import itertools, pymysql, sys
connection = pymysql.connect(unix_socket="/run/mysqld/mysqld.sock", user="root", autocommit=True)
for number in itertools.count(int(sys.argv[1])):
    connection.cursor().execute("INSERT site.note VALUES (%s, REPEAT('x', 2000))", number)
    print(number, flush=True)
"""


def sql(node, statement, *options):
    """What root reads by socket."""
    return node.check_output("mysql -Ns" + " %s" * (len(options) + 2), *options, "-e", statement)


def executed(node):
    return sql(node, "SELECT @@gtid_executed").replace("\\n", "").replace("\n", "")


def rows(*options, node=REPLICA):
    """The numbers of all rows."""
    return {int(number) for number in sql(node, "SELECT id FROM site.note", *options).split()}


def caught_up():
    gtids = executed(PRIMARY)
    assert sql(REPLICA, f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', 30)") == "0"


def listing():
    return json.loads(REPLICA.check_output(f"{PROGRAM} list --json"))


def newest():
    return listing()["backups"][0]["name"]


def metrics():
    text = REPLICA.check_output("cat /var/lib/prometheus/node-exporter/webstack_mysql_backup.prom")
    return {
        name: float(value) for name, value in re.findall(r"^webstack_mysql_backup_(\S+) (\S+)$", text, re.MULTILINE)
    }


def metric(name):
    return metrics()[name]


def run_unit(name):
    """Run one of the units that the timers start; returns whether it succeeded."""
    return REPLICA.run(f"systemctl start mysql-backup@{name}").rc == 0


def streamed():
    """Wait until the copy of the binary logs holds all that the replica has executed."""
    caught_up()
    gtids = executed(REPLICA)

    def complete():
        held = listing()["binlogs"][-1]["to"]
        return sql(REPLICA, f"SELECT GTID_SUBSET('{gtids}', '{held}')") == "1"

    lab.wait_until(complete, 30)


def state():
    """What a refused restore must leave as it was."""
    return sql(
        REPLICA, "SELECT @@server_uuid, @@super_read_only, COUNT(*) FROM site.note; SHOW REPLICA STATUS"
    ).split()[:3]


def unwrapped(done):
    """A process whose output, which Ansible wraps, is in one line."""
    done.stdout = " ".join((done.stdout + done.stderr).split())
    return done


def restore_here(options):
    """Run the program that the playbook runs."""
    return REPLICA.run(f"{PROGRAM} restore {options}")


def playbook(name, *options, **variables):
    """Run one of the collection's playbooks; returns the process."""
    done = lab.run(
        *("ansible-playbook", f"--inventory={SCENARIO}/inventory", *options, f"{lab.CHECKOUT}/playbooks/{name}.yml"),
        f"--extra-vars={json.dumps(variables)}",
        check=False,
        timeout=300,
    )
    return unwrapped(done)


def restore(*options, **variables):
    """Run playbooks/restore.yml on the replica; returns the process."""
    return playbook("restore", *options, **{"restore_node": "mysql-backup-replica", **variables})


def configure(**variables):
    """Apply the role with other variables; returns the process."""
    return unwrapped(lab.converge("mysql_backup", "--tags=mysql_backup", **variables))


def follow_again():
    """Make the restored replica a replica of the primary again, as the site's playbook does."""
    done = lab.converge("mysql_backup", "--tags=mysql_replica", "--limit=mysql-backup-replica")
    assert done.returncode == 0, done.stdout
    caught_up()


@contextmanager
def writing(first):
    """Write rows on the primary, one after the other; yields the list of those that were acknowledged, which grows."""
    process = subprocess.Popen(
        [
            "docker",
            "exec",
            "--interactive",
            "mysql-backup-primary",
            "timeout",
            "60",
            "python3",
            "-c",
            WRITER,
            str(first),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged = []
    try:
        acknowledged.append(int(process.stdout.readline()))
        yield acknowledged
    finally:
        PRIMARY.run("pkill -f 'import itertools'")
        acknowledged += [int(line) for line in process.stdout]
        process.wait()


@pytest.fixture(scope="module", autouse=True)
def table():
    sql(
        PRIMARY,
        "CREATE DATABASE IF NOT EXISTS site; CREATE TABLE IF NOT EXISTS site.note (id INT PRIMARY KEY, word TEXT)",
    )
    caught_up()


@pytest.fixture(scope="module")
def mistake(table):
    """Rows that were acknowledged before, while and after a full backup was made, and then a table that was dropped by mistake."""
    with writing(1000) as acknowledged:
        assert run_unit("backup")
        time.sleep(1)
    caught_up()
    there = rows(node=PRIMARY)
    before = executed(PRIMARY)
    moment = time.time()
    sql(PRIMARY, "DROP TABLE site.note")
    dropped = sql(PRIMARY, f"SELECT GTID_SUBTRACT('{executed(PRIMARY)}', '{before}')")
    sql(
        PRIMARY,
        "CREATE TABLE site.note (id INT PRIMARY KEY, word TEXT); INSERT site.note VALUES (1, 'after the mistake')",
    )
    streamed()
    assert len(acknowledged) > 20
    assert there >= set(acknowledged)
    return {"rows": there, "gtid": dropped, "moment": moment, "backup": newest()}


def test_a_backup_was_made_while_writes_went_on(mistake):
    manifest = listing()["backups"][0]
    assert manifest["gtid_executed"] != manifest["gtid_executed_end"]
    assert metric("timestamp_seconds") == pytest.approx(manifest["end"])
    assert REPLICA.run(f"cd {FULL}/{manifest['name']} && sha256sum --check data.tar.zst.sha256").rc == 0
    assert REPLICA.check_output("stat -c %a /var/backups/mysql") == "700"


def test_a_dry_run_says_what_would_be_restored_and_that_the_node_holds_data(mistake):
    before = state()
    done = restore("--check", restore_before_gtid=mistake["gtid"])
    assert f"stop_before: {mistake['gtid']}" in done.stdout
    assert re.search(r"holds data \(databases: site\).*restore_over=<this host>", done.stdout), done.stdout
    assert "Nothing was changed" in done.stdout
    assert state() == before


def test_the_lost_table_is_copied_out_of_a_side_instance_of_a_time_before(mistake):
    ports = REPLICA.check_output("ss -Hltn | wc -l")
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(mistake["moment"]))
    fraction = f"{mistake['moment'] % 1:.6f}"[1:]
    done = restore(restore_until=moment + fraction, restore_to="side")
    assert done.returncode == 0, done.stdout
    assert rows(SIDE) == mistake["rows"]
    assert "read-only" in REPLICA.run("mysql %s -e 'DROP TABLE site.note'", SIDE).stderr
    assert REPLICA.check_output("ss -Hltn | wc -l") == ports
    assert sql(REPLICA, "SELECT word FROM site.note") == "after the mistake"
    again = restore_here("--side")
    assert again.rc == 1
    assert "systemctl stop mysql-side" in again.stderr
    dump = f"mysqldump {SIDE} --set-gtid-purged=OFF site note | sed 's/`note`/`rescued`/'"
    assert "CREATE TABLE `rescued`" in REPLICA.check_output(dump)
    REPLICA.check_output("systemctl stop mysql-side")
    assert REPLICA.run("ls /var/lib/mysql-files/webstack/side").rc != 0


def test_what_is_not_meant_is_refused_and_nothing_changes(mistake):
    before = state()
    done = restore(
        restore_node="elsewhere",
        restore_over="mysql-backup-primary",
        restore_until="2001-01-01",
        restore_before_gtid="x",
        restore_binlogs=False,
        restore_to="nowhere",
    )
    assert done.returncode != 0
    for reason in (
        "restore_node: name the host",
        "restore_over: mysql-backup-primary is not the host",
        "restore_until and restore_before_gtid: give one of them",
        "restore_binlogs: without binary logs there is no way to 2001-01-01",
        "restore_to: nowhere",
    ):
        assert reason in done.stdout
    assert state() == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "holds data (databases: site)"),
        ("--over 20010101T000000Z", "no backup '20010101T000000Z'"),
        ("--over --until 2001-01-01", "newer than 2001-01-01"),
        ("--over --until 2999-01-01", "yet to come"),
        ("--over --until noon", "'noon' is no time"),
        ("--over --before-gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:7", "not in the binary logs"),
        ("--over --from /srv", "no backup here"),
    ],
)
def test_what_cannot_be_restored_is_refused_and_nothing_changes(mistake, options, reason):
    before = state()
    done = restore_here(options)
    assert done.rc == 1
    assert reason in done.stderr
    assert state() == before


def test_a_restore_to_a_transaction_has_every_acknowledged_row_and_leaves_a_fenced_node(mistake):
    uuid = sql(REPLICA, "SELECT @@server_uuid")
    keys = REPLICA.check_output("sha256sum /var/lib/mysql/*.pem")
    done = restore(restore_before_gtid=mistake["gtid"], restore_over="mysql-backup-replica")
    assert done.returncode == 0, done.stdout
    assert rows() == mistake["rows"]
    assert sql(REPLICA, "SELECT @@super_read_only") == "1"
    assert sql(REPLICA, "SHOW REPLICA STATUS") == ""
    assert sql(REPLICA, "SELECT @@server_uuid") != uuid
    assert sql(REPLICA, "SHOW STATUS LIKE 'Innodb_redo_log_enabled'").split()[1] == "ON"
    assert REPLICA.check_output("sha256sum /var/lib/mysql/*.pem") == keys
    assert REPLICA.run("curl --silent --fail http://172.30.72.12:9201/write").rc != 0
    assert REPLICA.run("ls /var/lib/mysql-files/webstack/restore").rc != 0


@pytest.fixture
def setting():
    """Takes a setting of mysqld that is in its configuration, and not applied yet."""
    file = "/etc/mysql/mysql.conf.d/zzz-test.cnf"
    yield lambda text: REPLICA.check_output(f"printf '[mysqld]\n{text}\n' >{file}")
    REPLICA.check_output(f"rm -f {file}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("log_bin = /var/log/mysql/binlog", "outside of its data directory /var/lib/mysql"),
        ("datadir = /var/backups", "/var/backups/mysql lies in the data directory /var/backups"),
    ],
)
def test_a_node_whose_data_would_not_be_replaced_alone_and_whole_is_refused(mistake, setting, text, reason):
    before = state()
    setting(text)
    done = restore_here("--over")
    assert done.rc == 1
    assert reason in done.stderr
    assert state() == before


@pytest.fixture
def member():
    """The replica has what takes a member of a replication group back into it; yields what that leaves behind when it runs."""
    unit, drop_in = "/etc/systemd/system/mysql-group.service", "/etc/systemd/system/mysql.service.d/webstack-group.conf"
    REPLICA.check_output(
        f"printf '[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/joined\n# --peer http://172.30.72.11:9999/\n' >{unit};"
        f"printf '[Service]\nExecStartPost=-+/usr/bin/systemctl start mysql-group.service\n' >{drop_in}; systemctl daemon-reload"
    )
    yield "/run/joined"
    REPLICA.check_output(f"rm -f {unit} {drop_in} /run/joined; systemctl daemon-reload")


def test_after_a_restore_the_logs_of_the_undone_future_are_not_applied(mistake, member):
    streamed_by = lab.wait_until(lambda: len(listing()["binlogs"]) > 1 and listing()["binlogs"])
    assert streamed_by[-1]["name"] != streamed_by[0]["name"]
    sql(
        REPLICA,
        "SET GLOBAL super_read_only = OFF; INSERT site.note VALUES (5, 'another future'); SET GLOBAL super_read_only = ON",
    )
    own = executed(REPLICA)
    lab.wait_until(lambda: sql(REPLICA, f"SELECT GTID_SUBSET('{own}', '{listing()['binlogs'][-1]['to']}')") == "1", 30)
    done = restore_here("--over --dry-run")
    assert done.rc == 1
    assert "go two ways" in done.stderr
    # What it wrote is undone by the same means.
    done = restore(restore_before_gtid=mistake["gtid"], restore_over="mysql-backup-replica")
    assert done.returncode == 0, done.stdout
    assert rows() == mistake["rows"]
    assert "is in no group" in done.stdout
    assert "mysql_group_force=172.30.72.12" in done.stdout
    assert "failover" not in done.stdout
    assert not REPLICA.file(member).exists, "it would have joined the group again"
    follow_again()
    assert rows() == rows(node=PRIMARY) == {1}
    REPLICA.check_output("systemctl restart mysql")
    assert REPLICA.file(member).exists, "as after any other start"


def test_the_stream_goes_on_after_a_restart_of_the_server():
    lines = [line["name"] for line in listing()["binlogs"]]
    REPLICA.check_output("systemctl restart mysql")
    sql(PRIMARY, "INSERT IGNORE site.note VALUES (2, 'after the restart')")
    streamed()
    assert [line["name"] for line in listing()["binlogs"]] == lines
    lab.wait_until(lambda: not REPLICA.run(f"ls /var/backups/mysql/binlogs/{lines[-1]}/*.before").stdout, 30)
    assert lab.wait_until(lambda: time.time() - metric("stream_timestamp_seconds") < 10)


def test_the_stream_that_is_interrupted_goes_on_where_it_was():
    REPLICA.check_output("systemctl stop mysql-backup-stream")
    assert "Binlog Dump" not in sql(REPLICA, "SHOW PROCESSLIST"), "mysqld would wait for it when it stops"
    sql(PRIMARY, "INSERT IGNORE site.note VALUES (3, 'while nobody copied')")
    caught_up()
    sql(REPLICA, "FLUSH LOCAL BINARY LOGS")
    lines = len(listing()["binlogs"])
    REPLICA.check_output("systemctl start mysql-backup-stream")
    streamed()
    assert len(listing()["binlogs"]) == lines


def files(node, directory):
    """The checksums of all files of a copy."""
    return node.check_output(f"cd {directory} && find . -mindepth 2 -type f ! -name '.*' -exec sha256sum {{}} + | sort")


def test_everything_is_restored_from_a_copy(mistake):
    assert run_unit("backup")
    with writing(20000) as acknowledged:
        time.sleep(0.5)
    streamed()
    assert run_unit("copy")
    for target in ("/srv/copy", "root@172.30.72.11:/srv/by-ssh/replica", "away:backups/replica"):
        assert time.time() - metric(f'copy_timestamp_seconds{{target="{target}"}}') < 30
    REPLICA.check_output("systemctl stop mysql && rm -rf /var/lib/mysql/*")
    held = files(REPLICA, "/srv/copy")
    assert "data.tar.zst" in held
    assert files(PRIMARY, "/srv/by-ssh/replica") == files(PRIMARY, "/srv/by-s3/backups/replica") == held
    REPLICA.check_output("rclone --config=/etc/mysql/webstack-rclone.conf copy away:backups/replica /srv/fetched")
    done = restore(restore_from="/srv/fetched")
    assert done.returncode == 0, done.stdout
    assert rows() == rows(node=PRIMARY) >= set(acknowledged)
    follow_again()


def test_verification_tells_a_damaged_backup_from_a_good_one():
    archive = f"{FULL}/{newest()}/data.tar.zst"
    flip = f"python3 -c \"f = open('{archive}', 'r+b'); f.seek(5000); b = f.read(1)[0]; f.seek(5000); f.write(bytes([b ^ 1]))\""
    REPLICA.check_output(flip)
    try:
        before = state()
        done = restore_here("--over")
        assert done.rc == 1
        assert "is damaged" in done.stderr
        assert state() == before
        assert not run_unit("verify")
        assert metric("verify_success") == 0
        assert metric("verified_timestamp_seconds") < metric("timestamp_seconds")
    finally:
        REPLICA.check_output(flip)
    assert run_unit("verify")
    assert metric("verify_success") == 1
    assert metric("verified_timestamp_seconds") == metric("timestamp_seconds")
    assert time.time() - metric("verify_timestamp_seconds") < 60
    assert not REPLICA.run("pgrep -f '[w]ebstack/verify'").stdout


def make_old(name, backup, verified):
    """A backup of the first of January 2001."""
    manifest = f"{FULL}/{name}/manifest.json"
    edit = f"import json; p = '{manifest}'; m = json.load(open(p)); m.update(begin=978307100, end=978307200); json.dump(m, open(p, 'w'))"
    REPLICA.check_output(
        f'cp -a {FULL}/{backup} {FULL}/{name} && rm -f {FULL}/{name}/verified.json && python3 -c "{edit}"'
    )
    if verified:
        REPLICA.check_output(f"echo '{{\"ok\": true}}' >{FULL}/{name}/verified.json")


@pytest.fixture(scope="module")
def frugal():
    """The role with other settings: backups are encrypted, and go as soon as they may."""
    REPLICA.check_output("command -v age-keygen || apt-get install -qq --no-install-recommends age")
    REPLICA.check_output("rm -f /root/backup.age; age-keygen -o /root/backup.age")
    done = configure(
        mysql_backup_keep=1,
        mysql_backup_keep_days=1,
        mysql_backup_age_recipient=REPLICA.check_output("age-keygen -y /root/backup.age"),
        mysql_backup_age_identity_file="/root/backup.age",
    )
    assert done.returncode == 0, done.stdout


def test_old_backups_go_with_their_binary_logs_and_the_newest_verified_one_stays(frugal):
    recent = [backup["name"] for backup in listing()["backups"]]
    make_old("20010101T000000Z", recent[0], verified=True)
    make_old("20010101T000001Z", recent[0], verified=False)
    sql(REPLICA, "FLUSH LOCAL BINARY LOGS")
    assert run_unit("backup")
    assert [backup["name"] for backup in listing()["backups"]][1:] == recent, "what is younger than a day stays"
    assert len(listing()["binlogs"]) > 1, "older backups still need the logs of before the restores"
    for name in recent:
        REPLICA.check_output(f"rm -r {FULL}/{name}")
    make_old("20010101T000002Z", newest(), verified=True)
    REPLICA.check_output(f"{PROGRAM} prune")
    assert [backup["name"] for backup in listing()["backups"]][1:] == ["20010101T000002Z"]
    REPLICA.check_output(f"rm -r {FULL}/20010101T000002Z; {PROGRAM} prune")
    streamed()
    assert [line["files"] for line in listing()["binlogs"]] == [1]


def test_an_encrypted_backup_comes_back_with_its_key_alone(frugal):
    archive = f"{FULL}/{newest()}/data.tar.zst.age"
    assert REPLICA.check_output(f"head -c 21 {archive}") == "age-encryption.org/v1"
    assert run_unit("verify")
    assert metric("verify_success") == 1
    REPLICA.check_output("age-keygen -o /root/other.age 2>/dev/null || true")
    other = restore_here("--side --identity /root/other.age")
    assert other.rc == 1
    assert "could not be unpacked: age" in other.stderr
    # What retention has left of the binary logs suffices.
    REPLICA.check_output("mv /root/backup.age /root/elsewhere.age")
    done = restore(restore_to="side", restore_identity="/root/elsewhere.age")
    REPLICA.check_output("mv /root/elsewhere.age /root/backup.age")
    assert done.returncode == 0, done.stdout
    assert rows(SIDE) == rows()
    REPLICA.check_output("systemctl stop mysql-side")


@pytest.fixture
def small():
    """File systems on the replica that have no room, and that nobody may write to."""
    REPLICA.check_output(
        "mkdir -p /mnt/full /mnt/ro && mount -t tmpfs -o size=1m tmpfs /mnt/full && mount -t tmpfs -o ro tmpfs /mnt/ro"
    )
    yield
    REPLICA.run("umount /mnt/full /mnt/ro")


def test_bad_settings_are_refused_and_the_old_ones_stay(small):
    recipient = {"mysql_backup_age_recipient": "age1none", "mysql_backup_age_identity_file": ""}
    settings = "cat /etc/mysql/webstack-backup.json /etc/systemd/system/mysql-backup*"
    before = REPLICA.check_output(settings)
    refused = [
        ({"mysql_backup_keep": 0}, "mysql_backup_keep is 0: at least 1"),
        ({"mysql_backup_directory": "/mnt/full"}, "/mnt/full has", "MiB free"),
        ({"mysql_backup_directory": "/mnt/ro"}, "/mnt/ro", "ead-only"),
        ({"mysql_backup_schedule": "at dawn"}, "dawn"),
        (recipient, "nothing can be verified without the key"),
        ({**recipient, "mysql_backup_verify_schedule": ""}, "age rejects", "age1none"),
    ]
    lab.assert_refused("mysql_backup", refused)
    assert REPLICA.check_output(settings) == before
    assert REPLICA.service("mysql-backup-stream").is_running


def test_a_backup_without_room_is_refused_and_the_node_is_as_before(small):
    REPLICA.check_output("sed 's,/var/backups/mysql,/mnt/full,' /etc/mysql/webstack-backup.json >/root/small.json")
    done = REPLICA.run(f"{PROGRAM} --config=/root/small.json backup")
    assert done.rc == 1
    assert re.search(r"/mnt/full has \d MiB free, and \d+ MiB are needed", done.stderr)
    assert REPLICA.check_output("ls -A /mnt/full /var/lib/mysql-files/webstack").split() == [
        "/mnt/full:",
        ".lock",
        "/var/lib/mysql-files/webstack:",
    ]


def test_the_primary_is_spared_unless_it_is_asked_for():
    count = len(listing()["backups"])
    sql(REPLICA, "FLUSH LOCAL BINARY LOGS")
    streamed()
    lab.wait_until(lambda: listing()["binlogs"][-1]["files"] > 1)
    line = f"/var/backups/mysql/binlogs/{listing()['binlogs'][-1]['name']}"
    old = REPLICA.check_output(f"ls {line} | head -1")
    REPLICA.check_output(f"touch --date='40 days ago' {line}/{old}")
    assert {"timestamp_seconds", "verify_success", "stream_timestamp_seconds"} <= metrics().keys()
    sql(REPLICA, "STOP REPLICA; SET GLOBAL super_read_only = OFF")
    try:
        done = REPLICA.run(f"{PROGRAM} backup")
        assert done.rc == 0
        assert "it is spared" in done.stderr
        assert len(listing()["backups"]) == count
        assert REPLICA.run(f"ls {line}/{old}").rc != 0, "the binary logs of a primary would fill its disk"
        verification = listing()["verification"]
        assert run_unit("verify")
        assert listing()["verification"] == verification
        assert not {"timestamp_seconds", "verify_success"} & metrics().keys(), "neither is due"
        time.sleep(6)  # the stream exports, too
        assert not {"timestamp_seconds", "verify_success"} & metrics().keys()
        time.sleep(1)
        assert REPLICA.run(f"{PROGRAM} backup --on-primary").rc == 0
        assert len(listing()["backups"]) == count + 1
    finally:
        sql(REPLICA, "SET GLOBAL super_read_only = ON; START REPLICA")


def test_the_timers_run():
    timers = REPLICA.check_output("systemctl list-timers --no-legend 'mysql-backup@*'")
    for work in ("backup", "verify", "copy"):
        assert f"mysql-backup@{work}.timer" in timers


def test_a_node_that_was_restored_becomes_the_primary_and_the_others_follow_it():
    caught_up()
    held = rows(node=PRIMARY)
    assert run_unit("backup")
    with writing(40000) as wanted:
        time.sleep(0.3)
    before = executed(PRIMARY)
    sql(PRIMARY, "DELETE FROM site.note")
    undone = sql(PRIMARY, f"SELECT GTID_SUBTRACT('{executed(PRIMARY)}', '{before}')")
    streamed()
    done = restore(restore_before_gtid=undone, restore_over="mysql-backup-replica", restore_identity="/root/backup.age")
    assert done.returncode == 0, done.stdout
    # What the playbook says to do then.
    assert "stop the one that is writable" in done.stdout
    choice = {"primary": "mysql-backup-replica", "confirm": "mysql-backup-replica"}
    refused = playbook("failover", **choice, accept_loss=True)
    assert "mysql-backup-primary is writable" in refused.stdout
    PRIMARY.check_output("systemctl stop mysql")
    done = playbook("failover", **choice, accept_loss=True)
    assert done.returncode == 0, done.stdout
    sql(REPLICA, "INSERT site.note VALUES (50000, 'after the restore')")
    done = playbook("rejoin", node="mysql-backup-primary")
    assert done.returncode == 0, done.stdout
    gtids = executed(REPLICA)
    assert sql(PRIMARY, f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', 30)") == "0"
    assert rows(node=PRIMARY) == rows() >= {50000, *held, *wanted}
    assert "1 transactions" in done.stdout, "what was undone is on the old primary, to look at"
    done = playbook("switchover", primary="mysql-backup-primary")
    assert done.returncode == 0, done.stdout
    sql(PRIMARY, "INSERT site.note VALUES (50001, 'as it was')")
    caught_up()
    assert rows() == rows(node=PRIMARY) >= {50000, 50001}
