"""The MySQL server of this node, and others on the files of a backup."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

from common import Refused, write
from decisions import instance_options, options_of

SOCKET = "/run/mysqld/mysqld.sock"
SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")


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


def spared(config: dict) -> bool:
    """Whether this node is left in peace as the primary, for which a replica makes the backups. Not so where mysqld does not say."""
    if config["on_primary"]:
        return False
    try:
        server = connect()
    except Refused:
        return False
    try:
        return not server.row("SELECT @@GLOBAL.super_read_only AS closed")["closed"]
    finally:
        server.close()


def configured() -> dict[str, str]:
    """The options that mysqld would start with. It need not run."""
    command = ["mysqld", "--verbose", "--help"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"mysqld does not accept its configuration: {done.stderr.strip()}")
    return options_of(done.stdout)


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
