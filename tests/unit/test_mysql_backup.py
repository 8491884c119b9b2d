"""What the backup program decides: which backup, which binary logs, how far, and what may go."""

import json
import os
import re
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import gtid

sys.path.insert(0, str(Path(__file__).parents[2] / "roles/mysql_backup/files/usr/local/libexec/mysql_backup"))
sys.modules["gtid"] = gtid  # which lies beside the others on a host
import backups  # noqa: E402
import decisions  # noqa: E402
import restore  # noqa: E402
from binlog import previous_gtids, transactions  # noqa: E402
from common import Refused  # noqa: E402
from store import Store  # noqa: E402

GtidSet = gtid.GtidSet
A, B = (f"{letter * 8}-{letter * 4}-{letter * 4}-{letter * 4}-{letter * 12}" for letter in "ab")
DAY = 86400
NOW = 1_000_000_000.0


def gtids(text):
    """A set, with a and b for two servers."""
    return GtidSet(text.replace("a:", f"{A}:").replace("b:", f"{B}:"))


# Binary logs as mysqld writes them.


def event(kind, body, checksum=b"sum!"):
    return struct.pack("<IBIIIH", 0, kind, 1, 19 + len(body) + len(checksum), 0, 0) + body + checksum


def previous(**sets):
    body = struct.pack("<Q", len(sets))
    for server, intervals in sets.items():
        body += bytes.fromhex(server * 32) + struct.pack("<Q", len(intervals))
        body += b"".join(struct.pack("<QQ", first, last + 1) for first, last in intervals)
    return event(35, body)


def transaction(server, number, committed=0.0, size=40, replicated=False):
    rest = event(2, b"x" * size) + event(16, b"xid")
    micro = int(committed * 1e6)
    times = (
        (1 << 55 | 7).to_bytes(7, "little") + micro.to_bytes(7, "little") if replicated else micro.to_bytes(7, "little")
    )
    fixed = b"\0" + bytes.fromhex(server * 32) + struct.pack("<Q", number) + b"\2" + bytes(16) + times
    versions = struct.pack("<I", 90704)
    for width in (1, 3, 4, 9):
        whole = 19 + len(fixed) + width + len(versions) + 4 + len(rest)
        if whole < (251, 1 << 16, 1 << 24, 1 << 64)[(1, 3, 4, 9).index(width)]:
            break
    length = (
        whole.to_bytes(1, "little")
        if width == 1
        else bytes([{3: 252, 4: 253, 9: 254}[width]]) + whole.to_bytes(width - 1, "little")
    )
    return event(33, fixed + length + versions) + rest


def log(*events):
    return b"\xfebin" + event(15, bytes(90)) + b"".join(events)


def test_a_binary_log_says_what_was_before_it():
    assert previous_gtids(log(previous(a=[(1, 5), (7, 7)], b=[(1, 2)]))) == gtids("a:1-5:7,b:1-2")
    assert previous_gtids(log(previous())) == GtidSet()


@pytest.mark.parametrize("size", [1, 300, 70_000, 17_000_000])
@pytest.mark.parametrize("replicated", [False, True])
def test_transactions_are_found_with_the_time_of_their_first_commit(size, replicated):
    text = log(
        previous(),
        *(transaction("a", number, NOW + number, size, replicated) for number in (1, 2)),
        event(4, b"rotate"),
    )
    found = list(transactions(text))
    assert [(one.gtid, one.committed) for one in found] == [(f"{A}:1", NOW + 1), (f"{A}:2", NOW + 2)]
    assert found[-1].end == len(text) - len(event(4, b"rotate"))


