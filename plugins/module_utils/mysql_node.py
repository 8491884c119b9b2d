# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The part of replication that talks to servers: it reads a node and its source, and carries out a plan."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress

from ansible.module_utils.urls import open_url
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import (
    donor_fault,
    seeding,
    semi_sync,
    settings,
    stalled,
)

SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")
PEER_TIMEOUT = 2  # seconds
HEARTBEAT_WITHIN = 10  # seconds that a source may take to see that a replica has left
COMMITS_WITHIN = 5  # seconds that a source may take for a commit that a replica has acknowledged
FOR_EVER = 4294967295  # ms, the longest rpl_semi_sync_source_timeout: commits never go on without a replica
STALLED = (
    "every commit waits there for a replica, and none is attached: a copy would wait for the commits, and they for the copy. On it: "
    "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF. Then commits go on without a replica until this one is attached"
)
DONOR_BUSY = "Too many concurrent clone operations"  # A donor is copied by one node at a time.

CHANNEL = """
SELECT configuration.HOST AS host, configuration.PORT AS port, configuration.USER AS user,
  info.User_password AS password, configuration.AUTO_POSITION = '1' AS auto_position,
  configuration.SSL_ALLOWED = 'YES' AS ssl_on, configuration.SSL_CA_FILE AS ssl_ca,
  configuration.SSL_VERIFY_SERVER_CERTIFICATE = 'YES' AS ssl_verify,
  configuration.CONNECTION_RETRY_INTERVAL AS connect_retry, configuration.CONNECTION_RETRY_COUNT AS retry_count,
  configuration.HEARTBEAT_INTERVAL AS heartbeat,
  connection.SERVICE_STATE AS io, connection.LAST_ERROR_NUMBER AS io_errno, connection.LAST_ERROR_MESSAGE AS io_error,
  connection.RECEIVED_TRANSACTION_SET AS received, connection.SOURCE_UUID AS source_uuid,
  applier.SERVICE_STATE AS applier
FROM performance_schema.replication_connection_configuration AS configuration
JOIN performance_schema.replication_connection_status AS connection USING (CHANNEL_NAME)
JOIN performance_schema.replication_applier_status AS applier USING (CHANNEL_NAME)
JOIN mysql.slave_master_info AS info USING (CHANNEL_NAME)
WHERE CHANNEL_NAME = ''
"""
# The worker says what failed; the coordinator only that a worker did.
APPLIER_ERROR = """
SELECT LAST_ERROR_NUMBER AS number, LAST_ERROR_MESSAGE AS text
FROM performance_schema.replication_applier_status_by_{} WHERE CHANNEL_NAME = '' AND LAST_ERROR_NUMBER <> 0
"""
NODE = """
SELECT @@server_uuid AS uuid, @@GLOBAL.gtid_mode = 'ON' AS gtid_mode, @@GLOBAL.super_read_only AS super_read_only,
  @@GLOBAL.read_only AS read_only, @@GLOBAL.offline_mode AS offline_mode,
  EXISTS (SELECT * FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone' AND PLUGIN_STATUS = 'ACTIVE') AS clone,
  EXISTS (SELECT * FROM performance_schema.replication_group_members
    WHERE MEMBER_ID = @@server_uuid AND MEMBER_STATE <> 'OFFLINE') AS in_group,
  @@GLOBAL.gtid_executed AS gtid_executed
"""
# Anybody may read these tables, which list nothing of a plugin that is not loaded.
VARIABLES = """
SELECT LOWER(VARIABLE_NAME) AS name, VARIABLE_VALUE AS value FROM performance_schema.global_variables
WHERE VARIABLE_NAME LIKE 'rpl\\_semi\\_sync\\_%' OR VARIABLE_NAME = 'clone_valid_donor_list'
UNION ALL
SELECT LOWER(VARIABLE_NAME), VARIABLE_VALUE FROM performance_schema.global_status
WHERE VARIABLE_NAME IN ('Rpl_semi_sync_source_status', 'Rpl_semi_sync_source_clients', 'Rpl_semi_sync_replica_status')
"""
# Of the last copy over this node. There is none, and not even the tables, without the plugin.
COPY = """
SELECT STATE AS copy, ERROR_NO AS number, ERROR_MESSAGE AS text, EXISTS (
  SELECT * FROM performance_schema.clone_progress WHERE STAGE = 'DROP DATA' AND STATE <> 'Not Started') AS emptied
FROM performance_schema.clone_status
"""
PROGRESS = """
SELECT DATA AS done, ESTIMATE AS whole FROM performance_schema.clone_progress
WHERE STAGE = 'FILE COPY' AND STATE = 'In Progress'
"""
SOURCE = """
SELECT VERSION() AS version, @@server_uuid AS uuid, @@GLOBAL.super_read_only AS super_read_only,
  EXISTS (SELECT * FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone' AND PLUGIN_STATUS = 'ACTIVE') AS clone,
  @@GLOBAL.gtid_purged AS purged, @@GLOBAL.gtid_executed AS executed
"""


