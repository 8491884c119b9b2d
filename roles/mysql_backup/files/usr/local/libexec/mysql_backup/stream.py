"""Copy the binary logs of this node as they are written."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

from binlog import mapped, previous_gtids
from common import read_json, say, write
from decisions import resume, supported
from gtid import GtidSet
from server import SOCKET, Server, connect
from store import Store, publish

MEASURE_EVERY = 5  # seconds between two looks at the stream
STALLED_AFTER = 60  # seconds without a new byte although there are some


def server_log(server: Server, name: str) -> GtidSet:
    """The previous GTIDs of one of the server's binary logs."""
    for event in server.query("SHOW BINLOG EVENTS IN %s LIMIT 3", name):
        if event["Event_type"] == "Previous_gtids":
            return GtidSet(event["Info"])
    return GtidSet()


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
            closed = server.row("SELECT @@GLOBAL.super_read_only AS closed")["closed"]
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
        publish(config, store, not (closed or config["on_primary"]))
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(MEASURE_EVERY)
    return 0 if ending else 1