@pytest.mark.parametrize("cut", [1, 5, 30, 100])
def test_a_transaction_that_is_not_there_as_a_whole_does_not_count(cut):
    text = log(previous(), transaction("a", 1), transaction("a", 2))
    assert [one.gtid for one in transactions(text[:-cut])] == [f"{A}:1"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xfebin" + bytes(60), "damaged at byte 4"),
        (b"\xfd\x62\x69\x6e" + bytes(60), "encrypted"),
        (log(previous(), event(42, b"tag")), "tagged GTIDs"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused(text, reason):
    with pytest.raises(Refused, match=reason):
        list(transactions(text))


# Which binary logs lead from a backup to where.


class Logs:
    """Lines of binary logs on disk. Each file holds some transactions of some servers, committed a second after each other."""

    def __init__(self, directory):
        self.directory, self.clock = directory, NOW
        self.lines = []

    def line(self, base, *files):
        held, made, began = gtids(base), [], self.clock
        name = f"line{len(self.lines)}"
        for number, text in enumerate(files, 1):
            path = self.directory / f"{name}.{number:06}"
            made.append(decisions.LogFile(path, held))
            events = []
            for server, first, last in re.findall(r"(\w):(\d+)(?:-(\d+))?", text):
                for number in range(int(first), int(last or first) + 1):
                    self.clock += 1
                    events.append(transaction(server, number, self.clock))
            path.write_bytes(log(previous(), *events))
            held = held | gtids(text)
        self.lines.append(decisions.Line(name, made, held, began))
        return self

    def target(self, executed, **how):
        found = decisions.segments(self.lines, gtids(executed))
        return decisions.find_target(found, gtids(executed), **how)


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path)


def names(target):
    return [path.name for path, _length in target.files]


def test_all_binary_logs_after_the_backup_are_applied(logs):
    target = logs.line("", "a:1-3", "a:4-6", "a:7-9").target("a:1-5")
    assert names(target) == ["line0.000002", "line0.000003"]
    assert target.expected == gtids("a:1-9")
    assert (target.stop_before, target.last, target.reached) == ("", f"{A}:9", NOW + 9)


def test_a_restore_stops_before_the_transaction_that_is_named(logs):
    target = logs.line("", "a:1-3", "a:4-6", "a:7-9").target("a:1-2", before=f"{A}:5")
    assert names(target) == ["line0.000001", "line0.000002"]
    assert (target.stop_before, target.last) == (f"{A}:5", f"{A}:4")
    assert target.expected == gtids("a:1-4")


def test_a_restore_stops_before_the_first_transaction_of_that_time(logs):
    target = logs.line("", "a:1-3", "a:4-6").target("a:1-2", until=NOW + 4)
    assert (target.stop_before, target.last) == (f"{A}:4", f"{A}:3")


def test_nothing_is_applied_when_nothing_came_after_the_backup(logs):
    target = logs.line("", "a:1-3", "a:4-6").target("a:1-6")
    assert (target.files, target.stop_before, target.expected) == ([], "", gtids("a:1-6"))


def test_a_transaction_that_was_never_logged_is_refused(logs):
    with pytest.raises(Refused, match=r"not in the binary logs, which lead to a{8}"):
        logs.line("", "a:1-3").target("a:1", before=f"{B}:5")


def test_the_half_transaction_at_the_end_is_left_out(logs):
    logs.line("", "a:1-3")
    path = logs.lines[0].files[0].path
    whole = path.read_bytes()
    path.write_bytes(whole + transaction("a", 4)[:-3])
    target = logs.target("a:1")
    assert target.files == [(path, len(whole))]
    assert target.expected == gtids("a:1-3")


def test_the_newest_line_serves_alone_where_it_can(logs):
    logs.line("", "a:1-9").line("a:1-4", "a:5-6,b:1-2")  # a:7-9 was lost in a failover
    assert names(logs.target("a:1-5")) == ["line1.000001"]


def test_an_older_line_leads_up_to_the_newest(logs):
    target = logs.line("", "a:1-3", "a:4-6").line("a:1-6", "b:1-2").target("a:1-4")
    assert names(target) == ["line0.000002", "line1.000001"]
    assert target.expected == gtids("a:1-6,b:1-2")


def test_a_gap_is_refused_unless_the_restore_ends_before_it(logs):
    logs.line("", "a:1-3").line("a:1-5", "a:6-7")
    with pytest.raises(Refused, match=r"gap: line1 begins after a{8}.*:4-5"):
        logs.target("a:1")
    assert logs.target("a:1", before=f"{A}:3").last == f"{A}:2"


def test_logs_that_begin_after_the_backup_are_refused(logs):
    with pytest.raises(Refused, match="gap"):
        logs.line("a:1-5", "a:6-7").target("a:1-3")


def test_transactions_that_a_restore_has_undone_are_not_applied_again(logs):
    logs.line("", "a:1-6").line("a:1-4", "b:1-2")  # restored to before a:5
    with pytest.raises(Refused, match=r"two ways: line1 does not know a{8}.*:5-6"):
        logs.target("a:1-2")
    assert logs.target("a:1-2", before=f"{A}:5").last == f"{A}:4"
    assert logs.target("a:1-4").expected == gtids("a:1-4,b:1-2")


# Which backup.


def backup(name, end, executed="a:1", **more):
    text = str(gtids(executed))
    return {
        "name": name,
        "begin": end - 10,
        "end": end,
        "size": 7,
        "gtid_executed": text,
        "gtid_executed_end": text,
        **more,
    }


BACKUPS = [backup("new", NOW, "a:1-9"), backup("middle", NOW - DAY, "a:1-5"), backup("old", NOW - 2 * DAY, "a:1-3")]


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ({}, "new"),
        ({"name": "old"}, "old"),
        ({"until": NOW + 1}, "new"),
        ({"until": NOW - 1}, "middle"),
        ({"before": f"{A}:10"}, "new"),
        ({"before": f"{A}:9"}, "middle"),
        ({"before": f"{A}:4"}, "old"),
    ],
)
def test_the_newest_backup_that_can_lead_there_is_taken(how, name):
    assert decisions.choose(BACKUPS, **how)["name"] == name


