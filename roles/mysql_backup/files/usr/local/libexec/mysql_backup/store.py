"""The directory of the backups."""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Iterator
from pathlib import Path

from binlog import Transactions, mapped, previous_gtids, transactions
from common import Refused, read_json, say, write
from decisions import Line, LogFile, metrics
from gtid import GtidSet


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
        base = GtidSet(line["base"])
        try:
            files = []
            for path in paths:
                with mapped(path) as log:
                    files.append(LogFile(path, base | previous_gtids(log), path.stat().st_mtime))
            ended = Transactions()
            if files:
                with mapped(path) as log:
                    for transaction in transactions(log):
                        ended.add(transaction.gtid)
        except Refused as fault:
            raise Refused(f"{path}: {fault}") from fault
        end = files[-1].previous | ended.gathered() if files else GtidSet()
        return Line(directory.name, files, end, line["began"])


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Nothing else changes backups meanwhile. The stream adds to its own files and needs no lock."""
    with (store.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another mysql_backup to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def publish(config: dict, store: Store, spared: bool) -> None:
    directory = Path(config["metrics_directory"])
    directory.mkdir(parents=True, exist_ok=True)
    states = (read_json(store.path / f"{name}.json", {}) for name in ("verification", "stream", "copies"))
    write(directory / "webstack_mysql_backup.prom", metrics(store.backups(), *states, spared), 0o644, durable=False)
