# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What a MySQL node tells about itself. It only reads; the shape is what mysql_replica_info returns."""

from __future__ import annotations

import os
import ssl
import time

from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_node import SYSTEM_DATABASES, read_node
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import writable

# Of a node that does not answer.
UNKNOWN = {
    **dict.fromkeys(("uuid", "server_id", "address", "port", "version", "super_read_only", "read_only")),
    **dict.fromkeys(("offline_mode", "gtid_executed", "gtid_purged", "channel", "semi_sync", "group")),
    "databases": [],
    "replicas": [],
    "channels": [],
    "error": None,
}
GROUP_CHANNELS = ("group_replication_applier", "group_replication_recovery")

SERVER = """
SELECT @@GLOBAL.server_id AS server_id, @@GLOBAL.report_host AS address, @@GLOBAL.port AS port, VERSION() AS version,
  @@GLOBAL.gtid_purged AS gtid_purged
"""
# The table lists nothing of a plugin that is not loaded.
GROUP = """
SELECT VARIABLE_NAME AS name, VARIABLE_VALUE AS value FROM performance_schema.global_variables
WHERE VARIABLE_NAME IN ('group_replication_group_name', 'group_replication_single_primary_mode')
"""
# Group Replication keeps one row, without an id, of a member that has not started.
MEMBERS = """
SELECT MEMBER_HOST AS host, MEMBER_PORT AS port, MEMBER_ID AS uuid, MEMBER_STATE AS state, MEMBER_ROLE AS role
FROM performance_schema.replication_group_members ORDER BY MEMBER_ID
"""
TABLES = """
SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) AS name FROM information_schema.TABLES AS t
WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN %s AND NOT EXISTS (
  SELECT * FROM information_schema.TABLE_CONSTRAINTS AS c
  WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.CONSTRAINT_TYPE = 'PRIMARY KEY')
ORDER BY name
"""
ACCOUNTS = """
SELECT User AS user, Host AS host, plugin, authentication_string <> '' AS password, ssl_type AS tls,
  account_locked = 'Y' AS locked FROM mysql.user ORDER BY user, host
"""
PRIVILEGES = """
SELECT GRANTEE AS account, PRIVILEGE_TYPE AS privilege FROM information_schema.USER_PRIVILEGES
WHERE PRIVILEGE_TYPE <> 'USAGE' ORDER BY account, privilege
"""
CERTIFICATE = """
SELECT PROPERTY AS name, VALUE AS value FROM performance_schema.tls_channel_status
WHERE CHANNEL = 'mysql_main' AND PROPERTY IN ('Current_tls_cert', 'Ssl_server_not_after')
"""
DISK = """
SELECT @@GLOBAL.datadir AS data, @@GLOBAL.log_bin_basename AS binary_logs,
  @@GLOBAL.binlog_expire_logs_seconds AS expire_seconds
"""


def name_state(node: dict) -> str:
    """One word for what the node is, of those that mysql_replica_info documents."""
    # A seeding that was ended in the middle is no decision to take the node out of service: the next run mends it.
    if node["offline_mode"] and not node.get("seeding"):
        return "offline"
    members = (node["group"] or {}).get("members", [])
    if any(member["uuid"] == node["uuid"] and member["state"] != "OFFLINE" for member in members):
        return "group"
    if node["channel"] or [name for name in node["channels"] if name not in GROUP_CHANNELS]:
        return "replica"
    return "primary" if writable(node) else "fenced"


def group(values: dict[str, str], members: list[dict]) -> dict | None:
    """The group that the node is configured for. None where the plugin is not loaded, or has no group."""
    name = values.get("group_replication_group_name")
    if not name:
        return None
    single = values.get("group_replication_single_primary_mode") == "ON"
    return {
        "name": name,
        "mode": "single_primary" if single else "multi_primary",
        "members": [member for member in members if member["uuid"]],
    }


def certificate(values: dict[str, str], now: float) -> dict | None:
    """The server's certificate as it is loaded, which a renewed file need not be. None where the server has none."""
    text = values.get("Ssl_server_not_after")
    if not text:
        return None
    until = ssl.cert_time_to_seconds(text)
    return {
        "file": values.get("Current_tls_cert", ""),
        "not_after": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until)),
        "days": int((until - now) // 86400),
    }


def with_privileges(accounts: list[dict], privileges: list[dict]) -> list[dict]:
    """Each account with the global privileges that it has, as far as no role gives them."""
    granted: dict[str, list[str]] = {}
    for row in privileges:
        granted.setdefault(row["account"], []).append(row["privilege"])
    return [
        {
            **account,
            "password": bool(account["password"]),
            "locked": bool(account["locked"]),
            "privileges": granted.get(f"'{account['user']}'@'{account['host']}'", []),
        }
        for account in accounts
    ]


def _tables(server: mysql.Server) -> list[str]:
    return [row["name"] for row in server.query(TABLES, (SYSTEM_DATABASES,))]


def _accounts(server: mysql.Server) -> list[dict]:
    return with_privileges(server.query(ACCOUNTS), server.query(PRIVILEGES))


def _certificate(server: mysql.Server) -> dict | None:
    return certificate({row["name"]: row["value"] for row in server.query(CERTIFICATE)}, time.time())


def _space(path: str) -> dict:
    path = os.path.normpath(path)
    space = os.statvfs(path)
    return {"path": path, "free": space.f_bavail * space.f_frsize, "size": space.f_blocks * space.f_frsize}


def _disk(server: mysql.Server) -> dict:
    found = server.row(DISK)
    logs = server.query("SHOW BINARY LOGS") if found["binary_logs"] else []
    return {
        "data": _space(found["data"]),
        "binary_logs": _space(os.path.dirname(found["binary_logs"])) if found["binary_logs"] else None,
        "binary_log_bytes": sum(log["File_size"] for log in logs),
        "binary_log_seconds": found["expire_seconds"],
    }


GATHER = {
    "tables": ("tables_without_key", _tables),
    "accounts": ("accounts", _accounts),
    "certificate": ("certificate", _certificate),
    "disk": ("disk", _disk),
}


def read(server: mysql.Server, gather: list[str]) -> dict:
    """The node, without anything secret."""
    found = server.row(SERVER)
    values = {row["name"]: row["value"] for row in server.query(GROUP)}
    extra = {name: reader(server) for name, reader in (GATHER[option] for option in gather)}
    node = {**read_node(server), **found, "group": group(values, server.query(MEMBERS))}
    node["gtid_purged"] = (found["gtid_purged"] or "").replace("\n", "")
    if node["channel"]:
        node["channel"] = {name: value for name, value in node["channel"].items() if name != "password"}
        node["channel"]["received"] = (node["channel"]["received"] or "").replace("\n", "")
    return {**UNKNOWN, **node, **extra, "state": name_state(node)}
