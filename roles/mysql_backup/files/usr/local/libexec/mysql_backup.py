"""Back up this MySQL node, keep its binary logs, prove the backups by restoring them, and restore.

    mysql_backup.py backup                   a full backup by CLONE, then what retention no longer keeps is removed
    mysql_backup.py list                     what there is, how far the binary logs reach, what was verified
    mysql_backup.py verify                   restore the newest backup into an instance of its own and check every table
    mysql_backup.py restore --dry-run --until "2026-03-01 09:59"
    mysql_backup.py restore --side --before-gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:23

Its directory holds full/NAME (archive, checksum, manifest) and binlogs/SERVER_UUID.N, one "line" of binary logs: files that follow each
other without a gap. A server begins another line when it begins its binary logs anew, or has purged what was not copied in time.

Full backups are found consistent by MySQL's own recovery. A restore is made in an instance of its own, which listens on a socket alone,
applies the binary logs there as a replica applies its relay log, and replaces the node's data only when it has succeeded.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import pwd
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

CONFIG = "/etc/mysql/webstack-backup.json"
RCLONE_CONFIG = "/etc/mysql/webstack-rclone.conf"
SOCKET = "/run/mysqld/mysqld.sock"
DATA_DIRECTORY = Path("/var/lib/mysql")
SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")
OLDEST = (8, 4)
CHUNK = 1 << 20  # bytes
MEASURE_EVERY = 5  # seconds between two looks at the stream
STALLED_AFTER = 60  # seconds without a new byte although there are some
SPARE = 64 << 20  # bytes that stay free
# Binary logs are skipped by a server whose number they carry; no node has this one.
SCRATCH_SERVER_ID = 4294967294
# Settings that the data files depend on.
SETTINGS = ("lower_case_table_names", "innodb_page_size", "innodb_data_file_path")


class Refused(Exception):  # noqa: N818
    """What cannot be done, and the remedy."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# GTID sets: {origin: [(first, last), ...]} with sorted, disjoint intervals. An origin is a server's UUID, with ":tag" where there is a tag.


def _merged(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def parse_gtids(text: str) -> dict:
    """The set that MySQL writes as ``uuid:1-5:7,uuid:tag:1``. Refused where it is none."""
    found: dict = {}
    for part in filter(None, re.sub(r"\s", "", text).split(",")):
        uuid, *rest = part.lower().split(":")
        origin = uuid
        if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) or not rest:
            raise Refused(f"{part!r} is no GTID: write it as 3e11fa47-71ca-11e1-9e33-c80aa9429562:23.")
        for word in rest:
            if re.fullmatch(r"[a-z_][a-z0-9_]*", word):
                origin = f"{uuid}:{word}"
                continue
            interval = re.fullmatch(r"(\d+)(?:-(\d+))?", word)
            if not interval:
                raise Refused(f"{part!r} is no GTID: {word!r} is neither a number, nor an interval, nor a tag.")
            first = int(interval[1])
            found.setdefault(origin, []).append((first, int(interval[2] or first)))
    return {origin: _merged(intervals) for origin, intervals in found.items()}


def format_gtids(gtids: dict) -> str:
    def interval(first: int, last: int) -> str:
        return str(first) if first == last else f"{first}-{last}"

    return ",".join(":".join([origin, *(interval(*pair) for pair in gtids[origin])]) for origin in sorted(gtids))


def union(*sets: dict) -> dict:
    together: dict = {}
    for gtids in sets:
        for origin, intervals in gtids.items():
            together[origin] = together.get(origin, []) + intervals
    return {origin: _merged(intervals) for origin, intervals in together.items()}


def subtract(gtids: dict, others: dict) -> dict:
    left: dict = {}
    for origin, intervals in gtids.items():
        for first, last in intervals:
            for begin, end in others.get(origin, []):
                if end < first or begin > last:
                    continue
                if begin > first:
                    left.setdefault(origin, []).append((first, begin - 1))
                first = end + 1
            if first <= last:
                left.setdefault(origin, []).append((first, last))
    return left


def contains(whole: dict, part: dict) -> bool:
    left = subtract(part, whole)
    return not left


# Binary log files (MySQL manual, "Replication Protocol, Binary Log Event"): a magic number, then events with a header of 19 bytes.
# A GTID event begins a transaction and says how long that is, so that a file is walked one transaction a step.

HEADER = struct.Struct("<IBIIIH")  # time, type, server id, size, position of the next event, flags
MAGIC = b"\xfebin"
GTID_EVENT, PREVIOUS_GTIDS_EVENT, TAGGED_GTID_EVENT = 33, 35, 42
LENGTHS = {252: 2, 253: 3, 254: 8}  # MySQL's packed integers: the first byte, and how many follow it