@pytest.mark.parametrize(
    ("backups", "how", "reason"),
    [
        ([], {}, "no backup here"),
        (BACKUPS, {"name": "other"}, "no backup 'other'"),
        (BACKUPS, {"until": NOW - 3 * DAY}, "every backup here is newer than 2001"),
        (BACKUPS, {"before": f"{A}:2"}, "every backup here holds"),
        (BACKUPS, {"name": "new", "before": f"{A}:4"}, "the backup new holds"),
    ],
)
def test_a_backup_that_cannot_lead_there_is_refused(backups, how, reason):
    with pytest.raises(Refused, match=reason):
        decisions.choose(backups, **how)


# What may go.


@pytest.mark.parametrize(
    ("ages", "keep", "days", "gone"),
    [
        ([0, 1, 2, 3], 2, 1, [2, 3]),
        ([0, 1, 2, 3], 1, 10, []),
        ([5, 6, 7], 2, 1, [7]),
        ([5], 1, 1, []),
    ],
)
def test_a_backup_goes_when_it_is_old_and_enough_are_newer(ages, keep, days, gone):
    backups = [backup(f"{age}", NOW - age * DAY - 60) for age in ages]
    assert decisions.expired(backups, NOW, keep, days) == [f"{age}" for age in gone]


def test_the_newest_verified_backup_stays_whatever_its_age():
    backups = [backup(f"{age}", NOW - age * DAY, verified=age in (8, 9)) for age in (5, 6, 7, 8, 9)]
    assert decisions.expired(backups, NOW, 1, 1) == ["6", "7", "9"]


def test_binary_logs_go_when_no_kept_backup_needs_them(logs):
    lines = logs.line("", "a:1-3", "a:4-6", "a:7-9").lines
    paths, over = decisions.unneeded(lines, [backup("new", NOW, "a:1-9"), backup("old", NOW - DAY, "a:1-6")])
    assert ([path.name for path in paths], over) == (["line0.000001", "line0.000002"], [])


def test_the_file_that_is_being_written_stays(logs):
    lines = logs.line("", "a:1-3").lines
    assert decisions.unneeded(lines, [backup("new", NOW, "a:1-3")]) == ([], [])


def test_a_line_that_ended_before_the_oldest_backup_goes_as_a_whole(logs):
    lines = logs.line("", "a:1-3", "a:4-5").line("a:1-3", "b:1").lines
    assert decisions.unneeded(lines, [backup("new", logs.clock + 100, "a:1-3,b:1")]) == ([], ["line0"])
    assert decisions.unneeded(lines, [backup("new", NOW + 11, "a:1-2")]) == ([], [])


