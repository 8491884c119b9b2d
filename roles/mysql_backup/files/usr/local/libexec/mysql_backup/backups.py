"""Make backups, remove the old ones, prove one by restoring it, and copy them elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from archive import pack, unpack
from common import Refused, free, read_json, remove, say, used, write
from decisions import (
    choose,
    expired,
    faults,
    out_of_reach,
    outdated,
    space_fault,
    stamp,
    supported,
    unneeded,
    version_of,
)
from gtid import GtidSet
from server import Instance, Server, connect, spared
from store import Store, publish

RCLONE_CONFIG = "/etc/mysql/webstack-rclone.conf"
# Settings that the data files depend on.
SETTINGS = ("lower_case_table_names", "innodb_page_size", "innodb_data_file_path")


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
        "SELECT @@GLOBAL.super_read_only AS read_only, @@server_uuid AS uuid, @@GLOBAL.gtid_purged AS purged, @@datadir AS data"
    )
    if not node["read_only"] and not (options.on_primary or config["on_primary"]):
        say("No backup: this node is the primary, and it is spared (--on-primary, mysql_backup_on_primary).")
        return prune(config, store, options)
    others = server.query(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) AS name FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'"
        " AND ENGINE <> 'InnoDB' AND TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')"
    )
    left_out = [row["name"] for row in others]
    if left_out:
        say(f"left out, since CLONE copies InnoDB alone: {', '.join(left_out)}")
    clone = work_directory(config, "clone")
    refuse_lack_of_space(clone.parent, store, used(Path(node["data"]), r"(binlog|relay)|#innodb_(redo|temp)|ibtmp"))
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
    now, primary = time.time(), spared(config)
    for name in expired(store.backups(), now, config["keep"], config["keep_days"]):
        say(f"removing the backup {name}")
        remove(store.full / name)
    kept = store.backups()
    remove_logs(store, *unneeded(store.lines(), kept))
    if primary:  # No new backup will ever make the next ones unneeded.
        remove_logs(store, *outdated(store.lines(), out_of_reach(kept, now, config["keep_days"])))
    publish(config, store, primary)
    return 0


def remove_logs(store: Store, files: list[Path], lines: list[str]) -> None:
    for path in files:
        say(f"removing the binary log {path}")
        path.unlink()
    for name in lines:
        say(f"removing the binary logs {name}")
        remove(store.binlogs / name)


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
    primary = spared(config)
    if primary and not options.name:
        say("Nothing is verified: this node is the primary, and it is spared. Name a backup to verify it all the same.")
        publish(config, store, primary)
        return 0
    began, name, result = time.time(), "", {}
    try:
        chosen = choose(store.backups(), options.name)
        name = chosen["name"]
        identity = options.identity or config["identity"]
        with restored(config, store, chosen, "verify", identity, 128 << 20) as instance, instance as server:
            executed = server.executed()
            if not GtidSet(chosen["gtid_executed"]) <= GtidSet(executed):
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
        publish(config, store, primary)
    return 0


def listing(_config: dict, store: Store, options) -> int:
    """What there is, for people or (--json) for programs."""
    lines = [
        {"name": line.name, "files": len(line.files), "from": str(line.begin), "to": str(line.end)}
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


def copy_command(config: dict, copy: dict) -> list[str]:
    """The command that brings the backups to another place. Encrypted backups are not followed there by plain binary logs."""
    source = config["directory"].rstrip("/") + "/"
    skipped = ["full/*.partial", *([] if copy.get("binlogs", not config["recipient"]) else ["binlogs"])]
    if copy.get("tool", "rsync") == "rclone":
        action = "sync" if copy.get("delete") else "copy"
        # The timer tries again: a place that does not answer must not hold the others up for minutes.
        options = ["--contimeout=10s", "--low-level-retries=3", "--retries=1", "--exclude=.*"]
        options += [f"--exclude=/{name}/**" for name in skipped]
        return ["rclone", f"--config={RCLONE_CONFIG}", action, *options, source, copy["target"]]
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o UpdateHostKeys=no -o StrictHostKeyChecking=yes" + (
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
    publish(config, store, spared(config))
    if failed:
        raise Refused(f"not copied: {', '.join(failed)}")
    return 0