@dataclass
class Transaction:
    gtid: str
    committed: float  # seconds since 1970, on the server that it was first committed on
    end: int  # offset of the first byte after it


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _events(log: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, offset and size of each whole event. A caller sends the offset to go on at, to leave out what lies between."""
    if log[:4] != MAGIC:
        raise Refused("this is no binary log, or it is encrypted")
    offset = 4
    while offset + HEADER.size <= len(log):
        _time, kind, _server, size, _next, _flags = HEADER.unpack_from(log, offset)
        if size < HEADER.size:
            raise Refused(f"the binary log is damaged at byte {offset}")
        if offset + size > len(log):
            return
        skip = yield kind, offset, size
        if skip:
            yield 0, 0, 0  # the answer to send()
        offset = skip or offset + size


def previous_gtids(log: bytes) -> dict:
    """The set of the file's second event: what the server's binary logs held before this file."""
    at = next((offset for kind, offset, _size in _events(log) if kind == PREVIOUS_GTIDS_EVENT), 0)
    if not at:
        return {}
    at += HEADER.size
    (origins,) = struct.unpack_from("<Q", log, at)
    if origins >> 56:
        raise Refused("its transactions have tagged GTIDs, which are not supported")
    at += 8
    found = {}
    for _origin in range(origins):
        uuid, intervals = _uuid(log[at : at + 16]), struct.unpack_from("<Q", log, at + 16)[0]
        at += 24
        pairs = [struct.unpack_from("<QQ", log, at + 16 * number) for number in range(intervals)]
        found[uuid] = [(first, end - 1) for first, end in pairs]
        at += 16 * intervals
    return found


def _gtid_event(log: bytes, offset: int) -> Transaction:
    body = offset + HEADER.size
    uuid, number = _uuid(log[body + 1 : body + 17]), struct.unpack_from("<Q", log, body + 17)[0]
    at = body + 42  # after the flags, the GTID and two logical timestamps
    times = int.from_bytes(log[at : at + 7], "little")
    at += 7
    if times >> 55:  # another server committed it first
        times = int.from_bytes(log[at : at + 7], "little")
        at += 7
    length, more = log[at], LENGTHS.get(log[at], 0)
    if more:
        length = int.from_bytes(log[at + 1 : at + 1 + more], "little")
    return Transaction(f"{uuid}:{number}", times / 1e6, offset + length)


def transactions(log: bytes) -> Iterator[Transaction]:
    """The transactions of a binary log in their order, without one at the end that is not there as a whole."""
    events = _events(log)
    for kind, offset, _size in events:
        if kind == TAGGED_GTID_EVENT:
            raise Refused("its transactions have tagged GTIDs, which are not supported")
        if kind == GTID_EVENT:
            transaction = _gtid_event(log, offset)
            if transaction.end > len(log):
                return
            yield transaction
            events.send(transaction.end)


# Decisions: pure functions over what was found.


@dataclass
class LogFile:
    path: Path
    previous: dict  # what the server had executed before the file


@dataclass
class Line:
    """Binary logs of one server that follow each other."""

    name: str
    files: list[LogFile]
    end: dict  # what it held after the last
    began: float = 0.0  # when its first file was copied, in seconds since 1970

    @property
    def begin(self) -> dict:
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
    expected: dict = field(default_factory=dict)
    last: str = ""  # last transaction that is applied
    reached: float = 0.0  # when that was committed


def _needed(line: Line, held: dict) -> list[Path]:
    """The files of a line from the last one on that nothing is missing before."""
    begin = max(number for number, file in enumerate(line.files) if contains(held, file.previous))
    return [file.path for file in line.files[begin:]]


def since(lines: list[Line], moment: float) -> list[Line]:
    """The line that was written at that moment, and those that began later. What ended before is past, or was undone by a restore."""
    begun = [number for number, line in enumerate(lines) if line.began <= moment]
    return lines[begun[-1] :] if begun else lines


def segments(lines: list[Line], executed: dict) -> list[Segment]:
    """What follows a backup that holds ``executed``, of lines that are sorted by their beginning.

    The newest line serves alone if it can: after a failover it has what counts. Where an older one must lead up to it, it may hold
    transactions that the newer one does not know: they were lost in a failover, or undone by a restore, and nothing after them fits.
    """
    if not lines:
        return []
    if contains(executed, lines[-1].begin):
        return [Segment(_needed(lines[-1], executed))]
    held, found = executed, []
    for line in lines:
        if contains(held, line.end):
            continue
        missing, extra, obstacle = subtract(line.begin, held), subtract(held, union(executed, line.end)), ""
        if missing:
            obstacle = f"The binary logs have a gap: {line.name} begins after {format_gtids(missing)}, which nothing here holds."
        elif extra:
            obstacle = (
                f"The binary logs go two ways: {line.name} does not know {format_gtids(extra)}. Restore to before that, "
                "or from a full backup that is newer."
            )
        if obstacle:
            found = found or [Segment([])]
            found[-1].obstacle = obstacle
            return found
        found.append(Segment(_needed(line, held)))
        held = union(held, line.end)
    return found


def _append(gtids: dict, gtid: str) -> None:
    """Add a GTID to a set, fast where it follows the one before."""
    origin, number = gtid.rsplit(":", 1)
    first = last = int(number)
    intervals = gtids.setdefault(origin, [])
    if intervals and intervals[-1][1] + 1 == last:
        first = intervals.pop()[0]
    intervals.append((first, last))


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= len(MAGIC):
            yield MAGIC
            return
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as log:
            yield log


def find_target(found: list[Segment], executed: dict, until: float | None = None, before: str = "") -> Target:
    """Walk the binary logs to the first transaction that is not wanted, or to the end of all."""
    target, applied = Target(), {}
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
                        _append(applied, transaction.gtid)
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
    target.expected = union(executed, applied)
    if before and not target.stop_before:
        raise Refused(f"{before} is not in the binary logs, which lead to {format_gtids(target.expected)}.")
    if contains(executed, applied):  # there is nothing to apply
        target.files, target.stop_before = [], ""
    return target


def choose(backups: list[dict], name: str = "", until: float | None = None, before: str = "") -> dict:
    """The newest backup that ends before what is not wanted, or the one that is named. Newest first in ``backups``."""
    if not backups:
        raise Refused("There is no backup here: mysql_backup.py backup makes one, --from names another directory.")
    if name:
        backups = [backup for backup in backups if backup["name"] == name]
        if not backups:
            raise Refused(f"There is no backup {name!r} here: mysql_backup.py list shows what there is.")
    for backup in backups:
        late = until is not None and backup["end"] > until
        within = before and contains(parse_gtids(backup["gtid_executed_end"]), parse_gtids(before))
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


def unneeded(lines: list[Line], kept: list[dict]) -> tuple[list[Path], list[str]]:
    """Binary log files, and whole lines, that no kept backup needs. Without a backup everything may be needed."""
    if not kept:
        return [], []
    oldest = min(kept, key=lambda backup: backup["begin"])
    executed = parse_gtids(oldest["gtid_executed"])
    left = since(lines, oldest["begin"])
    files = []
    for line in left:
        following = zip(line.files, line.files[1:], strict=False)
        files += [file.path for file, after in following if contains(executed, after.previous)]
    return files, [line.name for line in lines if line not in left]


def resume(local: tuple[str, int, dict] | None, logs: list[tuple[str, int]], previous: dict | None) -> str:
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
        **{
            "relay_log": "relay",
            "relay_log_recovery": "OFF",
            "skip_replica_start": "ON",
            "replica_parallel_workers": 4,
        },
        **{"performance_schema": "OFF", "innodb_buffer_pool_size": memory, "innodb_doublewrite": "OFF"},
        **{"innodb_flush_log_at_trx_commit": 0, "innodb_redo_log_capacity": "1G", "max_allowed_packet": "1G"},
        **settings,
    }
    return "".join(
        ["[mysqld]\n", *(name + ("" if value is None else f" = {value}") + "\n" for name, value in options.items())]
    )


METRICS = {
    "timestamp_seconds": "When the newest full backup ended.",
    "size_bytes": "Size of the newest full backup.",
    "verified_timestamp_seconds": "When the newest full backup ended of those that were restored and read.",
    "verify_timestamp_seconds": "When a backup was last restored and read, with or without success.",
    "verify_success": "Whether it could be.",
    "stream_timestamp_seconds": "When the copied binary logs last held all that the server had written.",
    "copy_timestamp_seconds": "When the backups were last copied to another place without a fault.",
}


def metrics(backups: list[dict], verification: dict, stream: dict, copies: dict) -> str:
    """Prometheus text format. Ages are for who asks: time() minus a timestamp."""
    verified = [backup["end"] for backup in backups if backup.get("verified")]
    values = {
        "timestamp_seconds": {"": backups[0]["end"] if backups else 0},
        "size_bytes": {"": backups[0]["size"] if backups else 0},
        "verified_timestamp_seconds": {"": max(verified, default=0)},
        "verify_timestamp_seconds": {"": verification.get("at", 0)},
        "verify_success": {"": int(verification.get("ok", False))},
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


# The file system.


def used(directory: Path, without: str = r"(?!)") -> int:
    """Bytes of the files in a directory, but for those whose name matches."""
    total = 0
    for root, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if not re.match(without, name)]
        for name in files:
            if not re.match(without, name):
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(root, name)).st_size
    return total


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def read_json(path: Path, default: dict | None = None) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        if default is None:
            raise
        return default


def write(path: Path, text: str, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file at once: whoever reads it sees the old text or the new one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    new.chmod(mode)
    new.replace(path)


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise Refused(f"{path} cannot be removed.")


class Store:
    """The directory of the backups."""

    def __init__(self, directory: str):
        self.path = Path(directory)
        self.full, self.binlogs = self.path / "full", self.path / "binlogs"

    def backups(self) -> list[dict]:
        """Manifests, the newest first. ``verified``: whether the backup was restored and read."""
        found = []
        for manifest in self.full.glob("*/manifest.json"):
            verified = read_json(manifest.with_name("verified.json"), {}).get("ok", False)
            found.append({**read_json(manifest), "name": manifest.parent.name, "verified": verified})
        return sorted(found, key=lambda backup: backup["end"], reverse=True)

    def archive(self, backup: dict) -> Path:
        return self.full / backup["name"] / backup["archive"]

    def logs(self, line: Path) -> list[Path]:
        """The files of a line in their order. A file that is being copied again counts with its longer copy."""
        found = {}
        for path in line.iterdir():
            name = path.name.removesuffix(".before")
            if re.search(r"\.\d+$", name) and (name not in found or found[name].stat().st_size < path.stat().st_size):
                found[name] = path
        return [found[name] for name in sorted(found, key=lambda name: int(name.rsplit(".", 1)[1]))]

    def lines(self) -> list[Line]:
        """The lines that hold something, the one that began first first."""
        lines = [self.line(path.parent) for path in self.binlogs.glob("*/line.json")]
        return sorted((line for line in lines if line.files), key=lambda line: line.began)

    def line(self, directory: Path) -> Line:
        line, paths = read_json(directory / "line.json"), self.logs(directory)
        base = parse_gtids(line["base"])
        try:
            files = []
            for path in paths:
                with mapped(path) as log:
                    files.append(LogFile(path, union(base, previous_gtids(log))))
            end = {}
            if files:
                with mapped(path) as log:
                    for transaction in transactions(log):
                        _append(end, transaction.gtid)
                end = union(files[-1].previous, end)
        except Refused as fault:
            raise Refused(f"{path}: {fault}") from fault
        return Line(directory.name, files, end, line["began"])


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Nothing else changes backups meanwhile. The stream adds to its own files and needs no lock."""
    with (store.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another mysql_backup.py to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish(config: dict, store: Store) -> None:
    directory = Path(config["metrics_directory"])
    directory.mkdir(parents=True, exist_ok=True)
    states = (read_json(store.path / f"{name}.json", {}) for name in ("verification", "stream", "copies"))
    write(directory / "webstack_mysql_backup.prom", metrics(store.backups(), *states), 0o644, durable=False)


# MySQL.


class Server:
    """A server behind a socket, as its administrator."""

    def __init__(self, socket: str = SOCKET):
        import pymysql  # here, so that the decisions above need nothing
        import pymysql.cursors

        self.connection = pymysql.connect(
            unix_socket=socket, user="root", autocommit=True, cursorclass=pymysql.cursors.DictCursor
        )

    def query(self, statement: str, *values) -> list[dict]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    def close(self) -> None:
        self.connection.close()

    def row(self, statement: str, *values) -> dict:
        rows = self.query(statement, *values)
        return rows[0] if rows else {}

    def executed(self) -> str:
        return self.row("SELECT @@GLOBAL.gtid_executed AS gtids")["gtids"].replace("\n", "")

    def databases(self) -> list[str]:
        names = (row["Database"] for row in self.query("SHOW DATABASES"))
        return [name for name in names if name not in SYSTEM_DATABASES]


def connect() -> Server:
    try:
        return Server()
    except Exception as error:
        raise Refused(f"MySQL does not answer on {SOCKET}: {error}") from error


class Instance:
    """A mysqld of its own on the data files of a backup; see instance_options."""

    def __init__(self, directory: Path, settings: dict, memory: int):
        self.directory, self.options = directory, directory / "my.cnf"
        write(self.options, instance_options(directory, settings, memory), 0o644)
        for path in (directory, directory / "data"):
            shutil.chown(path, "mysql", "mysql")
            path.chmod(0o750)

    def __enter__(self) -> Server:
        self.process = subprocess.Popen(["mysqld", f"--defaults-file={self.options}"], stdin=subprocess.DEVNULL)
        while True:
            try:
                self.server = Server(str(self.directory / "mysql.sock"))
                return self.server
            except Exception:  # until it answers
                if self.process.poll() is not None:
                    raise Refused(f"mysqld does not start on the restored files:\n{self.errors()}") from None
                time.sleep(0.1)
            except BaseException:
                self.process.kill()
                raise

    def __exit__(self, kind, *_exception) -> None:
        if kind is None:
            self.server.query("SHUTDOWN")
        else:
            self.process.kill()
        self.process.wait()

    def errors(self) -> str:
        log = self.directory / "error.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return "\n".join([line for line in lines if "[ERROR]" in line][-5:] or lines[-5:])


def memory_for_restore() -> int:
    """A third of the memory that is free, between 128 MiB and 8 GiB."""
    available = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024
    return min(max(available // 3, 128 << 20), 8 << 30)


# Archives.


def start(commands: list[list[str]], **streams) -> list[subprocess.Popen]:
    """A pipeline of programs."""
    processes: list[subprocess.Popen] = []
    for command in commands:
        source = processes[-1].stdout if processes else streams.get("stdin", subprocess.DEVNULL)
        sink = streams.get("stdout", subprocess.PIPE) if command is commands[-1] else subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=source, stdout=sink))
        if len(processes) > 1:
            processes[-2].stdout.close()
    return processes


def finish(processes: list[subprocess.Popen]) -> str:
    """Names of the programs that failed."""
    return ", ".join(process.args[0] for process in processes if process.wait())


def pack(directory: Path, archive: Path, recipient: str) -> str:
    """Write the archive; returns its checksum."""
    commands = [["tar", "--create", f"--directory={directory}", "."], ["zstd", "--quiet", "-3", "-T0", "--stdout"]]
    commands += [["age", "--encrypt", "--recipient", recipient]] if recipient else []
    digest, processes = hashlib.sha256(), start(commands)
    try:
        with open(archive, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            while chunk := processes[-1].stdout.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        for process in processes:
            process.kill()
        finish(processes)
        raise
    failed = finish(processes)
    if failed:
        raise Refused(f"The archive could not be written: {failed} failed.")
    return digest.hexdigest()


def recorded_checksum(archive: Path, backup: dict) -> str:
    """The checksum from the file beside the archive and from the manifest, which must agree."""
    text = archive.with_name(f"{archive.name}.sha256").read_text().split()
    if text[:1] != [backup["sha256"]]:
        raise Refused(f"{archive}.sha256 and manifest.json differ: the backup is damaged. Choose another one.")
    return text[0]


def unpack(archive: Path, backup: dict, directory: Path, identity: str) -> None:
    """Unpack into a directory, which is worth nothing unless this returns: then the archive was what the checksum says."""
    expected = recorded_checksum(archive, backup)
    commands = [["zstd", "--quiet", "--decompress", "--stdout"], ["tar", "--extract", f"--directory={directory}"]]
    if backup["encrypted"]:
        if not identity:
            raise Refused(f"{archive} is encrypted: name the file of the age identity that opens it (--identity).")
        commands.insert(0, ["age", "--decrypt", "--identity", identity])
    digest, processes = hashlib.sha256(), start(commands, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    with archive.open("rb") as file, contextlib.suppress(BrokenPipeError):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            with contextlib.suppress(BrokenPipeError):  # the checksum tells more than a program that gave up
                processes[0].stdin.write(chunk)
        processes[0].stdin.close()
    failed = finish(processes)
    if digest.hexdigest() != expected:
        raise Refused(f"{archive} is damaged: its checksum is not the recorded one. Choose another backup.")
    if failed:
        raise Refused(f"{archive} could not be unpacked: {failed} failed.")


# Commands.


def check(config: dict, store: Store, _options) -> int:
    """Whether backups could be made as the settings want them. Changes nothing."""
    found = faults(config)
    with contextlib.suppress(FileNotFoundError):
        supported(subprocess.run(["mysqld", "--version"], capture_output=True, text=True, check=True).stdout)
    if config["recipient"]:
        tried = subprocess.run(
            ["age", "--encrypt", "--recipient", config["recipient"]], input=b"", capture_output=True, check=False
        )
        if tried.returncode:
            reason = tried.stderr.decode().splitlines()[0]
            found.append(f"mysql_backup_age_recipient: age rejects {config['recipient']!r}: {reason}")
    if config["identity"] and not Path(config["identity"]).is_file():
        found.append(f"mysql_backup_age_identity_file: there is no file {config['identity']!r} on this host")
    try:
        probe = store.path / ".probe"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
        found += filter(None, [space_fault(f"mysql_backup_directory: {store.path}", 0, free(store.path))])
    except OSError as error:
        found.append(f"mysql_backup_directory: {store.path} cannot be written: {error.strerror}")
    if found:
        raise Refused("; ".join(found))
    return 0


def refuse_lack_of_space(work: Path, store: Store, needed: int) -> None:
    """Room for the clone, and for an archive like the last one (without one: of two thirds of the data)."""
    backups = store.backups()
    archive = backups[0]["size"] * 5 // 4 if backups else needed * 2 // 3
    if os.stat(work).st_dev == os.stat(store.path).st_dev:
        needed += archive
    fault = space_fault(str(work), needed, free(work)) or space_fault(str(store.path), archive, free(store.path))
    if fault:
        raise Refused(fault)


def work_directory(config: dict, name: str) -> Path:
    """A place for MySQL's data files. mysqld may be confined by AppArmor, and writes its clone itself."""
    work = Path(config["work_directory"])
    work.mkdir(mode=0o750, parents=True, exist_ok=True)
    shutil.chown(work, "mysql", "mysql")
    remove(work / name)
    return work / name


def backup(config: dict, store: Store, options) -> int:
    server = connect()
    version = server.row("SELECT VERSION() AS version")["version"]
    supported(version)
    node = server.row(
        "SELECT @@GLOBAL.super_read_only AS read_only, @@server_uuid AS uuid, @@GLOBAL.gtid_purged AS purged"
    )
    if not node["read_only"] and not (options.on_primary or config["on_primary"]):
        say("No backup: this node is the primary, and it is spared (--on-primary, mysql_backup_on_primary).")
        return 0
    others = server.query(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) AS name FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'"
        " AND ENGINE <> 'InnoDB' AND TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')"
    )
    left_out = [row["name"] for row in others]
    if left_out:
        say(f"left out, since CLONE copies InnoDB alone: {', '.join(left_out)}")
    clone = work_directory(config, "clone")
    refuse_lack_of_space(clone.parent, store, used(DATA_DIRECTORY, r"(binlog|relay)|#innodb_(redo|temp)|ibtmp"))
    begin = time.time()
    name = datetime.fromtimestamp(begin, UTC).strftime("%Y%m%dT%H%M%SZ")
    partial = store.full / f"{name}.partial"
    for old in store.full.glob("*.partial"):
        remove(old)
    partial.mkdir(mode=0o700, parents=True)
    try:
        executed = server.executed()
        server.query(f"CLONE LOCAL DATA DIRECTORY = '{clone}'")
        end, executed_end = time.time(), server.executed()
        archive = partial / f"data.tar.zst{'.age' if config['recipient'] else ''}"
        data_size = used(clone)
        checksum = pack(clone, archive, config["recipient"])
        write(archive.with_name(f"{archive.name}.sha256"), f"{checksum}  {archive.name}\n")
        manifest = {
            **{"server_uuid": node["uuid"], "version": version, "begin": begin, "end": end},
            # What it holds for certain, and what it holds at most: transactions went on while it was made.
            **{"gtid_executed": executed, "gtid_executed_end": executed_end},
            **{"gtid_purged": node["purged"].replace("\n", ""), "archive": archive.name, "sha256": checksum},
            **{"size": archive.stat().st_size, "data_size": data_size, "encrypted": bool(config["recipient"])},
            "settings": {setting: server.row(f"SELECT @@GLOBAL.{setting} AS value")["value"] for setting in SETTINGS},
            "left_out": left_out,
        }
        write(partial / "manifest.json", json.dumps(manifest, indent=2) + "\n")
        partial.rename(store.full / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(clone, ignore_errors=True)
    say(f"{name}: {manifest['size'] >> 20} MiB in {time.time() - begin:.1f} s, to {stamp(end)}")
    return prune(config, store, options)


def prune(config: dict, store: Store, _options) -> int:
    for name in expired(store.backups(), time.time(), config["keep"], config["keep_days"]):
        say(f"removing the backup {name}")
        remove(store.full / name)
    files, lines = unneeded(store.lines(), store.backups())
    for path in files:
        say(f"removing the binary log {path}")
        path.unlink()
    for name in lines:
        say(f"removing the binary logs {name}")
        remove(store.binlogs / name)
    publish(config, store)
    return 0


@contextlib.contextmanager
def restored(config: dict, store: Store, backup_: dict, purpose: str, identity: str, memory: int) -> Iterator[Instance]:
    """An instance on an unpacked backup, in a directory of its own that is gone afterwards, unless someone has taken it."""
    directory = work_directory(config, purpose)
    fault = space_fault(str(directory.parent), backup_["data_size"], free(directory.parent))
    if fault:
        raise Refused(fault)
    here = version_of(subprocess.run(["mysqld", "--version"], capture_output=True, text=True, check=True).stdout)
    if here < supported(backup_["version"]):
        raise Refused(
            f"The backup was made by MySQL {backup_['version']}, and an older one is installed here: upgrade it first."
        )
    (directory / "data").mkdir(mode=0o750, parents=True)
    try:
        unpack(store.archive(backup_), backup_, directory / "data", identity)
        yield Instance(directory, backup_["settings"], memory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def check_tables(server: Server) -> int:
    """How many tables there are; Refused when one of them is not sound."""
    tables = server.query(
        "SELECT TABLE_SCHEMA AS db, TABLE_NAME AS name FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'"
        " AND TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema', 'sys')"
    )
    for table in tables:
        name = ".".join("`" + part.replace("`", "``") + "`" for part in (table["db"], table["name"]))
        answers = server.query(f"CHECK TABLE {name}")
        bad = [row["Msg_text"] for row in answers if row["Msg_type"] == "error" or answers[-1]["Msg_text"] != "OK"]
        if bad and "doesn't support check" not in bad[0]:
            raise Refused(f"{name}: {'; '.join(bad)}")
    return len(tables)


def verify(config: dict, store: Store, options) -> int:
    began, name, result = time.time(), "", {}
    try:
        chosen = choose(store.backups(), options.name)
        name = chosen["name"]
        identity = options.identity or config["identity"]
        with restored(config, store, chosen, "verify", identity, 128 << 20) as instance, instance as server:
            executed = server.executed()
            if not contains(parse_gtids(executed), parse_gtids(chosen["gtid_executed"])):
                raise Refused(f"it holds {executed}, and should hold {chosen['gtid_executed']}")
            tables = check_tables(server)
        result = {"ok": True, "tables": tables, "gtid_executed": executed}
        say(f"{name}: {tables} tables were read, in {time.time() - began:.1f} s")
    except Exception as error:
        result = {"ok": False, "error": str(error)}
        raise Refused(f"{name or 'verification'} failed: {error}") from error
    finally:
        remove(Path(config["work_directory"]) / "verify")
        result = {"at": time.time(), "name": name, "ok": False, **result}
        write(store.path / "verification.json", json.dumps(result) + "\n")
        if name:
            write(store.full / name / "verified.json", json.dumps(result) + "\n")
        publish(config, store)
    return 0


def listing(_config: dict, store: Store, options) -> int:
    """What there is, for people or (--json) for programs."""
    lines = [
        {"name": line.name, "files": len(line.files), "from": format_gtids(line.begin), "to": format_gtids(line.end)}
        for line in store.lines()
    ]
    states = {name: read_json(store.path / f"{name}.json", {}) for name in ("verification", "stream", "copies")}
    if options.json:
        print(json.dumps({"backups": store.backups(), "binlogs": lines, **states}, indent=2))
        return 0
    for backup_ in store.backups():
        verified = "verified" if backup_["verified"] else "not verified"
        print(
            f"{backup_['name']}  to {stamp(backup_['end'])}  {backup_['size'] >> 20} MiB  {verified}  MySQL {backup_['version']}"
        )
    for line in lines:
        print(f"binary logs {line['name']}: {line['files']} files, to {line['to'] or 'nothing yet'}")
    if "complete" in states["stream"]:
        print(f"binary logs were complete {time.time() - states['stream']['complete']:.0f} s ago")
    return 0


# The stream.


def server_log(server: Server, name: str) -> dict:
    """The previous GTIDs of one of the server's binary logs."""
    for event in server.query("SHOW BINLOG EVENTS IN %s LIMIT 3", name):
        if event["Event_type"] == "Previous_gtids":
            return parse_gtids(event["Info"])
    return {}


def place_in_stream(server: Server, store: Store) -> tuple[Path, str]:
    """The directory that the binary logs are copied to, and the server's file to begin at."""
    uuid = server.row("SELECT @@server_uuid AS uuid")["uuid"]
    logs = [(row["Log_name"], row["File_size"]) for row in server.query("SHOW BINARY LOGS")]
    # Asked last: a file that is purged meanwhile is missing, and not a gap that nobody sees.
    base = server.row("SELECT @@GLOBAL.gtid_purged AS gtids")["gtids"].replace("\n", "")
    numbers = [int(path.name.rsplit(".", 1)[1]) for path in store.binlogs.glob(f"{uuid}.*")]
    line = store.binlogs / f"{uuid}.{max(numbers, default=0)}"
    files = store.logs(line) if (line / "line.json").exists() else []
    if files:
        last = files[-1]
        with mapped(last) as log:
            local = (last.name.removesuffix(".before"), last.stat().st_size, previous_gtids(log))
        there = server_log(server, local[0]) if local[0] in dict(logs) else None
        begin = resume(local, logs, there)
        if begin:
            # mysqlbinlog writes the file from its beginning. Until it is as long again, the old copy counts.
            if last.name == begin:
                last.rename(last.with_name(f"{begin}.before"))
            return line, begin
        say(
            f"the binary logs in {line} end here: the server has begun anew, or has purged what followed them; make a full backup"
        )
    if files or not numbers:
        line = store.binlogs / f"{uuid}.{max(numbers, default=0) + 1}"
    line.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(line / "line.json", json.dumps({"base": base, "began": time.time(), "server_uuid": uuid}) + "\n")
    return line, logs[0][0]


def hang_up() -> None:
    """End mysqld's side of the stream. It would not notice soon that nobody listens, and wait for that before it stops."""
    server = Server()
    for row in server.query("SHOW PROCESSLIST"):
        if row["User"] == "root" and row["Command"].startswith("Binlog Dump"):
            server.query("KILL %s", row["Id"])
    server.close()


def stream(config: dict, store: Store, _options) -> int:
    """Copy the binary logs as they are written, for ever. Ends with a fault when mysqld does: systemd begins again."""
    server = connect()
    supported(server.row("SELECT VERSION() AS version")["version"])
    line, begin = place_in_stream(server, store)
    server_id = server.row("SELECT (@@server_id + 2147483648) % 4294967296 AS id")["id"]
    server.close()
    command = ["mysqlbinlog", "--no-defaults", f"--socket={SOCKET}", "--user=root"]
    command += ["--read-from-remote-server", "--raw"]
    command += ["--stop-never", f"--connection-server-id={server_id}", f"--result-file={line}/", begin]
    say(f"copying the binary logs from {begin} on to {line}")
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    ending = []

    def end(*_signal) -> None:
        ending.append(True)
        with contextlib.suppress(Exception):
            hang_up()
        child.terminate()

    signal.signal(signal.SIGTERM, end)
    state = read_json(store.path / "stream.json", {})
    size, moved = -1, time.monotonic()
    while child.poll() is None:
        try:
            # Not one connection for all: a mysqld that stops waits some seconds for an idle one of an administrator.
            server = Server()
            now, at = time.time(), server.row("SHOW BINARY LOG STATUS")
            server.close()
        except Exception as error:
            say(f"mysqld does not answer: {error}")
            time.sleep(1)  # mysqlbinlog notices, too
            continue
        copy = line / at["File"]
        here = copy.stat().st_size if copy.exists() else 0
        if here >= at["Position"]:
            state["complete"] = now
            for old in line.glob("*.before"):
                old.unlink()
        if here != size or here >= at["Position"]:
            size, moved = here, time.monotonic()
        elif time.monotonic() - moved > STALLED_AFTER:
            say(f"nothing comes although {at['File']} is longer than its copy: beginning again")
            child.terminate()
        write(store.path / "stream.json", json.dumps(state) + "\n", durable=False)
        publish(config, store)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(MEASURE_EVERY)
    return 0 if ending else 1


# Copies.


def copy_command(config: dict, copy: dict) -> list[str]:
    """The command that brings the backups to another place. Encrypted backups are not followed there by plain binary logs."""
    source = config["directory"].rstrip("/") + "/"
    skipped = ["full/*.partial", *([] if copy.get("binlogs", not config["recipient"]) else ["binlogs"])]
    if copy.get("tool", "rsync") == "rclone":
        action = "sync" if copy.get("delete") else "copy"
        without = [f"--exclude=/{name}/**" for name in skipped]
        return ["rclone", f"--config={RCLONE_CONFIG}", action, "--exclude=.*", *without, source, copy["target"]]
    ssh = "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes" + (
        f" -i {copy['ssh_key']}" if copy.get("ssh_key") else ""
    )
    command = ["rsync", "--recursive", "--times", "--perms", "--mkpath", f"--rsh={ssh}", "--exclude=.*"]
    command += ["--delete-after"] if copy.get("delete") else []
    return [*command, *(f"--exclude=/{name}" for name in skipped), source, copy["target"]]


def copy(config: dict, store: Store, _options) -> int:
    state, failed = read_json(store.path / "copies.json", {}), []
    targets = [entry["target"] for entry in config["copies"]]
    state = {target: at for target, at in state.items() if target in targets}
    for entry in config["copies"]:
        began = time.time()
        done = subprocess.run(copy_command(config, entry), check=False)
        # 24: a file has gone meanwhile, which is the stream's .before.
        if done.returncode in (0, 24):
            state[entry["target"]] = began
        else:
            state.setdefault(entry["target"], 0)
            failed.append(entry["target"])
        write(store.path / "copies.json", json.dumps(state) + "\n")
    publish(config, store)
    if failed:
        raise Refused(f"not copied: {', '.join(failed)}")
    return 0


# Restoring.


def holds_data() -> tuple[list[str], int]:
    """Databases of the node's users, and how many replicas read from it."""
    try:
        server = connect()
        return server.databases(), len(server.query("SHOW REPLICAS"))
    except Refused:  # what does not run may hold data all the same
        own = [path.name for path in DATA_DIRECTORY.glob("*/") if path.name[0] != "#"]
        return [name for name in own if name not in (*SYSTEM_DATABASES, "lost+found")], 0


def refuse_data(over: bool) -> None:
    databases, replicas = holds_data()
    if over or not (databases or replicas):
        return
    what = [f"holds data (databases: {', '.join(databases)})"] if databases else []
    what += [f"feeds {replicas} replicas"] if replicas else []
    raise Refused(
        f"This node {' and '.join(what)}. Nothing was changed. To replace all of it, say so: --over, "
        "restore_over=<this host> with restore.yml. To take out a part, use --side (restore_to=side)."
    )


def forget_channels(server: Server) -> None:
    """A backup of a replica brings its replication channel, which must not start here."""
    for row in server.query("SELECT Channel_name AS name FROM mysql.slave_master_info"):
        if not row["name"].startswith("group_replication"):
            server.query("RESET REPLICA ALL FOR CHANNEL %s", row["name"])


def apply(server: Server, data: Path, target: Target) -> None:
    """Let the replication applier, which works in parallel, do what the binary logs say."""
    owner = pwd.getpwnam("mysql")
    names = []
    for number, (path, length) in enumerate(target.files, 1):
        name = f"relay-restore.{number:06}"
        names.append(f"./{name}\n")
        with path.open("rb") as source, (data / name).open("wb") as sink:
            os.fchown(sink.fileno(), owner.pw_uid, owner.pw_gid)
            left = length
            while left and (sent := os.sendfile(sink.fileno(), source.fileno(), None, min(left, 1 << 30))):
                left -= sent
    (data / "relay-restore.index").write_text("".join(names))
    os.chown(data / "relay-restore.index", owner.pw_uid, owner.pw_gid)
    channel = "FOR CHANNEL 'restore'"
    server.query(
        "CHANGE REPLICATION SOURCE TO RELAY_LOG_FILE = 'relay-restore.000001', RELAY_LOG_POS = 4, SOURCE_HOST = 'restore'"
        f" {channel}"
    )
    until = f"UNTIL SQL_BEFORE_GTIDS = '{target.stop_before}'" if target.stop_before else ""
    server.query(f"START REPLICA SQL_THREAD {until} {channel}")
    told = time.monotonic()
    while True:
        status = server.row(f"SHOW REPLICA STATUS {channel}")
        if status["Last_SQL_Errno"]:
            raise Refused(f"The binary logs cannot be applied: {status['Last_SQL_Error']}")
        over = status["Replica_SQL_Running"] == "No"
        if over or (not target.stop_before and contains(parse_gtids(server.executed()), target.expected)):
            break
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"applying {status['Relay_Log_File']} of {len(names)}")
        time.sleep(0.2)
    server.query(f"STOP REPLICA {channel}")
    missing = subtract(target.expected, parse_gtids(server.executed()))
    if missing:
        raise Refused(f"The binary logs were applied, and {format_gtids(missing)} is missing.")
    server.query(f"RESET REPLICA ALL {channel}")


def replace_data(data: Path) -> None:
    """Put the restored files in the place of the node's. What SET PERSIST and Debian's package have noted there stays."""
    for kept in (*DATA_DIRECTORY.glob("mysqld-auto.cnf"), *DATA_DIRECTORY.glob("debian-*.flag")):
        subprocess.run(["cp", "--archive", str(kept), str(data)], check=True)
    DATA_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    for path in list(DATA_DIRECTORY.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name != "lost+found":
                shutil.rmtree(path)
        else:
            path.unlink()
    if os.stat(data).st_dev == os.stat(DATA_DIRECTORY).st_dev:
        for path in list(data.iterdir()):
            path.rename(DATA_DIRECTORY / path.name)
    else:
        subprocess.run(["cp", "--archive", f"{data}/.", str(DATA_DIRECTORY)], check=True)
    shutil.chown(DATA_DIRECTORY, "mysql", "mysql")


@contextlib.contextmanager
def kept_fenced() -> Iterator[None]:
    """mysqld starts read-only; what would open a primary after a restart does not run meanwhile."""
    drop_in = Path("/run/systemd/system/mysql-open.service.d/restore.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Unit]\nConditionPathExists=!/run/systemd/system/mysql-open.service.d/restore.conf\n")
    systemctl("daemon-reload")
    try:
        yield
    finally:
        shutil.rmtree(drop_in.parent)
        systemctl("daemon-reload")


def systemctl(*words: str, check: bool = True) -> int:
    return subprocess.run(["systemctl", *words], check=check).returncode


def plan(store: Store, options) -> tuple[dict, Target]:
    """Which backup, and what of the binary logs after it."""
    until = moment(options.until) if options.until else None
    before = format_gtids(parse_gtids(options.before_gtid)) if options.before_gtid else ""
    if before and not re.fullmatch(r"[^:,]+:\d+", before):
        raise Refused(f"--before-gtid {options.before_gtid}: name one transaction, as uuid:23.")
    if until is not None and until > time.time():
        raise Refused(f"--until {options.until}: that is yet to come; times are UTC unless they say otherwise.")
    chosen = choose(store.backups(), options.name, until, before)
    executed = parse_gtids(chosen["gtid_executed"])
    found = segments(since(store.lines(), chosen["begin"]), executed)
    return chosen, find_target(found, executed, until, before)


def described(chosen: dict, target: Target) -> dict:
    return {
        "backup": chosen["name"],
        "backup_end": stamp(chosen["end"]),
        "binary_logs": [str(path) for path, _length in target.files],
        "stop_before": target.stop_before,
        "last_transaction": target.last,
        "last_committed": stamp(target.reached) if target.last else "",
    }


def restore(config: dict, store: Store, options) -> int:
    began = time.time()
    chosen, target = plan(store, options)
    report = described(chosen, target)
    if options.until and not target.stop_before:
        say(
            f"The binary logs hold nothing from {options.until} on: the last transaction is of {report['last_committed'] or report['backup_end']}."
        )
    try:
        if not options.side:
            refuse_data(options.over)
    except Refused as refusal:
        if not options.dry_run:
            raise
        report["refused"] = str(refusal)
    if options.dry_run:
        print(json.dumps(report, indent=2))
        return 0
    if options.side and systemctl("is-active", "--quiet", "mysql-side", check=False) == 0:
        raise Refused("A side instance runs: end it first, which removes its data: systemctl stop mysql-side")
    logs = sum(length for _path, length in target.files)
    work = Path(config["work_directory"])
    purpose = "side" if options.side else "restore"
    say(
        f"restoring {chosen['name']}"
        + (f" and {len(target.files)} binary logs ({logs >> 20} MiB)" if target.files else "")
    )
    identity = options.identity or config["identity"]
    work.mkdir(mode=0o750, parents=True, exist_ok=True)
    fault = space_fault(str(work), chosen["data_size"] + 2 * logs, free(work))
    if not fault and not options.side and os.stat(work).st_dev != os.stat(DATA_DIRECTORY).st_dev:
        fault = space_fault(
            str(DATA_DIRECTORY), chosen["data_size"] + logs, free(DATA_DIRECTORY) + used(DATA_DIRECTORY)
        )
    if fault:
        raise Refused(fault)
    with restored(config, store, chosen, purpose, identity, memory_for_restore()) as instance:
        say(f"unpacked after {time.time() - began:.1f} s")
        with instance as server:
            say(f"started after {time.time() - began:.1f} s")
            forget_channels(server)
            if target.files:
                apply(server, instance.directory / "data", target)
                say(f"applied the binary logs after {time.time() - began:.1f} s")
            report["gtid_executed"] = server.executed()
    if options.side:
        systemctl("start", "mysql-side")
        report["socket"] = str(work / "side" / "mysql.sock")
    else:
        with kept_fenced():
            say(f"ready after {time.time() - began:.1f} s: now the node stops")
            systemctl("stop", "mysql")
            replace_data(work / "restore" / "data")
            say(f"replaced the node's data after {time.time() - began:.1f} s")
            systemctl("start", "mysql")
            systemctl("start", "mysql-open", check=False)  # waits until that was considered
        remove(work / "restore")
        server = connect()
        server.query("SET GLOBAL super_read_only = ON")
        report["server_uuid"] = server.row("SELECT @@server_uuid AS uuid")["uuid"]
    report["seconds"] = round(time.time() - began, 1)
    print(json.dumps(report, indent=2))
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--config", default=CONFIG, help="settings (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    make = command(
        "backup",
        backup,
        "make a full backup, unless this node is the primary, and remove what retention no longer keeps",
    )
    make.add_argument("--on-primary", action="store_true", help="also on the primary")
    command("prune", prune, "remove what retention no longer keeps")
    proof = command("verify", verify, "restore a backup into an instance of its own and check every table")
    proof.add_argument("name", nargs="?", default="", help="the backup (default: the newest)")
    proof.add_argument("--identity", default="", metavar="FILE", help="age identity of encrypted backups")
    shown = command("list", listing, "show what there is")
    shown.add_argument("--json", action="store_true", help="for programs")
    command("check", check, "say whether backups could be made as the settings want them")
    command("stream", stream, "copy the binary logs as they are written (a service runs this)")
    command("copy", copy, "copy everything to the other places of the settings")
    back = command("restore", restore, "restore this node, or an instance beside it; read-only either way")
    back.add_argument("name", nargs="?", default="", help="the backup (default: the newest that can lead there)")
    where = back.add_mutually_exclusive_group()
    where.add_argument(
        "--until",
        metavar="TIME",
        help="to the last transaction before this time: 2026-03-01 09:59:30 (UTC), or with an offset",
    )
    where.add_argument("--before-gtid", metavar="UUID:N", help="to the last transaction before this one")
    back.add_argument("--side", action="store_true", help="into an instance beside the node's own, on a socket alone")
    back.add_argument("--over", action="store_true", help="even if this node holds data, which is lost then")
    back.add_argument(
        "--from", dest="source", metavar="DIRECTORY", help="backups that lie elsewhere, a copy for example"
    )
    back.add_argument("--identity", default="", metavar="FILE", help="age identity of encrypted backups")
    back.add_argument("--dry-run", action="store_true", help="say what would be restored")
    return top


UNLOCKED = (stream, listing, check)


def main() -> int:
    options = parser().parse_args()
    try:
        config = read_json(Path(options.config))
        store = Store(getattr(options, "source", None) or config["directory"])
        with contextlib.nullcontext() if options.run in UNLOCKED else locked(Store(config["directory"])):
            return options.run(config, store, options)
    except Refused as refusal:
        say(f"mysql_backup.py {options.command}: {refusal}")
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"mysql_backup.py {options.command}: {error}")
    except Exception as error:
        if not type(error).__module__.startswith("pymysql"):
            raise
        say(f"mysql_backup.py {options.command}: MySQL: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