def test_what_was_undone_before_the_backup_does_not_count(logs):
    """A line that a restore has ended holds transactions that neither the backup nor a later line knows."""
    logs.line("", "a:1-3").line("a:1-3", "b:1").line("a:1-3", "a:4-5").line("a:1-5", "a:6")
    executed = gtids("a:1-4")
    found = decisions.segments(decisions.since(logs.lines, NOW + 5), executed)
    assert decisions.find_target(found, executed).expected == gtids("a:1-6")


def test_no_binary_log_goes_while_there_is_no_backup(logs):
    assert decisions.unneeded(logs.line("", "a:1-3", "a:4-5").lines, []) == ([], [])


@pytest.mark.parametrize(
    ("kept", "days"),
    [
        pytest.param([], 7, id="without a backup as long as backups are kept"),
        pytest.param([20, 21, 22], 7, id="with few backups as well"),
        pytest.param([20, 30, 49], 29, id="as far as they reached when the last one was made"),
    ],
)
def test_binary_logs_on_a_spared_primary_reach_back_as_long_as_backups_are_kept(kept, days):
    made = [{"begin": NOW - age * DAY, "end": NOW - age * DAY} for age in kept]
    assert decisions.out_of_reach(made, NOW, 7) == NOW - days * DAY


def log_files(name, *ages):
    written = [NOW - age * DAY for age in ages]
    files = [decisions.LogFile(Path(f"{name}.{number}"), GtidSet(), at) for number, at in enumerate(written, 1)]
    return decisions.Line(name, files, GtidSet())


@pytest.mark.parametrize(
    ("lines", "files", "gone"),
    [
        ([("a", 9, 8, 2, 1)], ["a.1", "a.2"], []),
        pytest.param([("a", 9, 8)], ["a.1"], [], id="the file that is being written stays"),
        pytest.param([("a", 9), ("b", 8, 1)], ["b.1"], ["a"], id="a line goes as a whole"),
        pytest.param([("a", 9, 2), ("b", 1)], ["a.1"], [], id="a line that has ended goes file by file"),
        pytest.param([("a", 9, 2, 8, 1)], ["a.1"], [], id="no line gets a gap"),
    ],
)
def test_old_binary_logs_go(lines, files, gone):
    paths, past = decisions.outdated([log_files(*line) for line in lines], NOW - 7 * DAY)
    assert ([str(path) for path in paths], past) == (files, gone)


class Primary:
    """The directory of the backups on a node that is open for writes, whose binary logs are one transaction a file."""

    def __init__(self, directory, monkeypatch):
        self.store, self.line = Store(str(directory / "store")), directory / "store/binlogs/uuid.1"
        self.line.mkdir(parents=True)
        self.metrics = directory / "webstack_mysql_backup.prom"
        (self.line / "line.json").write_text(json.dumps({"base": "", "began": 1}))
        self.config = {**CONFIG, "keep": 2, "keep_days": 7, "metrics_directory": str(directory), "identity": ""}
        monkeypatch.setattr(backups, "spared", lambda _config: True)

    def logs(self, *ages):
        for number, age in enumerate(ages, 1):
            path = self.line / f"binlog.{number:06}"
            path.write_bytes(log(previous(a=[(1, number - 1)] if number > 1 else []), transaction("a", number)))
            os.utime(path, (time.time() - age * DAY,) * 2)

    def backup(self, age, executed):
        made = self.store.full / f"{age}"
        made.mkdir(parents=True)
        (made / "manifest.json").write_text(json.dumps(backup("", time.time() - age * DAY, executed)))

    def prune(self):
        assert backups.prune(self.config, self.store, None) == 0
        return [int(path.suffix[1:]) for path in sorted(self.line.glob("binlog.*"))]


@pytest.fixture
def primary(tmp_path, monkeypatch):
    return Primary(tmp_path, monkeypatch)


def test_a_spared_primary_without_backups_keeps_no_old_binary_logs(primary, monkeypatch):
    primary.logs(30, 20, 8, 6, 0)
    assert primary.prune() == [4, 5]
    monkeypatch.setattr(backups, "spared", lambda _config: False)
    primary.logs(30, 20, 8, 6, 0)
    assert primary.prune() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("since", "left"), [(0, [1, 2, 3, 4, 5, 6]), (5, [3, 4, 5, 6]), (9, [4, 5, 6])])
