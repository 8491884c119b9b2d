"""Which backup, which binary logs, how far, and what may go: pure functions over what was found."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from binlog import MAGIC, Transactions, mapped, transactions
from common import Refused
from gtid import GtidSet

OLDEST = (8, 4)
SPARE = 64 << 20  # bytes that stay free
# Binary logs are skipped by a server whose number they carry; no node has this one.
SCRATCH_SERVER_ID = 4294967294


@dataclass
class LogFile:
    path: Path
    previous: GtidSet  # what the server had executed before the file
    written: float = 0.0  # when something was last added to it, in seconds since 1970


@dataclass
class Line:
    """Binary logs of one server that follow each other."""

    name: str
    files: list[LogFile]
    end: GtidSet  # what it held after the last
    began: float = 0.0  # when its first file was copied, in seconds since 1970

    @property
    def begin(self) -> GtidSet:
        return self.files[0].previous


@dataclass
class Segment:
    """Files to apply, and why nothing must be applied after them ("" for the last one)."""

    files: list[Path]
    obstacle: str = ""


@dataclass
class Target:
    """What a restore applies to the backup: the files' first bytes, up to a transaction or all of them."""

    files: list[tuple[Path, int]] = field(default_factory=list)
    stop_before: str = ""
    expected: GtidSet = field(default_factory=GtidSet)
    last: str = ""  # last transaction that is applied
    reached: float = 0.0  # when that was committed


def _needed(line: Line, held: GtidSet) -> list[Path]:
    """The files of a line from the last one on that nothing is missing before."""
    begin = max(number for number, file in enumerate(line.files) if file.previous <= held)
    return [file.path for file in line.files[begin:]]


def since(lines: list[Line], moment: float) -> list[Line]:
    """The line that was written at that moment, and those that began later. What ended before is past, or was undone by a restore."""
    begun = [number for number, line in enumerate(lines) if line.began <= moment]
    return lines[begun[-1] :] if begun else lines


def segments(lines: list[Line], executed: GtidSet) -> list[Segment]:
    """What follows a backup that holds ``executed``, of lines that are sorted by their beginning.

    The newest line serves alone if it can: after a failover it has what counts. Where an older one must lead up to it, it may hold
    transactions that the newer one does not know: they were lost in a failover, or undone by a restore, and nothing after them fits.
    """
    if not lines:
        return []
    if lines[-1].begin <= executed:
        return [Segment(_needed(lines[-1], executed))]
    held, found = executed, []
    for line in lines:
        if line.end <= held:
            continue
        missing, extra, obstacle = line.begin - held, held - (executed | line.end), ""
        if missing:
            obstacle = (
                f"The binary logs have a gap: {line.name} begins after {missing}, which nothing here holds. Restore from a backup that "
                "is newer, of another node for example (--from, restore_from), or without binary logs (--no-binlogs, restore_binlogs=false)."
            )
        elif extra:
            obstacle = (
                f"The binary logs go two ways: {line.name} does not know {extra}. Restore to before that, "
                "or from a full backup that is newer."
            )
        if obstacle:
            found = found or [Segment([])]
            found[-1].obstacle = obstacle
            return found
        found.append(Segment(_needed(line, held)))
        held |= line.end
    return found


def find_target(found: list[Segment], executed: GtidSet, until: float | None = None, before: str = "") -> Target:
    """Walk the binary logs to the first transaction that is not wanted, or to the end of all."""
    target, applied = Target(), Transactions()
    for segment in found:
        for path in segment.files:
            complete = len(MAGIC)
            with mapped(path) as log:
                try:
                    for transaction in transactions(log):
                        complete = transaction.end
                        if transaction.gtid == before or (until is not None and transaction.committed >= until):
                            target.stop_before = transaction.gtid
                            break
                        applied.add(transaction.gtid)
                        target.last, target.reached = transaction.gtid, transaction.committed
                except Refused as fault:
                    raise Refused(f"{path}: {fault}") from fault
            target.files.append((path, complete))
            if target.stop_before:
                break
        if target.stop_before:
            break
        if segment.obstacle:
            raise Refused(segment.obstacle)
    target.expected = executed | applied.gathered()
    if before and not target.stop_before:
        raise Refused(f"{before} is not in the binary logs, which lead to {target.expected}.")
    if target.expected == executed:  # there is nothing to apply
        target.files, target.stop_before = [], ""
    return target


