# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The part of replication that talks to servers: it reads a node and its source, and carries out a plan."""

from __future__ import annotations

import time

from ansible.module_utils.urls import open_url
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import settings

SYSTEM_DATABASES = ("information_schema", "mysql", "performance_schema", "sys")
PEER_TIMEOUT = 2  # seconds

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
  @@GLOBAL.gtid_executed AS gtid_executed
"""
SOURCE = """
SELECT VERSION() AS version, @@server_uuid AS uuid, @@GLOBAL.super_read_only AS super_read_only,
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


def read_node(server: mysql.Server) -> dict:
    """See mysql_replication for the shape. gtid_executed is read last, so that nothing in it is newer than the rest."""
    channel = _read_channel(server)
    other = server.query("SELECT CHANNEL_NAME FROM performance_schema.replication_connection_configuration")
    databases = [row["Database"] for row in server.query("SHOW DATABASES")]
    replicas = [row["Replica_UUID"] for row in server.query("SHOW REPLICAS")]
    node = server.row(NODE)
    for name in ("gtid_mode", "super_read_only", "read_only", "offline_mode", "clone"):
        node[name] = bool(node[name])
    return {
        **node,
        "gtid_executed": _one_line(node["gtid_executed"]),
        "channel": channel,
        "channels": [row["CHANNEL_NAME"] for row in other if row["CHANNEL_NAME"]],
        "databases": [name for name in databases if name not in SYSTEM_DATABASES],
        "replicas": replicas,
    }


def read_source(server: mysql.Server, node: dict, want: dict) -> dict:
    """See mysql_replication for the shape. Any account may read these variables. The source is read after the node, so
    that what the node applied in between does not look errant; ``server``, the node's, does the arithmetic."""
    try:
        context = mysql.tls(want["source_ssl_ca"], want["source_ssl_verify"])
        there = mysql.Server(
            host=want["source_host"],
            port=want["source_port"],
            user=want["source_user"],
            password=want["source_password"],
            ssl=context,
            read_timeout=mysql.CONNECT_TIMEOUT,
        )
        try:
            source = there.row(SOURCE)
        finally:
            there.close()
    except mysql.MySQLError as error:
        return {"errno": error.number, "error": error.text}
    except OSError as error:
        return {"errno": 2026, "error": f"source_ssl_ca={want['source_ssl_ca']!r}: {error}"}
    reason = mysql.unsupported(source["version"])
    if reason:
        return {"errno": 0, "error": reason}
    here = node["gtid_executed"]
    with_relay_log = f"{here},{(node['channel'] or {}).get('received') or ''}"
    sets = server.row(
        "SELECT GTID_SUBTRACT(%s, %s) AS errant, GTID_SUBTRACT(%s, %s) AS missing, GTID_SUBTRACT(%s, %s) AS purged",
        (here, source["executed"], source["executed"], here, source["purged"], with_relay_log),
    )
    return {
        "uuid": source["uuid"],
        "super_read_only": bool(source["super_read_only"]),
        **{name: _one_line(gtids) for name, gtids in sets.items()},
    }


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

    def __init__(self, server: mysql.Server, connect, node: dict, want: dict):
        """``connect`` opens another connection to the local server: CLONE restarts it."""
        self.server, self._connect, self._node, self._want = server, connect, node, want

    def run(self, action: str) -> None:
        getattr(self, action)()

    def fence(self) -> None:
        self.server.query("SET GLOBAL super_read_only = ON")

    def open(self) -> None:
        self.server.query("SET GLOBAL super_read_only = OFF")
        self.server.query("SET GLOBAL read_only = OFF")

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
        """Copy the source over this node (MySQL manual, "Cloning Remote Data").

        CLONE needs super_read_only=OFF. For that time offline_mode=ON keeps everybody out but administrators, so that
        nobody takes a node without data for the primary. mysqld restarts at the end, which ends both.
        """
        want, node = self._want, self._node
        running = node["channel"] and "ON" in (node["channel"]["io"], node["channel"]["applier"])
        try:
            self.server.query("SET GLOBAL offline_mode = ON")
            self.server.query(
                "SET GLOBAL clone_valid_donor_list = %s", (f"{want['source_host']}:{want['source_port']}",)
            )
            self.server.query("SET GLOBAL clone_ssl_ca = %s", (want["source_ssl_ca"] or "",))
            self.server.query("SET GLOBAL super_read_only = OFF")
            self.server.query(
                "CLONE INSTANCE FROM %s@%s:%s IDENTIFIED BY %s REQUIRE SSL",
                (want["source_user"], want["source_host"], want["source_port"], want["source_password"]),
            )
        except mysql.MySQLError as error:
            # 3707: copied, but nothing is there that restarts mysqld; 2006, 2013: it restarts.
            if error.number not in (2006, 2013, 3707):
                self.server.query("SET GLOBAL super_read_only = ON")
                self.server.query("SET GLOBAL offline_mode = %s", (node["offline_mode"],))
                if running:
                    self.start()
                raise
        self.server = self._reconnect()
        self.fence()
        if _read_channel(self.server):  # A clone of a replica brings its channel, and mysqld has started it.
            self.stop()
            self.reset()

    def _reconnect(self) -> mysql.Server:
        """The server after its restart. MySQLError if it is not back, or the copy not completed, in time."""
        until = time.monotonic() + self._want["timeout"]
        while True:
            try:
                server = self._connect()
                status = (
                    server.row(
                        "SELECT STATE AS state, ERROR_NO AS number, ERROR_MESSAGE AS text"
                        " FROM performance_schema.clone_status"
                    )
                    or {}
                )
                if status.get("state") == "Completed":
                    return server
                error = mysql.MySQLError(status.get("number", 0), status.get("text") or "CLONE has not completed")
                if status.get("state") == "Failed":
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