def test_backups_of_a_primarys_time_as_a_replica_keep_their_binary_logs_as_long_as_if_backups_went_on(
    primary, since, left
):
    # As a replica it kept what led to any moment of 14 days.
    primary.logs(*(age + since for age in (13, 10, 6, 1, 0)), 0)
    primary.backup(since + 14, "")
    primary.backup(since, "a:1-5")
    assert primary.prune() == left
    assert [made["name"] for made in primary.store.backups()] == [f"{since}", f"{since + 14}"]
    options = SimpleNamespace(until=None, before_gtid=None, name="", no_binlogs=False)
    _chosen, target = restore.plan(primary.store, options)
    assert target.expected == gtids("a:1-6")


def test_a_backup_whose_binary_logs_have_gone_is_restored_without_any(primary):
    primary.logs(30, 20, 10, 0)
    primary.backup(25, "a:1")
    assert primary.prune() == [4]
    options = SimpleNamespace(until=None, before_gtid=None, name="", no_binlogs=False)
    with pytest.raises(Refused, match=r"gap.*restore_binlogs=false"):
        restore.plan(primary.store, options)
    options.no_binlogs = True
    chosen, target = restore.plan(primary.store, options)
    assert (chosen["name"], target.files, target.expected) == ("25", [], gtids("a:1"))


def test_a_primary_that_is_spared_verifies_nothing_and_raises_no_alarm(primary, capsys):
    primary.backup(25, "a:1")
    assert backups.verify(primary.config, primary.store, SimpleNamespace(name="", identity="")) == 0
    assert "it is spared" in capsys.readouterr().err
    assert not primary.metrics.read_text().strip()
    assert not (primary.store.path / "verification.json").exists()
    with pytest.raises(Refused, match="no backup 'other'"):
        backups.verify(primary.config, primary.store, SimpleNamespace(name="other", identity=""))


# The stream.

SERVER = [("binlog.000002", 900), ("binlog.000003", 500)]


@pytest.mark.parametrize(
    ("local", "there", "begin"),
    [
        pytest.param(("binlog.000003", 400, GtidSet()), GtidSet(), "binlog.000003", id="it goes on where it stopped"),
        pytest.param(
            ("binlog.000002", 900, GtidSet()), GtidSet(), "binlog.000002", id="a file that is complete is read again"
        ),
        pytest.param(("binlog.000001", 400, GtidSet()), None, "", id="what follows was purged"),
        pytest.param(("binlog.000003", 600, GtidSet()), GtidSet(), "", id="the server began anew and is shorter"),
        pytest.param(
            ("binlog.000003", 400, gtids("a:1-2")), GtidSet(), "", id="the server began anew with another past"
        ),
        pytest.param(None, None, "", id="nothing was copied yet"),
    ],
)
def test_the_stream_goes_on_or_begins_another_line(local, there, begin):
    assert decisions.resume(local, SERVER, there) == begin