def _one_line(gtids: str | None) -> str:
    return (gtids or "").replace("\n", "")


def _read_channel(server: mysql.Server) -> dict | None:
    channel = server.row(CHANNEL)
    if channel is None:
        return None
    for name in ("auto_position", "ssl_on", "ssl_verify"):
        channel[name] = bool(channel[name])
    channel["ssl"] = channel.pop("ssl_on")
    channel["heartbeat"] = float(channel["heartbeat"])
    error = server.row(APPLIER_ERROR.format("worker")) or server.row(APPLIER_ERROR.format("coordinator")) or {}
    channel["applier_errno"], channel["applier_error"] = error.get("number", 0), error.get("text", "")
    channel["lag"] = (server.row("SHOW REPLICA STATUS FOR CHANNEL ''") or {}).get("Seconds_Behind_Source")
    return channel


def _read_replicas(server: mysql.Server) -> list[str]:
    return [row["Replica_UUID"] for row in server.query("SHOW REPLICAS")]


def read_node(server: mysql.Server) -> dict:
    """See mysql_replication for the shape. gtid_executed is read last, so that nothing in it is newer than the rest."""
    channel = _read_channel(server)
    other = server.query("SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration")
    databases = [row["Database"] for row in server.query("SHOW DATABASES")]
    replicas = _read_replicas(server)
    values = {row["name"]: row["value"] for row in server.query(VARIABLES)}
    node = server.row(NODE)
    copy = (server.row(COPY) if node["clone"] else None) or {"copy": None, "emptied": False}
    for name in ("gtid_mode", "super_read_only", "read_only", "offline_mode", "clone", "in_group"):
        node[name] = bool(node[name])
    databases = [name for name in databases if name not in SYSTEM_DATABASES]
    donors = values.get("clone_valid_donor_list") or ""
    return {
        **node,
        "gtid_executed": _one_line(node["gtid_executed"]),
        "semi_sync": semi_sync(values),
        "seeding": seeding(copy["copy"], bool(copy["emptied"]), databases, node["offline_mode"], donors),
        "channel": channel,
        "channels": [row["CHANNEL_NAME"] for row in other if row["CHANNEL_NAME"]],
        "databases": databases,
        "replicas": replicas,
    }


def _ask(host: str, port: int, want: dict) -> dict:
    """SOURCE and semi_sync(), as the replication account reads them there, or ``{"errno", "error"}``."""
    try:
        there = mysql.Server(
            host=host,
            port=port,
            user=want["source_user"],
            password=want["source_password"],
            ssl=mysql.tls(want["source_ssl_ca"], want["source_ssl_verify"]),
            read_timeout=mysql.CONNECT_TIMEOUT,
        )
        try:
            answer = there.row(SOURCE)
            answer["semi_sync"] = semi_sync({row["name"]: row["value"] for row in there.query(VARIABLES)})
        finally:
            there.close()
    except mysql.MySQLError as error:
        return {"errno": error.number, "error": error.text}
    except OSError as error:
        return {"errno": 2026, "error": f"source_ssl_ca={want['source_ssl_ca']!r}: {error}"}
    reason = mysql.unsupported(answer["version"])
    return {"errno": 0, "error": reason} if reason else answer


def _compare(server: mysql.Server, source: dict, executed: str, received: str = "") -> dict:
    """What a node with these GTID sets has more and less than the source; ``server`` does the arithmetic."""
    sets = server.row(
        "SELECT GTID_SUBTRACT(%s, %s) AS errant, GTID_SUBTRACT(%s, %s) AS missing, GTID_SUBTRACT(%s, %s) AS purged",
        (executed, source["executed"], source["executed"], executed, source["purged"], f"{executed},{received}"),
    )
    return {name: _one_line(gtids) for name, gtids in sets.items()}


def _forget(server: mysql.Server, node: dict, source: dict) -> None:
    """Wait until the node knows that an open source is not its replica any more: mysqld takes who has left for a replica
    until the next heartbeat that it cannot send."""
    until = time.monotonic() + HEARTBEAT_WITHIN
    while source["uuid"] in node["replicas"] and not source["super_read_only"] and time.monotonic() < until:
        time.sleep(0.2)
        node["replicas"] = _read_replicas(server)


