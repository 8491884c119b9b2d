# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What is wrong in a database tier, and what mends it. Pure functions over what mysql_replica_info returned of each node.

A finding is ``{"severity", "nodes", "what", "remedy"}``: severity is error (writes or reads fail, or data may be lost), warning (they
will, or could) or info; nodes are the hosts that it was found on. A node that was not reached is ``{"state": "unreachable", "error": text}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ansible_collections.foobar.webstack.plugins.module_utils.gtid import GtidSet
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import (
    ALWAYS,
    REMEDIES,
    error_state,
    writable,
)

SEVERITIES = ("error", "warning", "info")
Finding = tuple[str, str, str]  # severity, what, remedy

LIMITS = {
    "max_lag": 10,  # seconds
    "certificate_days": 30,
    "disk_free": 10,  # per cent; below a quarter of it, it is an error
    "binary_log_hours": 24,
}
# By any of these an account rules the server, or everybody's data.
WIDE = {
    *(
        "SUPER",
        "SHUTDOWN",
        "FILE",
        "CREATE USER",
        "CREATE ROLE",
        "DROP ROLE",
        "ROLE_ADMIN",
        "SYSTEM_USER",
        "SET_ANY_DEFINER",
    ),
    *(
        "SYSTEM_VARIABLES_ADMIN",
        "PERSIST_RO_VARIABLES_ADMIN",
        "REPLICATION_SLAVE_ADMIN",
        "BINLOG_ADMIN",
        "ENCRYPTION_KEY_ADMIN",
    ),
    *("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER"),
}
SYSTEM_ACCOUNTS = ("mysql.infoschema", "mysql.session", "mysql.sys", "debian-sys-maint")
LOCAL = ("localhost", "127.0.0.1", "::1")
BY_PASSWORD = ("caching_sha2_password", "sha256_password", "mysql_native_password")


def play(name: str, **variables: str) -> str:
    return " ".join(
        [f"ansible-playbook foobar.webstack.{name}", *(f"-e {key}={value}" for key, value in variables.items())]
    )


SITE = play("site")
DOES_SO = f"{SITE} does so, too."
MENDS = f"START REPLICA on it. {DOES_SO}"


@dataclass(frozen=True)
class Tier:
    """The nodes that answer, and which of them is the primary: the one that is writable, if it is one."""

    nodes: dict[str, dict]
    meant: str | None  # the primary by the inventory
    limits: dict
    alone: bool  # there is one node, whether others answer or not

    @property
    def writers(self) -> list[str]:
        """Hosts that accept writes, one for each group."""
        found: dict[str, str] = {}
        for host, node in self.nodes.items():
            if node["state"] == "primary":
                found[host] = host
            elif node["state"] == "group" and writable(node) and _member(node).get("role") == "PRIMARY":
                found.setdefault(node["group"]["name"], host)
        return list(found.values())

    @property
    def primary(self) -> str | None:
        return self.writers[0] if len(self.writers) == 1 else None

    @property
    def copies(self) -> list[str]:
        """Hosts that have all that the primary has."""
        primary = self.nodes[self.primary] if self.primary else None
        return [
            host for host, node in self.nodes.items() if primary and node is not primary and not missing(node, primary)
        ]

    def source(self, channel: dict) -> str | None:
        """The host that a channel's source is."""
        for host, node in self.nodes.items():
            if channel["source_uuid"] == node["uuid"] if channel["source_uuid"] else _where(channel) == _where(node):
                return host
        return None


def _tier(nodes: dict[str, dict], meant: str | None = None, limits: dict | None = None) -> Tier:
    answering = {host: node for host, node in nodes.items() if node.get("uuid")}
    return Tier(answering, meant, {**LIMITS, **(limits or {})}, alone=len(nodes) == 1)


def _where(server: dict) -> tuple[str, int]:
    """Of a node or of a channel."""
    return server.get("host") or server.get("address"), server["port"]


def _member(node: dict) -> dict:
    """A node's place in its group, as it sees it itself."""
    members = (node["group"] or {}).get("members", [])
    return next((member for member in members if member["uuid"] == node["uuid"]), {})


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("-")[0]))


def _count(gtids: GtidSet) -> str:
    return f"{len(gtids)} transaction{'s' if len(gtids) != 1 else ''}"