def test_a_file_that_is_copied_again_counts_with_its_longer_copy(tmp_path):
    store = Store(str(tmp_path))
    for name, size in (("binlog.000002", 3), ("binlog.000010", 2), ("binlog.000010.before", 5), ("line.json", 9)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert [path.name for path in store.logs(tmp_path)] == ["binlog.000002", "binlog.000010.before"]
    (tmp_path / "binlog.000010").write_bytes(b"x" * 6)
    assert [path.name for path in store.logs(tmp_path)] == ["binlog.000002", "binlog.000010"]


# The rest.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2001-09-09 01:46:40", NOW),
        ("2001-09-09T03:46:40+02:00", NOW),
        ("2001-09-09 01:46:40.5", NOW + 0.5),
        ("2001-09-09", NOW - 6400),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text, seconds, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert decisions.moment(text) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_is_no_time_is_refused():
    with pytest.raises(Refused, match="'noon' is no time"):
        decisions.moment("noon")


@pytest.mark.parametrize(
    "version",
    ["8.0.36", "mysqld  Ver 8.3.0 for Linux on x86_64", "mysqld  Ver 10.11.6-MariaDB", "11.4.2-MariaDB-1", "nonsense"],
)
def test_other_servers_than_mysql_8_4_are_refused(version):
    with pytest.raises(Refused, match=r"MySQL 8\.4 or later is needed"):
        decisions.supported(version)


def test_a_newer_mysql_is_taken():
    assert decisions.supported("/usr/sbin/mysqld  Ver 9.7.4-1 for Linux") == (9, 7, 4)


def test_a_file_system_without_room_is_refused_with_what_is_missing():
    assert decisions.space_fault("/var/backups/mysql", 500 << 20, 600 << 20) == ""
    assert "/var/backups/mysql has 100 MiB free, and 564 MiB are needed" in decisions.space_fault(
        "/var/backups/mysql", 500 << 20, 100 << 20
    )


def test_metrics_tell_times_and_not_ages():
    backups = [backup("new", NOW, verified=False), backup("old", NOW - DAY, verified=True)]
    text = decisions.metrics(backups, {"at": NOW + 5, "ok": True}, {"complete": NOW + 7}, {"host:/srv": NOW + 9})
    values = dict(line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    assert values == {
        "webstack_mysql_backup_timestamp_seconds": "1000000000",
        "webstack_mysql_backup_size_bytes": "7",
        "webstack_mysql_backup_verified_timestamp_seconds": f"{NOW - DAY:.0f}",
        "webstack_mysql_backup_verify_timestamp_seconds": "1000000005",
        "webstack_mysql_backup_verify_success": "1",
        "webstack_mysql_backup_stream_timestamp_seconds": "1000000007",
        'webstack_mysql_backup_copy_timestamp_seconds{target="host:/srv"}': "1000000009",
    }


def test_metrics_of_a_node_without_backups_say_never():
    text = decisions.metrics([], {}, {}, {})
    assert "webstack_mysql_backup_timestamp_seconds 0\n" in text
    assert "webstack_mysql_backup_verify_timestamp_seconds 0\n" in text
    assert "verify_success" not in text, "nothing has failed yet"
    assert "stream" not in text


def test_metrics_of_a_spared_primary_tell_its_stream_and_copies_alone():
    made, state = [backup("old", NOW - 30 * DAY)], {"at": NOW - 30 * DAY, "ok": False}
    text = decisions.metrics(made, state, {"complete": NOW}, {"/srv": NOW}, spared=True)
    assert re.findall(r"^webstack_mysql_backup_(\w+)", text, re.MULTILINE) == [
        "stream_timestamp_seconds",
        "copy_timestamp_seconds",
    ]


CONFIG = {
    "directory": "/var/backups/mysql",
    "work_directory": "/var/lib/mysql-files/w",
    "keep": 1,
    "keep_days": 1,
    "recipient": "",
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep": 0}, "mysql_backup_keep: 0 is below 1"),
        ({"keep_days": -1}, "mysql_backup_keep_days: -1 is below 1"),
        ({"directory": "backups"}, "mysql_backup_directory: 'backups' is no absolute path"),
    ],
)
def test_settings_that_cannot_work_are_named(wrong, message):
    assert decisions.faults(CONFIG) == []
    assert message in decisions.faults({**CONFIG, **wrong})[0]


def test_plain_binary_logs_do_not_follow_encrypted_backups_to_another_place():
    def excluded(recipient="", **copy):
        return "--exclude=/binlogs" in backups.copy_command(
            {**CONFIG, "recipient": recipient}, {"target": "/srv", **copy}
        )

    assert not excluded()
    assert excluded(recipient="age1x")
    assert not excluded(recipient="age1x", binlogs=True)
    assert excluded(binlogs=False)


def test_copies_delete_only_where_they_are_told_to():
    def command(**copy):
        return backups.copy_command(CONFIG, {"target": "s3:bucket", **copy})

    assert "--delete-after" not in command()
    assert "--delete-after" in command(delete=True)
    assert command(tool="rclone")[2] == "copy"
    assert command(tool="rclone", delete=True)[2] == "sync"


def test_a_restored_instance_is_reached_by_its_socket_alone():
    options = decisions.instance_options(Path("/work/side"), {"lower_case_table_names": 1}, 128 << 20).splitlines()
    assert {
        "skip_networking = ON",
        "mysqlx = OFF",
        "skip_log_bin",
        "skip_replica_start = ON",
        "super_read_only = ON",
    } <= set(options)
    assert "lower_case_table_names = 1" in options


# What a restore must not touch.

HELP = """\
mysqld  Ver 9.7.4 for Linux on x86_64
  --datadir=name      Path to the database root directory

Variables (--variable-name=value)
and boolean options {FALSE|TRUE}                             Value (after reading options)
------------------------------------------------------------ -------------
datadir                                                      /srv/mysql/
innodb-undo-directory                                        (No default value)
log-bin                                                      binlog
init-connect                                                 
tmpdir                                                       /srv/tmp

To see what values a running MySQL server is using, type
'mysqladmin variables' instead of 'mysqld --verbose --help'.
"""  # noqa: W291


def test_the_options_of_mysqld_are_read():
    assert decisions.options_of(HELP) == {
        "datadir": "/srv/mysql/",
        "log-bin": "binlog",
        "init-connect": "",
        "tmpdir": "/srv/tmp",
    }


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"log-bin": "binlog", "innodb-data-home-dir": "", "innodb-data-file-path": "ibdata1:12M:autoextend"}, []),
        ({"log-bin": "/srv/mysql/logs/binlog", "innodb-undo-directory": "./"}, []),
        ({"log-bin": "/var/log/mysql/binlog"}, ["log_bin=/var/log/mysql/binlog"]),
        (
            {"relay-log": "../relay", "innodb-log-group-home-dir": "/srv/mysql-redo"},
            ["relay_log=../relay", "innodb_log_group_home_dir=/srv/mysql-redo"],
        ),
    ],
)
def test_data_outside_of_the_data_directory_is_found(options, found):
    assert decisions.elsewhere(options, Path("/srv/mysql")) == found