def read_source(server: mysql.Server, node: dict, want: dict) -> dict:
    """See mysql_replication for the shape. Any account may read these variables. The source is read after the node, so
    that what the node applied in between does not look errant.

    With semi-synchronous replication a replica may have applied what its source still waits to commit: what looks errant
    is looked at again until it is there, or for a while."""
    received = (node["channel"] or {}).get("received") or ""
    until = time.monotonic() + COMMITS_WITHIN
    while True:
        source = _ask(want["source_host"], want["source_port"], want)
        if "error" in source:
            return source
        _forget(server, node, source)
        sets = _compare(server, source, node["gtid_executed"], received)
        if source["uuid"] not in sets["errant"] or time.monotonic() > until:
            return {"uuid": source["uuid"], "super_read_only": bool(source["super_read_only"]), **sets}
        time.sleep(0.2)


def find_donors(server: mysql.Server, node: dict, want: dict) -> tuple[list[tuple[str, int]], dict[str, str]]:
    """Where to copy the data from, in the order in which to try: replicas that serve, then the source. And why others do
    not. Each is asked over a connection that verifies its certificate; CLONE itself verifies only the authority.

    Nothing is copied from a source whose commits are stalled: CLONE waits for a commit that waits for a replica."""
    answers = {(donor["host"], donor["port"]): _ask(donor["host"], donor["port"], want) for donor in want["seed_from"]}
    source = _ask(want["source_host"], want["source_port"], want)
    faults = {}
    for where, donor in answers.items():
        if "error" not in donor and "error" not in source:
            donor.update(_compare(server, source, donor["executed"]))
        faults[where] = donor_fault(donor, node)
    suitable = [where for where, fault in faults.items() if not fault]
    last = (want["source_host"], want["source_port"])
    if "error" not in source and stalled(source):
        faults[last] = STALLED
    else:
        suitable.append(last)
    return suitable, {f"{host}:{port}": fault for (host, port), fault in faults.items() if fault}


def ask_peers(urls: list[str]) -> tuple[list[str], list[str]]:
    """The peers that say they are writable, and those that do not answer."""
    yes, silent = [], []
    for url in urls:
        try:
            if open_url(url, timeout=PEER_TIMEOUT, use_proxy=False, follow_redirects="none").getcode() == 200:
                yes.append(url)
        except Exception as error:  # open_url raises many kinds; only one with a code is an answer
            if not hasattr(error, "code"):
                silent.append(url)
    return yes, silent