def choose(backups: list[dict], name: str = "", until: float | None = None, before: str = "") -> dict:
    """The newest backup that ends before what is not wanted, or the one that is named. Newest first in ``backups``."""
    if not backups:
        raise Refused("There is no backup here: mysql_backup backup makes one, --from names another directory.")
    if name:
        backups = [backup for backup in backups if backup["name"] == name]
        if not backups:
            raise Refused(f"There is no backup {name!r} here: mysql_backup list shows what there is.")
    for backup in backups:
        late = until is not None and backup["end"] > until
        within = before and GtidSet(before) <= GtidSet(backup["gtid_executed_end"])
        if not late and not within:
            return backup
    what = f"the backup {name}" if name else "every backup here"
    if before:
        raise Refused(f"{what} holds {before} already: it cannot lead to just before it.")
    raise Refused(f"{what} is newer than {stamp(until)}: it cannot lead there.")


def expired(backups: list[dict], now: float, keep: int, keep_days: float) -> list[str]:
    """Names of the backups that retention no longer keeps, of ``backups`` with the newest first.

    Kept are the newest ``keep``, those younger than ``keep_days``, and the newest that was verified, whatever its age.
    """
    verified = next((backup["name"] for backup in backups if backup.get("verified")), None)
    old = [backup for backup in backups[keep:] if backup["end"] < now - keep_days * 86400]
    return [backup["name"] for backup in old if backup["name"] != verified]


def out_of_reach(kept: list[dict], now: float, keep_days: float) -> float:
    """The moment before which a node that makes no backups now, since it is the primary, needs no binary logs.

    They reach back for ``keep_days``, or as far as they did when the last backup here was made: each backup of its time as a replica can
    lead to any moment for as long as it could if backups had gone on. Newest first in ``kept``.
    """
    reached = kept[0]["end"] - min(backup["begin"] for backup in kept) if kept else 0
    return now - max(keep_days * 86400, reached)


def outdated(lines: list[Line], moment: float) -> tuple[list[Path], list[str]]:
    """Binary log files, and whole lines, that were written before that moment. What is left of a line has no gap."""
    files, past = [], []
    for line in lines:
        old = [file.path for file in takewhile(lambda file: file.written < moment, line.files)]
        if line is lines[-1]:  # the stream goes on from its last file
            files += old[: len(line.files) - 1]
        elif len(old) == len(line.files):
            past.append(line.name)
        else:
            files += old
    return files, past


def unneeded(lines: list[Line], kept: list[dict]) -> tuple[list[Path], list[str]]:
    """Binary log files, and whole lines, that no kept backup needs. Without a backup everything may be needed."""
    if not kept:
        return [], []
    oldest = min(kept, key=lambda backup: backup["begin"])
    executed = GtidSet(oldest["gtid_executed"])
    left = since(lines, oldest["begin"])
    files = []
    for line in left:
        following = zip(line.files, line.files[1:], strict=False)
        files += [file.path for file, after in following if after.previous <= executed]
    return files, [line.name for line in lines if line not in left]


def resume(local: tuple[str, int, GtidSet] | None, logs: list[tuple[str, int]], previous: GtidSet | None) -> str:
    """The server's log file at which the stream goes on; "" when the line ends and another begins.

    ``local`` is name, size and previous GTIDs of the last file that was copied, ``logs`` names and sizes of the server's, and
    ``previous`` the previous GTIDs of the server's file of that name.
    """
    if local is None:
        return ""
    name, size, before = local
    return name if dict(logs).get(name, -1) >= size and previous == before else ""


def space_fault(path: str, needed: int, free: int) -> str:
    if free - needed >= SPARE:
        return ""
    return f"{path} has {free >> 20} MiB free, and {(needed + SPARE) >> 20} MiB are needed: make room, or name a larger file system."


def version_of(text: str) -> tuple[int, ...]:
    number = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    if not number or "mariadb" in text.lower():
        raise Refused(f"{text!r} is not MySQL: MySQL 8.4 or later is needed.")
    return tuple(int(part) for part in number.groups())


def supported(text: str) -> tuple[int, ...]:
    if version_of(text)[:2] < OLDEST:
        raise Refused(f"This is MySQL {text}: MySQL 8.4 or later is needed.")
    return version_of(text)


