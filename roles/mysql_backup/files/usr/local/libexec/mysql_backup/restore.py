"""Restore a backup and the binary logs after it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from backups import restored
from common import Refused, free, remove, say, used
from decisions import Target, choose, elsewhere, find_target, moment, segments, since, space_fault, stamp
from gtid import GtidSet
from server import SYSTEM_DATABASES, Server, configured, connect, memory_for_restore
from store import Store

GROUP_UNIT = Path("/etc/systemd/system/mysql-group.service")  # of the role mysql_group
RUNTIME_UNITS = Path("/run/systemd/system")
ANSWER_WITHIN = 2.0  # seconds for a state service


def data_directory(needed: list[Path]) -> Path:
    """What is replaced. Refused where that would be half of the node's data, or more than that: ``needed`` must not lie there."""
    options = configured()
    data = Path(options["datadir"])
    fault = ""
    if outside := elsewhere(options, data):
        fault = (
            f"mysqld keeps data outside of its data directory {data}, which alone a restore replaces: {', '.join(outside)}. Move it there "
            "(mysql_server_settings)"
        )
    if inside := [str(path) for path in needed if path.resolve().is_relative_to(data.resolve())]:
        fault = (
            f"{', '.join(inside)} lies in the data directory {data}, and would be removed with it. Move it elsewhere"
        )
    if fault:
        raise Refused(
            f"{fault}, or restore into an instance beside the node's own (--side, restore_to=side). Nothing was changed."
        )
    return data


def group_peers() -> list[str]:
    """The state services of the other members, where this node belongs to a replication group."""
    return re.findall(r"--peer (\S+)", GROUP_UNIT.read_text()) if GROUP_UNIT.exists() else []


def ask(url: str) -> dict:
    """What a state service says, nothing where there is no answer."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=ANSWER_WITHIN) as answer:
            return json.load(answer)
    except HTTPError as error:  # which is how a node says that it is closed
        with contextlib.suppress(OSError, ValueError):
            return json.load(error)
    except (OSError, ValueError):
        pass
    return {}


def refuse_working_group() -> None:
    """A member that is restored would join the others again, and they would give it back what was undone."""
    working = [url for url in group_peers() if (ask(url).get("group") or {}).get("quorum")]
    if working:
        raise Refused(
            f"This node belongs to a replication group, which works without it ({', '.join(working)}): as a member it would get back all that a "
            "restore undoes. Nothing was changed. To take out a part, restore into an instance beside the node's own (--side, restore_to=side). To put "
            "the whole group back, stop mysqld on the other members first (systemctl stop mysql)."
        )


def holds_data(data: Path) -> tuple[list[str], int]:
    """Databases of the node's users, and how many replicas read from it."""
    try:
        server = connect()
        return server.databases(), len(server.query("SHOW REPLICAS"))
    except Refused:  # what does not run may hold data all the same
        own = [path.name for path in data.glob("*/") if path.name[0] != "#"]
        return [name for name in own if name not in (*SYSTEM_DATABASES, "lost+found")], 0


def refuse_data(data: Path, over: bool) -> None:
    databases, replicas = holds_data(data)
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
    # If this is interrupted, all of it is thrown away. The redo log is on again before the files count.
    server.query("ALTER INSTANCE DISABLE INNODB REDO_LOG")
    until = f"UNTIL SQL_BEFORE_GTIDS = '{target.stop_before}'" if target.stop_before else ""
    server.query(f"START REPLICA SQL_THREAD {until} {channel}")
    told = time.monotonic()
    while True:
        status = server.row(f"SHOW REPLICA STATUS {channel}")
        if status["Last_SQL_Errno"]:
            raise Refused(f"The binary logs cannot be applied: {status['Last_SQL_Error']}")
        over = status["Replica_SQL_Running"] == "No"
        if over or (not target.stop_before and target.expected <= GtidSet(server.executed())):
            break
        if time.monotonic() - told > 10:
            told = time.monotonic()
            say(f"applying {status['Relay_Log_File']} of {len(names)}")
        time.sleep(0.2)
    server.query(f"STOP REPLICA {channel}")
    missing = target.expected - GtidSet(server.executed())
    if missing:
        raise Refused(f"The binary logs were applied, and {missing} is missing.")
    server.query(f"RESET REPLICA ALL {channel}")
    server.query("ALTER INSTANCE ENABLE INNODB REDO_LOG")