class Executor:
    """Carries out the actions of a plan on the local server, each a method of its name."""

    def __init__(self, server: mysql.Server, connect, node: dict, want: dict, log=lambda text: None):
        """``connect`` opens another connection to the local server, ``log`` takes a line on how far a copy is."""
        self.server, self._connect, self._node, self._want, self._log = server, connect, node, want, log

    def run(self, action: str) -> None:
        getattr(self, action)()

    def fence(self) -> None:
        self.server.query("SET GLOBAL super_read_only = ON")

    def open(self) -> None:
        """Let applications write, each commit kept by a replica as soon as one is attached."""
        if self._node["semi_sync"]:
            self.semi_sync_on()
        self.server.query("SET GLOBAL super_read_only = OFF")
        self.server.query("SET GLOBAL read_only = OFF")

    def arm(self) -> None:
        """Let no commit go on without a replica, from the first one on, where that is the choice (``mysql_server_when_alone: stall``).

        For a node that others have replicated with before it is opened. One that never had a replica must take what its first one
        is seeded with: it begins to stall when that is attached, by its own service."""
        if self._node["semi_sync"] and self._node["semi_sync"]["timeout_ms"] == FOR_EVER:
            self.server.query("SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON")

    def semi_sync_on(self) -> None:
        self.server.query("SET GLOBAL rpl_semi_sync_source_enabled = ON")

    def semi_sync_off(self) -> None:
        self.server.query("SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF")
        self.server.query("SET GLOBAL rpl_semi_sync_source_enabled = OFF")

    def online(self) -> None:
        """End what the beginning of a seeding has set."""
        self.server.query("SET GLOBAL offline_mode = OFF")
        self.server.query("SET GLOBAL clone_valid_donor_list = DEFAULT")

    def stop(self) -> None:
        self.server.query("STOP REPLICA FOR CHANNEL ''")

    def start(self) -> None:
        self.server.query("START REPLICA FOR CHANNEL ''")

    def reset(self) -> None:
        self.server.query("RESET REPLICA ALL FOR CHANNEL ''")

    def configure(self) -> None:
        channel = settings(self._want)
        self.server.query(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s,"
            " SOURCE_SSL_CA = %s, SOURCE_SSL_VERIFY_SERVER_CERT = %s, SOURCE_AUTO_POSITION = %s, SOURCE_SSL = %s,"
            " SOURCE_CONNECT_RETRY = %s, SOURCE_RETRY_COUNT = %s, SOURCE_HEARTBEAT_PERIOD = %s FOR CHANNEL ''",
            tuple(int(value) if isinstance(value, bool) else value for value in channel.values()),
        )

    def renew(self) -> None:
        """Give the receiver another password. What it has received is applied meanwhile."""
        self.server.query("STOP REPLICA IO_THREAD FOR CHANNEL ''")
        self.server.query(
            "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = %s FOR CHANNEL ''", (self._want["source_password"],)
        )
        self.server.query("START REPLICA IO_THREAD FOR CHANNEL ''")

    def clone(self) -> None:
        """Copy a replica or the source over this node (MySQL manual, "Cloning Remote Data").

        CLONE needs super_read_only=OFF. For that time offline_mode=ON keeps everybody out but administrators, so that
        nobody takes a node without data for the primary. mysqld restarts at the end, which ends both. The list of donors
        is set first: together with offline_mode it tells that a run was ended in the middle; see seeding().
        """
        want, node = self._want, self._node
        until = time.monotonic() + want["timeout"]
        error = None
        while error is None or (DONOR_BUSY in error.text and time.monotonic() < until):
            if error:
                time.sleep(2)
            donors, unsuitable = find_donors(self.server, node, want)
            if not donors:
                error = mysql.MySQLError(0, "; ".join(f"{where}: {fault}" for where, fault in unsuitable.items()))
                break
            self.server.query(
                "SET GLOBAL clone_valid_donor_list = %s", (",".join(f"{host}:{port}" for host, port in donors),)
            )
            self.server.query("SET GLOBAL offline_mode = ON")
            self.server.query("SET GLOBAL clone_ssl_ca = %s", (want["source_ssl_ca"] or "",))
            self.server.query("SET GLOBAL super_read_only = OFF")
            for host, port in donors:
                error = self._copy(host, port)
                if error is None:
                    return self._adopt()
                self._log(f"{host}:{port} cannot be copied: {error}")
        self.server.query("SET GLOBAL super_read_only = ON")
        self.online()
        if node["offline_mode"] and not node["seeding"]:
            self.server.query("SET GLOBAL offline_mode = ON")
        running = node["channel"] and "ON" in (node["channel"]["io"], node["channel"]["applier"])
        if running and node["databases"] == read_node(self.server)["databases"]:
            self.start()
        raise error

    def _copy(self, host: str, port: int) -> mysql.MySQLError | None:
        """CLONE from there. None when mysqld restarts with the copy, else the error."""
        want = self._want
        with self._progress(f"{host}:{port}"):
            try:
                self.server.query(
                    "CLONE INSTANCE FROM %s@%s:%s IDENTIFIED BY %s REQUIRE SSL",
                    (want["source_user"], host, port, want["source_password"]),
                )
            except mysql.MySQLError as error:
                # 3707: copied, but nothing is there that restarts mysqld; 2006, 2013: it restarts.
                return None if error.number in (2006, 2013, 3707) else error
        return None

    def await_copy(self) -> None:
        """Wait for the copy that another run began: mysqld goes on with it when the run is ended."""
        with self._progress("its donor"), suppress(mysql.MySQLError):  # The connection ends when mysqld restarts.
            while (self.server.row(COPY) or {}).get("copy") == "In Progress":
                time.sleep(1)
        self._adopt()

    def _adopt(self) -> None:
        """Take over the copy once mysqld has restarted with it."""
        self.server = self._reconnect()
        self.fence()
        if _read_channel(self.server):  # A clone of a replica brings its channel, and mysqld has started it.
            self.stop()
            self.reset()

    @contextmanager
    def _progress(self, donor: str):
        """Log each tenth of the copy, over a connection of its own: CLONE keeps the other one busy."""
        over = threading.Event()

        def watch():
            logged = -1
            try:
                server = self._connect()
                while True:
                    row = server.row(PROGRESS) or {}
                    tenth = 10 * row["done"] // row["whole"] if row.get("whole") else -1
                    if tenth > logged:
                        logged = tenth
                        self._log(f"copied {10 * tenth} % of {row['whole'] / 2**20:.0f} MiB from {donor}")
                    if over.wait(1):
                        return
            except mysql.MySQLError:
                """mysqld restarts."""

        self._log(f"copying {donor} over this node")
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _reconnect(self) -> mysql.Server:
        """The server after its restart. MySQLError if it is not back, or the copy not completed, in time."""
        until = time.monotonic() + self._want["timeout"]
        while True:
            try:
                server = self._connect()
                status = server.row(COPY) or {}
                if status.get("copy") == "Completed":
                    return server
                error = mysql.MySQLError(status.get("number", 0), status.get("text") or "CLONE has not completed")
                if status.get("copy") == "Failed":
                    until = 0
            except mysql.MySQLError as reason:
                error = reason
            if time.monotonic() > until:
                raise mysql.MySQLError(
                    error.number,
                    f"The copy was made, but after {self._want['timeout']} s the server does not answer with it: "
                    f"{error.text}. Start mysqld and run again.",
                )
            time.sleep(0.5)