def errant(node: dict, primary: dict) -> GtidSet:
    """The transactions of a node that the primary lacks.

    Both were not read in the same moment: what began on the primary, or in the group, only came later.
    """
    own = (GtidSet(node["gtid_executed"]) - GtidSet(primary["gtid_executed"])).without(primary["uuid"])
    return own.without(primary["group"]["name"]) if primary["group"] else own


def missing(node: dict, primary: dict) -> GtidSet:
    """The reverse."""
    return GtidSet(primary["gtid_executed"]) - GtidSet(node["gtid_executed"])


# One node, whatever the others are.


def _answers(host: str, node: dict) -> Iterator[Finding]:
    text = (node.get("error") or "").strip().rstrip(".")
    remedies = {
        "unreachable": f"Bring the host back. If it was the primary and stays away: {play('failover', primary='<a replica>', confirm='<the same>')}.",
        "not_installed": f"{SITE} installs it, and seeds it.",
        "down": "systemctl status mysql and journalctl --unit=mysql on it say why.",
    }
    words = {
        "unreachable": "cannot be reached",
        "not_installed": "has no MySQL server",
        "down": "MySQL does not answer",
    }
    if node["state"] in words:
        yield "error", words[node["state"]] + (f": {text}" if text else ""), remedies[node["state"]]