def test_a_restore_replaces_the_data_directory_that_is_configured(monkeypatch):
    monkeypatch.setattr(restore, "configured", lambda: decisions.options_of(HELP))
    assert restore.data_directory([Path("/var/backups/mysql")]) == Path("/srv/mysql")
    with pytest.raises(Refused, match=r"/srv/mysql/backups lies in the data directory .* Nothing was changed"):
        restore.data_directory([Path("/srv/mysql/backups"), Path("/var/lib/mysql-files/webstack")])
    monkeypatch.setattr(restore, "configured", lambda: {"datadir": "/srv/mysql/", "log-bin": "/var/log/mysql/binlog"})
    with pytest.raises(Refused, match=r"log_bin=/var/log/mysql/binlog.*restore_to=side.*Nothing was changed"):
        restore.data_directory([])


@pytest.fixture
def peer():
    """The state service of another member, which says what it is told to."""
    said = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", said
    server.shutdown()
    server.server_close()


def test_no_member_is_restored_while_its_group_works_without_it(peer, tmp_path, monkeypatch):
    monkeypatch.setattr(restore, "GROUP_UNIT", tmp_path / "mysql-group.service")
    restore.refuse_working_group()
    url, said = peer
    restore.GROUP_UNIT.write_text(
        f"[Service]\nExecStart=mysql_group.py --node http://x/ --peer http://127.0.0.1:1/ --peer {url}\n"
    )
    for group in ({}, {"group": None}, {"group": {"quorum": False}}):
        said.update(group)
        restore.refuse_working_group()
    said["group"] = {"quorum": True}
    with pytest.raises(Refused, match=r"group, which works without it \(http://127.*Nothing was changed.*stop mysql"):
        restore.refuse_working_group()


def test_nothing_opens_a_restored_node_nor_takes_it_into_a_group_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(restore, "RUNTIME_UNITS", tmp_path)
    told = []
    monkeypatch.setattr(restore, "systemctl", lambda *words: told.append(words))
    with restore.kept_fenced():
        for unit in ("mysql-open", "mysql-group"):
            drop_in = tmp_path / f"{unit}.service.d/restore.conf"
            assert f"ConditionPathExists=!{drop_in}\n" in drop_in.read_text()
    assert list(tmp_path.iterdir()) == []
    assert told == [("daemon-reload",)] * 2