def moment(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time, which is UTC unless it says otherwise."""
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(
            f"{text!r} is no time: write 2026-03-01 09:59:30 for UTC, or 2026-03-01T10:59:30+01:00."
        ) from None
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def instance_options(directory: Path, settings: dict, memory: int) -> str:
    """my.cnf of an instance that nobody reaches but by its socket, that loses nothing but itself when it crashes, and stays read-only."""
    options = {
        **{"user": "mysql", "datadir": directory / "data", "socket": directory / "mysql.sock"},
        **{"pid_file": directory / "mysqld.pid", "log_error": directory / "error.log", "tmpdir": directory},
        **{"skip_networking": "ON", "mysqlx": "OFF", "server_id": SCRATCH_SERVER_ID, "super_read_only": "ON"},
        **{"skip_log_bin": None, "gtid_mode": "ON", "enforce_gtid_consistency": "ON", "event_scheduler": "OFF"},
        **{"relay_log": "relay", "relay_log_recovery": "OFF", "skip_replica_start": "ON"},
        **{"replica_parallel_workers": 4, "replica_preserve_commit_order": "OFF"},
        # Keys for connections over a network, which it does not have, take long to make. The last option is deprecated.
        **{"auto_generate_certs": "OFF", "caching_sha2_password_auto_generate_rsa_keys": "OFF"},
        **{"loose_sha256_password_auto_generate_rsa_keys": "OFF"},
        **{"performance_schema": "OFF", "innodb_buffer_pool_size": memory, "innodb_doublewrite": "OFF"},
        **{"innodb_flush_log_at_trx_commit": 0, "max_allowed_packet": "1G"},
        **settings,
    }
    return "".join(
        ["[mysqld]\n", *(name + ("" if value is None else f" = {value}") + "\n" for name, value in options.items())]
    )


def options_of(text: str) -> dict[str, str]:
    """Names and values from the end of what ``mysqld --verbose --help`` prints."""
    table = re.split(r"^-+ -+\n", text, maxsplit=1, flags=re.MULTILINE)[-1].partition("\n\n")[0]
    found = re.findall(r"^(\S+) +(.*)$", table, re.MULTILINE)
    return {name: value for name, value in found if value != "(No default value)"}


# Where mysqld keeps its data beside the data directory, if it is told to.
PLACES = (
    *("log-bin", "log-bin-index", "relay-log", "relay-log-index"),
    *("innodb-data-home-dir", "innodb-data-file-path", "innodb-log-group-home-dir", "innodb-undo-directory"),
)


def elsewhere(options: dict[str, str], data: Path) -> list[str]:
    """Options of mysqld that keep data outside of its data directory, which alone a restore replaces."""
    return [
        f"{name.replace('-', '_')}={options[name]}"
        for name in PLACES
        if options.get(name) and not Path(os.path.normpath(data / options[name])).is_relative_to(data)
    ]


METRICS = {
    "timestamp_seconds": "When the newest full backup ended.",
    "size_bytes": "Size of the newest full backup.",
    "verified_timestamp_seconds": "When the newest full backup ended of those that were restored and read.",
    "verify_timestamp_seconds": "When a backup was last restored and read, with or without success.",
    "verify_success": "Whether it could be.",
    "stream_timestamp_seconds": "When the copied binary logs last held all that the server had written.",
    "copy_timestamp_seconds": "When the backups were last copied to another place without a fault.",
}


def metrics(backups: list[dict], verification: dict, stream: dict, copies: dict, spared: bool = False) -> str:
    """Prometheus text format. Ages are for who asks: time() minus a timestamp, which is 0 for never.

    A node that is spared tells nothing of its backups: none are due, and the age of those of its time as a replica means nothing.
    """
    verified = [backup["end"] for backup in backups if backup.get("verified")]
    due = {
        "timestamp_seconds": {"": backups[0]["end"] if backups else 0},
        "size_bytes": {"": backups[0]["size"] if backups else 0},
        "verified_timestamp_seconds": {"": max(verified, default=0)},
        "verify_timestamp_seconds": {"": verification.get("at", 0)},
        "verify_success": {"": int(verification["ok"])} if verification else {},
    }
    values = {
        **({} if spared else due),
        "stream_timestamp_seconds": {"": stream["complete"]} if "complete" in stream else {},
        "copy_timestamp_seconds": {f"{{target={json.dumps(target)}}}": at for target, at in sorted(copies.items())},
    }
    lines = []
    for name, samples in values.items():
        if samples:
            metric = f"webstack_mysql_backup_{name}"
            lines += [f"# HELP {metric} {METRICS[name]}", f"# TYPE {metric} gauge"]
            lines += [f"{metric}{labels} {value:.15g}" for labels, value in samples.items()]
    return "\n".join(lines) + "\n"


def faults(config: dict) -> list[str]:
    """What is wrong with the settings, by the names of the role's variables."""
    found = [
        f"mysql_backup_{name}: {config[name]} is below 1: at least one backup is kept"
        for name in ("keep", "keep_days")
        if config[name] < 1
    ]
    found += [
        f"mysql_backup_{name}: {config[name]!r} is no absolute path"
        for name in ("directory", "work_directory")
        if not re.fullmatch(r"(/[\w.-]+){2,}", config[name])
    ]
    return found