def _settings(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    if node["offline_mode"] and not node["seeding"]:
        yield (
            "error",
            "offline_mode is on: applications cannot connect",
            "SET GLOBAL offline_mode = OFF when what it was set for is over.",
        )
    if not node["gtid_mode"]:
        yield "error", "gtid_mode is not ON, on which switchover, failover and seeding rely", f"{SITE} sets it."
    for name in node["channels"]:
        if not name.startswith("group_replication_"):
            yield (
                "warning",
                f"has a replication channel of its own: {name}",
                f"RESET REPLICA ALL FOR CHANNEL '{name}' if nobody needs it.",
            )


def _tables(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    tables = node.get("tables_without_key", [])
    if tables:
        shown = ", ".join(tables[:10]) + (f" and {len(tables) - 10} more" if len(tables) > 10 else "")
        yield (
            "error" if node["group"] else "warning",
            f"without a primary key a replica searches the whole table for each row, and a group refuses writes: {shown}",
            "ALTER TABLE … ADD PRIMARY KEY (…), or, for a table whose columns must stay as they are, "
            "ADD COLUMN my_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY, on the primary.",
        )


def _account(account: dict) -> Iterator[Finding]:
    name = f"'{account['user']}'@'{account['host']}'"
    local = account["host"] in LOCAL
    wide = [privilege for privilege in account["privileges"] if privilege in WIDE]
    by_password = account["plugin"] in BY_PASSWORD
    if not account["user"]:
        yield "error", f"account {name} lets anybody in", f"DROP USER {name}."
    if (by_password and not account["password"]) or not account["plugin"]:
        yield "error", f"account {name} has no password", f"ALTER USER {name} IDENTIFIED BY …, or ACCOUNT LOCK."
    if account["plugin"] == "mysql_native_password":
        yield (
            "warning",
            f"account {name} proves itself by SHA-1 (mysql_native_password), which newer servers do not know",
            f"ALTER USER {name} IDENTIFIED WITH caching_sha2_password BY ….",
        )
    if not local and not account["tls"]:
        yield "warning", f"account {name} may connect without TLS", f"ALTER USER {name} REQUIRE SSL."
    if wide and not (local and (account["user"] == "root" or not by_password)):
        shown = ", ".join(wide[:5]) + (", …" if len(wide) > 5 else "")
        yield (
            "warning",
            f"account {name} has power over the whole server ({shown} ON *.*)",
            f"REVOKE ALL ON *.* FROM {name} and grant what it needs on its database: mysql_primary_accounts does both.",
        )


def _accounts(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    for account in node.get("accounts", []):
        system = account["host"] == "localhost" and account["user"] in SYSTEM_ACCOUNTS
        if not (account["locked"] or system):
            yield from _account(account)


def _certificate(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    if "certificate" not in node:
        return
    certificate = node["certificate"]
    remedy = f"{SITE} renews what ends soon and has it loaded; {play('rotate_certificates')} renews all."
    if certificate is None:
        yield "error", "has no certificate: nobody can connect with TLS", remedy
    elif certificate["days"] < 0:
        yield "error", f"the certificate has expired: {certificate['not_after']}", remedy
    elif certificate["days"] < tier.limits["certificate_days"]:
        yield "warning", f"the certificate expires in {certificate['days']} days: {certificate['not_after']}", remedy


def _disk(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    disk = node.get("disk")
    if not disk:
        return
    spaces = [space for space in (disk["data"], disk["binary_logs"]) if space]
    for space in {(space["free"], space["size"]): space for space in spaces}.values():
        free = 100 * space["free"] / space["size"]
        if free < tier.limits["disk_free"]:
            yield (
                "error" if free < tier.limits["disk_free"] / 4 else "warning",
                f"{free:.0f} % of the disk is free ({space['path']})",
                "Enlarge it, or keep binary logs for a shorter time (mysql_server_binlog_expire_days); a full disk stops every write.",
            )
    if not disk["binary_logs"]:
        yield "error", "writes no binary log: nothing can replicate from it", f"{SITE} sets log_bin."
    elif not disk["binary_log_seconds"]:
        yield "warning", "keeps binary logs for ever", "Set mysql_server_binlog_expire_days."
    elif disk["binary_log_seconds"] < 3600 * tier.limits["binary_log_hours"]:
        yield (
            "warning",
            f"keeps binary logs for {disk['binary_log_seconds'] / 3600:.0f} hours: who is away for longer must be seeded anew",
            "Set mysql_server_binlog_expire_days.",
        )


# One node among the others.


def _place(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    """A node that is neither primary nor replica, or both."""
    if node["seeding"]:
        running = node["seeding"] == "running"
        what = "is being seeded" if running else "its seeding was ended in the middle"
        yield "info" if running else "error", what, f"{SITE} waits for it, or begins it again."
        return
    if node["state"] == "fenced" and node["group"]:
        if any(other["state"] == "group" for other in tier.nodes.values()):
            yield "error", "is not in its group", "START GROUP_REPLICATION on it."
    elif node["state"] == "fenced" and tier.writers:
        again = play("rejoin", node=host) if node["gtid_executed"] else SITE
        yield "error", "neither accepts writes nor replicates", f"{again} makes it a replica."
    if node["channel"] and not node["super_read_only"]:
        who = "administrators" if node["read_only"] else "applications"
        yield (
            "error",
            f"is a replica, and {who} can write to it",
            f"SET GLOBAL super_read_only = ON on it. {DOES_SO}",
        )
    if node["state"] == "group" and _member(node)["state"] != "ONLINE":
        yield (
            "error",
            f"is {_member(node)['state']} in its group",
            "RECOVERING passes by itself. Otherwise STOP GROUP_REPLICATION and START GROUP_REPLICATION on it.",
        )


def _transactions(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    if not tier.primary or host == tier.primary:
        return
    own = errant(node, tier.nodes[tier.primary])
    if own:
        remedy = f"{play('rejoin', node=host)} saves them to a file, then copies the primary's data over the node."
        if tier.nodes[tier.primary]["group"]:
            leave = " and STOP GROUP_REPLICATION on it" if node["state"] == "group" else ""
            again = play("site", mysql_group_allow_destroy=node["address"])
            remedy = f"Save them (mysqlbinlog --include-gtids){leave}; then {again} copies the group over the node."
        yield "error", f"has {_count(own)} that {tier.primary} lacks: {own}", remedy


def _channel(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    channel = node["channel"]
    if not channel:
        return
    source = tier.source(channel)
    where = f"{channel['host']}:{channel['port']}"
    if tier.primary and source != tier.primary:
        yield (
            "error",
            f"replicates from {source or where} and not from {tier.primary}, the primary",
            f"{SITE} points it there.",
        )
    if channel["applier_errno"]:
        remedy = f"{REMEDIES['applier_broken']} If the node may be seeded anew: {play('rejoin', node=host)}."
        yield (
            "error",
            f"cannot apply what it receives: MySQL error {channel['applier_errno']}: {channel['applier_error']}",
            remedy,
        )
    if channel["io_errno"] and channel["io"] != "ON":
        state = error_state(channel["io_errno"], channel["io_error"], channel["ssl"])
        remedy = REMEDIES[state] + (f" {play('rejoin', node=host)} seeds it anew." if state == "purged" else "")
        yield (
            "error",
            f"receives nothing from {where}: MySQL error {channel['io_errno']}: {channel['io_error']}",
            remedy,
        )
    elif channel["io"] == "OFF":
        yield "error", f"replication is stopped: it receives nothing from {where}", MENDS
    elif channel["io"] == "CONNECTING":
        yield "error", f"connects to {where} without end", REMEDIES["unreachable"]
    if channel["applier"] == "OFF" and not channel["applier_errno"]:
        yield "error", "replication is stopped: it applies nothing of what it receives", MENDS
    if channel["lag"] is not None and channel["lag"] > tier.limits["max_lag"]:
        yield (
            "warning",
            f"is {channel['lag']} s behind: it serves no reads until it is at most {tier.limits['max_lag']:g} s behind",
            "It catches up by itself if its disk and processor can; a transaction that runs for long on the primary takes as long here.",
        )
    changed = {**ALWAYS, "ssl_verify": True}
    changed = [
        f"{name} is {channel[name]} instead of {value}" for name, value in changed.items() if channel[name] != value
    ]
    if changed:
        insecure = not (channel["ssl"] and channel["ssl_verify"])
        yield (
            "error" if insecure else "warning",
            f"its channel differs from what the role sets: {', '.join(changed)}",
            f"{SITE} sets it.",
        )


def _semi_sync(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    semi_sync = node["semi_sync"]
    if node["group"] or tier.alone:
        return
    if semi_sync is None:
        if node["state"] in ("primary", "replica"):
            what = "without semi-synchronous replication a primary that dies may take acknowledged writes with it"
            yield "info", what, "mysql_server_semi_sync: true."
    elif node["state"] == "primary":
        acknowledging = semi_sync["source_replicas"]
        if not semi_sync["source"]:
            yield (
                "warning",
                "commits wait for no replica",
                f"SET GLOBAL rpl_semi_sync_source_enabled = ON on it. {DOES_SO}",
            )
        elif semi_sync["source_active"] and semi_sync["wait_no_replica"] and not acknowledging:
            yield (
                "error",
                "writes stall until a replica acknowledges them",
                "Bring a replica back, or set mysql_server_when_alone: write.",
            )
        elif not semi_sync["source_active"] and not (
            acknowledging and tier.copies
        ):  # otherwise it is with the next commit
            yield (
                "warning",
                f"commits wait for no replica now ({acknowledging} acknowledge): if it dies, acknowledged writes may be lost",
                "Bring a replica back; it goes on by itself once one has caught up.",
            )
    elif node["state"] == "replica":
        if semi_sync["source"]:
            yield (
                "warning",
                "waits for acknowledgements as if it were the primary",
                "SET GLOBAL rpl_semi_sync_source_enabled = OFF on it.",
            )
        if not semi_sync["replica"]:
            yield (
                "warning",
                "acknowledges nothing to its primary",
                "SET GLOBAL rpl_semi_sync_replica_enabled = ON; STOP REPLICA IO_THREAD; START REPLICA IO_THREAD on it.",
            )


def _version(host: str, node: dict, tier: Tier) -> Iterator[Finding]:
    newest = tier.nodes[tier.primary]["version"] if tier.primary else node["version"]
    if _number(node["version"]) < _number(newest):
        release = _number(node["version"])[:2] < _number(newest)[:2]
        yield (
            "error" if release else "warning",
            f"runs MySQL {node['version']}, older than its primary's {newest}: it may not understand what it gets",
            "Upgrade it. Replicas are upgraded first, their primary last.",
        )


Check = Callable[[str, dict, Tier], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    *(_place, _transactions, _channel, _settings, _version, _semi_sync),
    *(_tables, _accounts, _certificate, _disk),
)


# All nodes together.


def _most(nodes: dict[str, dict]) -> str:
    return max(nodes, key=lambda host: len(GtidSet(nodes[host]["gtid_executed"])))


def _writable(tier: Tier) -> Iterator[tuple[list[str], Finding]]:
    if len(tier.writers) > 1:
        rejoin = play("rejoin", node="<that one>")
        remedy = f"SET GLOBAL super_read_only = ON at once on every one but the primary of now, then {rejoin}."
        yield tier.writers, ("error", f"{' and '.join(tier.writers)} accept writes, each its own", remedy)
    if tier.nodes and not tier.writers:
        followed = {tier.source(node["channel"]) for node in tier.nodes.values() if node["channel"]}
        fenced = [host for host in followed if host and tier.nodes[host]["state"] == "fenced"]
        best = _most(tier.nodes)
        reopen = "systemctl restart mysql-open on {} opens it if it still is the primary. Otherwise " if fenced else ""
        if any(node["group"] for node in tier.nodes.values()):
            remedy = f"{SITE} starts a group anew if all of its members are down."
        else:
            remedy = f"{reopen.format(*fenced)}{play('failover', primary=best, confirm=best)}: it has the most transactions of those that answer."
        yield list(tier.nodes), ("error", "no node accepts writes", remedy)
    if tier.primary and tier.meant and tier.meant != tier.primary and not tier.nodes[tier.primary]["group"]:
        remedy = f"Move it there in the inventory's group mysql_primary, or: {play('switchover', primary=tier.meant)}."
        yield [tier.primary], ("info", f"is the primary; by the inventory it is {tier.meant}", remedy)


def _twice(tier: Tier) -> Iterator[tuple[list[str], Finding]]:
    remedies = {
        "server_id": "Give each node its own mysql_server_id.",
        "uuid": "Stop mysqld on the copy, remove auto.cnf from its data directory, and start it.",
    }
    for name, remedy in remedies.items():
        values = [node[name] for node in tier.nodes.values()]
        for value in sorted({value for value in values if values.count(value) > 1}):
            hosts = [host for host, node in tier.nodes.items() if node[name] == value]
            yield (
                hosts,
                ("error", f"have the same {name}, {value}: the source drops the one when the other connects", remedy),
            )


def _strangers(tier: Tier) -> Iterator[tuple[list[str], Finding]]:
    known = {node["uuid"] for node in tier.nodes.values()}
    for host, node in tier.nodes.items():
        for uuid in node["replicas"]:
            if uuid not in known:
                what = f"a server that is not among those asked replicates from it: {uuid}"
                yield (
                    [host],
                    ("info", what, "SHOW REPLICAS on it says whence. Add it to the inventory, or drop its account."),
                )


def _group(tier: Tier) -> Iterator[tuple[list[str], Finding]]:
    members = {host: node["group"]["members"] for host, node in tier.nodes.items() if node["state"] == "group"}
    for host, seen in members.items():
        lost = [member for member in seen if member["state"] == "UNREACHABLE"]
        if 2 * len(lost) >= len(seen):
            remedy = "Bring them back. Where they are lost for good, group_replication_force_members on one of those that are left."
            yield (
                [host],
                ("error", f"does not see {len(lost)} of {len(seen)} members: without a majority nobody writes", remedy),
            )
    if members and len(tier.nodes) % 2 == 0:
        remedy = "Add a member, or take one away."
        yield (
            list(members),
            (
                "warning",
                f"a group of {len(tier.nodes)} survives no more losses than one of {len(tier.nodes) - 1}",
                remedy,
            ),
        )


def nodes(answers: dict[str, dict]) -> dict[str, dict]:
    """The nodes of what mysql_replica_info returned by host, with those that it could not run on."""

    def reason(answer: dict) -> str:
        return (answer.get("module_stderr") or answer.get("msg") or "").strip().split("\n")[-1]

    return {
        host: answer.get("node") or {"state": "unreachable", "error": reason(answer)}
        for host, answer in answers.items()
    }


def findings(nodes: dict[str, dict], primary: str | None = None, limits: dict | None = None) -> list[dict]:
    """All that is wrong, the worst first. ``nodes`` by host, ``primary`` by the inventory, ``limits`` over LIMITS.

    ValueError where a limit is unknown or no number.
    """
    limits = limits or {}
    if unknown := sorted({*limits} - {*LIMITS}):
        raise ValueError(f"{', '.join(unknown)}: no limit; there are {', '.join(LIMITS)}")
    tier = _tier(nodes, primary, {name: float(limit) for name, limit in limits.items()})
    found: list[tuple[list[str], Finding]] = [
        ([host], finding) for host, node in nodes.items() for finding in _answers(host, node)
    ]
    for check in (_writable, _twice, _strangers, _group):
        found += check(tier)
    for host, node in tier.nodes.items():
        found += [([host], finding) for check in CHECKS for finding in check(host, node, tier)]
    merged: dict[Finding, list[str]] = {}
    for hosts, finding in found:  # Tables and accounts are the same on every node.
        merged.setdefault(finding, []).extend(host for host in hosts if host not in merged.get(finding, []))
    result = [
        {"severity": severity, "nodes": hosts, "what": what, "remedy": remedy}
        for (severity, what, remedy), hosts in merged.items()
    ]
    return sorted(result, key=lambda finding: SEVERITIES.index(finding["severity"]))


# Text.


def _role(host: str, node: dict, tier: Tier) -> str:
    if node["state"] == "replica" and node["channel"]:
        source = tier.source(node["channel"]) or f"{node['channel']['host']}:{node['channel']['port']}"
        return f"replica of {source}"
    if node["state"] == "group":
        return f"{_member(node)['role'].lower()} of group {node['group']['name']}, {_member(node)['state']}"
    return {
        "primary": "primary",
        "fenced": "fenced: read-only, and no replica",
        "offline": "offline",
        "unreachable": "cannot be reached",
        "not_installed": "no MySQL server",
        "down": "MySQL does not answer",
    }.get(node["state"], node["state"])


def _lines(host: str, node: dict, tier: Tier) -> Iterator[tuple[str, str]]:
    yield "executed", node["gtid_executed"] or "nothing"
    yield "purged", node["gtid_purged"] or "nothing"
    if tier.primary and host != tier.primary:
        primary = tier.nodes[tier.primary]
        yield "missing", f"{_count(missing(node, primary))} of {tier.primary}"
        yield "errant", str(errant(node, primary)) or "none"
    channel = node["channel"]
    if channel:
        lag = "unknown" if channel["lag"] is None else f"{channel['lag']} s"
        yield "channel", f"receiver {channel['io']}, applier {channel['applier']}, lag {lag}"
    if node["replicas"]:
        by_uuid = {other["uuid"]: name for name, other in tier.nodes.items()}
        yield "replicas", ", ".join(by_uuid.get(uuid, uuid) for uuid in node["replicas"])
    semi_sync = node["semi_sync"]
    if node["group"]:
        members = [f"{member['host']} {member['state']}" for member in node["group"]["members"]]
        yield "group", ", ".join(members) or "not joined"
    elif semi_sync and node["state"] == "primary":
        alone = "stall" if semi_sync["wait_no_replica"] else f"go on after {semi_sync['timeout_ms'] / 1000:g} s"
        on = "active" if semi_sync["source_active"] else "not active" if semi_sync["source"] else "off"
        yield "semi-sync", f"{on}, {semi_sync['source_replicas']} acknowledge; without, writes {alone}"
    else:
        acknowledges = semi_sync and semi_sync["replica_active"]
        yield "semi-sync", "acknowledges" if acknowledges else "does not acknowledge" if semi_sync else "none"
    if node.get("certificate"):
        yield "certificate", f"until {node['certificate']['not_after']} ({node['certificate']['days']} days)"
    if node.get("disk"):
        data = node["disk"]["data"]
        logs = f"{node['disk']['binary_log_bytes'] / 2**30:.1f} GiB of binary logs, kept {node['disk']['binary_log_seconds'] / 86400:g} days"
        yield "disk", f"{data['free'] / 2**30:.1f} of {data['size'] / 2**30:.1f} GiB free; {logs}"


def report(nodes: dict[str, dict], found: list[dict]) -> str:
    """The nodes, a block each, then the findings."""
    tier = _tier(nodes)
    text = []
    for host, node in nodes.items():
        where = f" ({node['address']}:{node['port']}, MySQL {node['version']})" if host in tier.nodes else ""
        text.append(f"{host}{where}: {_role(host, node, tier)}")
        if host in tier.nodes:
            text += [f"  {name:<12} {value}" for name, value in _lines(host, node, tier)]
        text.append("")
    for finding in found:
        text += [f"{finding['severity']}: {', '.join(finding['nodes'])}: {finding['what']}", f"  {finding['remedy']}"]
    counts = [(severity, sum(finding["severity"] == severity for finding in found)) for severity in SEVERITIES]
    if found:
        text.append("")
    plural = {"error": "errors", "warning": "warnings"}
    counted = [
        f"{number} {plural.get(severity, severity) if number > 1 else severity}"
        for severity, number in counts
        if number
    ]
    text.append(", ".join(counted) or "Nothing is wrong.")
    return "\n".join(text)