def replace_data(place: Path, data: Path) -> None:
    """Put the restored files in the place of the node's. What SET PERSIST and Debian's package have noted there stays, and its keys."""
    for pattern in ("mysqld-auto.cnf", "debian-*.flag", "*.pem"):
        for kept in place.glob(pattern):
            subprocess.run(["cp", "--archive", str(kept), str(data)], check=True)
    place.mkdir(mode=0o700, exist_ok=True)
    for path in list(place.iterdir()):
        if path.is_dir() and not path.is_symlink():
            if path.name != "lost+found":
                shutil.rmtree(path)
        else:
            path.unlink()
    subprocess.run(["mv", f"--target-directory={place}", *map(str, data.iterdir())], check=True)
    shutil.chown(place, "mysql", "mysql")
    subprocess.run(["sync", "--file-system", str(place)], check=True)  # mysqld has not written all of it


@contextlib.contextmanager
def kept_fenced() -> Iterator[None]:
    """mysqld starts read-only; what would open a primary after a restart, or take a member back into its group, does not run meanwhile."""
    drop_ins = [RUNTIME_UNITS / f"{unit}.service.d" / "restore.conf" for unit in ("mysql-open", "mysql-group")]
    for drop_in in drop_ins:
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text(f"[Unit]\nConditionPathExists=!{drop_in}\n")
    systemctl("daemon-reload")
    try:
        yield
    finally:
        for drop_in in drop_ins:
            shutil.rmtree(drop_in.parent)
        systemctl("daemon-reload")


def systemctl(*words: str, check: bool = True) -> int:
    return subprocess.run(["systemctl", *words], check=check).returncode


def one_transaction(text: str) -> str:
    try:
        gtids = GtidSet(text)
    except ValueError as error:
        raise Refused(f"--before-gtid: {error}") from error
    if len(gtids) != 1:
        raise Refused(f"--before-gtid {text}: name one transaction, as uuid:23.")
    return str(gtids)


def plan(store: Store, options) -> tuple[dict, Target]:
    """Which backup, and what of the binary logs after it."""
    until = moment(options.until) if options.until else None
    before = options.before_gtid and one_transaction(options.before_gtid)
    if until is not None and until > time.time():
        raise Refused(f"--until {options.until}: that is yet to come; times are UTC unless they say otherwise.")
    chosen = choose(store.backups(), options.name, until, before)
    executed = GtidSet(chosen["gtid_executed"])
    found = [] if options.no_binlogs else segments(since(store.lines(), chosen["begin"]), executed)
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
            place = data_directory([store.path, Path(config["directory"]), Path(config["work_directory"])])
            refuse_working_group()
            refuse_data(place, options.over)
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
    if not fault and not options.side and os.stat(work).st_dev != os.stat(place).st_dev:
        fault = space_fault(str(place), chosen["data_size"] + logs, free(place) + used(place))
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
            replace_data(place, work / "restore" / "data")
            say(f"replaced the node's data after {time.time() - began:.1f} s")
            systemctl("start", "mysql")
            systemctl("start", "mysql-open", check=False)  # waits until that was considered
        remove(work / "restore")
        server = connect()
        server.query("SET GLOBAL super_read_only = ON")
        report |= server.row("SELECT @@server_uuid AS server_uuid, @@report_host AS address")
        report["group"] = bool(group_peers())
    report["seconds"] = round(time.time() - began, 1)
    print(json.dumps(report, indent=2))
    return 0
