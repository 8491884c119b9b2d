# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What state a MySQL node is in, and what it takes to reach another. Pure functions: nothing here talks to a server.

A **node** is what mysql_node.read_node found:

    uuid, gtid_executed         text
    super_read_only, read_only, offline_mode, clone, in_group    true or false; clone: the plugin is active; in_group: it is a
                                member of a replication group
    semi_sync                   see semi_sync()
    seeding                     see seeding()
    databases                   names of the users' databases
    replicas                    server UUIDs that replicate from this node
    channels                    names of replication channels that are not the default one
    channel                     None, or a dictionary of
        host, port, user, password, auto_position, ssl, ssl_ca, ssl_verify, connect_retry, retry_count, heartbeat
        io, applier             "ON", "OFF", and "CONNECTING" for io
        io_errno, io_error, applier_errno, applier_error    0 and "" without an error
        source_uuid             the server that the channel reached last, "" before it has reached one
        lag                     seconds behind the source, or None where the server cannot tell

A **source** is what mysql_node.read_source found with the replication account: ``{"errno", "error"}``, or

    uuid, super_read_only
    errant                      GTID set that the node has and the source has not
    missing                     the reverse
    purged                      GTID set that the node lacks and the source no longer keeps

A **donor** is a node that may be copied instead of the source: ``{"errno", "error"}``, or

    uuid, clone                 as of a node
    executed                    its gtid_executed
    errant                      GTID set that the donor has and the source has not
    purged                      GTID set that the donor lacks and the source no longer keeps
"""

from __future__ import annotations

# What runs, even if late, or open to writes where nobody should write.
RUNNING = ("running", "lagging", "writable")
# What time alone may mend.
PASSING = ("connecting", "unreachable", "stopped")
# Options of CHANGE REPLICATION SOURCE TO that are the same for every replica: for ever at it, every five seconds, and a
# dead link noticed within seconds. The defaults are ten attempts, a minute, and half a minute.
ALWAYS = {"auto_position": True, "ssl": True, "connect_retry": 5, "retry_count": 0, "heartbeat": 2.0}

UNREACHABLE = (2002, 2003, 2005, 2013, 1129, 1130, 1040)

REMEDIES = {
    "seeding": "A copy that an earlier run began is still being made; this one waits for it.",
    "interrupted": "An earlier run was ended while it seeded this node.",
    "unreachable": "The source must run, listen on that address, and its port be open to this host.",
    "auth_failed": "source_user must exist on the source for this host's address, and source_password be its password.",
    "tls_failed": "source_ssl_ca must have signed the source's certificate, which must carry source_host as name or "
    "address; the account must not be met without TLS.",
    "applier_broken": "Mend what stops the applier, or leave out that transaction, and start it.",
    "purged": "The source no longer keeps the binary logs that this node lacks.",
    "errant": "Save those transactions (mysqlbinlog --include-gtids) and apply them to the source if they are wanted.",
    "connecting": "The replica connects without end; see the server's error log.",
    "stopped": "Replication stops again after its start; see the server's error log.",
    "io_broken": "See the server's error log.",
}


def settings(want: dict) -> dict:
    """The channel as it is wanted, in the words of a node's channel."""
    given = {
        "host": want["source_host"],
        "port": want["source_port"],
        "user": want["source_user"],
        "password": want["source_password"],
        "ssl_ca": want["source_ssl_ca"] or "",
        "ssl_verify": want["source_ssl_verify"],
    }
    return {**given, **ALWAYS}


def different(channel: dict, want: dict) -> list[str]:
    """Names of the settings in which a channel differs from what is wanted."""
    return [name for name, value in settings(want).items() if channel[name] != value]


def awaits_account(state: str, node: dict, source: dict | None, want: dict) -> bool:
    """Whether a running channel lacks nothing but a new password, which the source's account has not got yet."""
    refused = state in RUNNING and bool(source) and source.get("errno") == 1045
    return refused and different(node["channel"], want) == ["password"]


def writable(node: dict) -> bool:
    """Whether applications can write here: not fenced by read-only or offline mode."""
    return not (node["super_read_only"] or node["read_only"] or node["offline_mode"])


def semi_sync(values: dict[str, str]) -> dict | None:
    """Both sides of semi-synchronous replication, from the server's variables and status by their lower case names.

    None where neither plugin is loaded.
    """
    if not any(name.startswith("rpl_semi_sync_") for name in values):
        return None

    def on(name: str) -> bool:
        return values.get(f"rpl_semi_sync_{name}") == "ON"

    def number(name: str) -> int:
        return int(values.get(f"rpl_semi_sync_{name}", 0))

    return {
        "source": on("source_enabled"),
        "source_active": on("source_status"),
        "source_replicas": number("source_clients"),
        "timeout_ms": number("source_timeout"),
        "wait_no_replica": on("source_wait_no_replica"),
        "replica": on("replica_enabled"),
        "replica_active": on("replica_status"),
    }


def is_source(node: dict) -> bool:
    """Whether the node's commits wait for replicas."""
    return bool(node["semi_sync"] and node["semi_sync"]["source"])


def stalled(node: dict) -> bool:
    """Whether every commit waits here for a replica, and none is attached."""
    return is_source(node) and node["semi_sync"]["wait_no_replica"] and not node["semi_sync"]["source_replicas"]


def seeding(copy: str | None, emptied: bool, databases: list[str], offline: bool, donors: str) -> str:
    """Whether the node is being seeded ("running"), or a run was ended while it did so, before ("begun") or after
    ("broken") the node was emptied. "" otherwise.

    copy        STATE in performance_schema.clone_status, None where the node was never seeded
    emptied     that copy had begun to drop the users' databases, as it does first. GTID set and channel stay meanwhile:
                replication would run, without the data
    donors      clone_valid_donor_list, which the module empties when it is through, and a restart of mysqld does, too
    """
    if copy == "In Progress":
        return "running"
    if copy == "Failed" and emptied and not databases:
        return "broken"
    return "begun" if offline and donors else ""


def error_state(number: int, text: str, with_tls: bool = True) -> str:
    """The state that a failed connection to the source means. 1045 is also the answer to an account without TLS."""
    if number == 1045:
        return "auth_failed" if with_tls else "tls_failed"
    if number in (2026, 3159):
        return "tls_failed"
    if number in UNREACHABLE:
        return "unreachable"
    return "purged" if "purged" in text else "io_broken"


def name_state(node: dict, source: dict | None, want: dict) -> str:
    """One word for the state; the first that fits of what is below. ``source`` is None where it was not asked."""
    channel, source = node["channel"], source or {}
    if node["in_group"]:
        return "primary" if writable(node) else "member"
    if node["seeding"]:
        return "seeding" if node["seeding"] == "running" else "interrupted"
    if node["channels"]:
        return "other_channels"
    if channel is None:
        return "primary" if writable(node) else "unconfigured"
    if want["source_host"] and (channel["host"], channel["port"]) != (want["source_host"], want["source_port"]):
        return "other_source"
    if channel["io"] == "ON" and source.get("uuid") and channel["source_uuid"] not in ("", source["uuid"]):
        return "other_source"
    if source.get("errant"):
        return "errant"
    if channel["applier_errno"]:
        return "applier_broken"
    if channel["io"] != "ON":
        if source.get("purged"):
            return "purged"
        if channel["io_errno"]:
            return error_state(channel["io_errno"], channel["io_error"], channel["ssl"])
    if "OFF" in (channel["io"], channel["applier"]):
        return "stopped"
    if channel["io"] == "CONNECTING":
        return "connecting"
    if not node["super_read_only"]:
        return "writable"
    behind = source.get("missing") and want["max_lag"] is not None
    if behind and (channel["lag"] is None or channel["lag"] > want["max_lag"]):
        return "lagging"
    return "running"


def left_alone(node: dict, source: dict | None, want: dict) -> bool:
    """Whether a replica that is as it should be only waits for a source that does not answer.

    One without any transaction was never seeded: nobody may take it for a replica.
    """
    if want["state"] != "replica" or not source or "error" not in source or node["seeding"] or node["channels"]:
        return False
    channel = node["channel"]
    as_wanted = channel and not different(channel, want) and not channel["applier_errno"] and node["gtid_executed"]
    return bool(as_wanted) and error_state(source["errno"], source["error"]) == "unreachable"


def donor_fault(donor: dict, node: dict) -> str | None:
    """Why the source is copied rather than this donor; None where the donor serves as well."""
    if "error" in donor:
        return f"MySQL error {donor['errno']}: {donor['error']}" if donor["errno"] else donor["error"]
    if donor["uuid"] == node["uuid"]:
        return "it is this node itself"
    if not donor["clone"]:
        return "its clone plugin is not active"
    if not donor["executed"]:
        return "it has replicated nothing yet"
    if donor["errant"]:
        return f"it has transactions that the source lacks: {donor['errant']}"
    if donor["purged"]:
        return f"the source no longer keeps what it lacks: {donor['purged']}"
    return None


def fresh(node: dict, source: dict) -> bool:
    """Whether nothing would be lost with this node: no users' database, no transaction but those of its own making."""
    origins = {part.strip().split(":")[0] for part in source["errant"].split(",") if part.strip()}
    return not node["databases"] and origins <= {node["uuid"]}


class Refusal(Exception):  # noqa: N818
    """A state that is not left without being told to: what was found, and the remedy."""


def _where(want: dict) -> str:
    return f"{want['source_host']}:{want['source_port']}"


def explain(state: str, node: dict, source: dict | None, want: dict) -> str:
    """The state in a sentence: number and text of the error where there is one, then the remedy."""
    channel, source = node["channel"] or {}, source or {}
    found = ""
    if source.get("error"):
        found = f"MySQL error {source['errno']}: {source['error']}"
    elif state == "applier_broken":
        found = f"MySQL error {channel['applier_errno']}: {channel['applier_error']}"
    elif state == "errant":
        found = f"this node has transactions that the source lacks: {source['errant']}."
    elif channel.get("io_errno"):
        found = f"MySQL error {channel['io_errno']}: {channel['io_error']}"
    elif state == "purged":
        found = f"the source has purged {source['purged']}."
    sentences = [part.rstrip(".") + "." for part in (found, REMEDIES.get(state, "")) if part]
    return " ".join([f"{state}: source {_where(want)}:", *sentences])


def _seed(why: str, node: dict, source: dict, want: dict) -> list[str]:
    """The actions that copy the source over this node, or a Refusal that says what is at stake."""
    if want["seed"] == "never":
        raise Refusal(f"{why} The node needs a copy of the source's data, and seed=never forbids it.")
    if not fresh(node, source) and not want["allow_destroy"]:
        databases = ", ".join(node["databases"]) or "none, but transactions of its own"
        raise Refusal(
            f"{why} Copying the source's data over this node would destroy what it holds (databases: {databases}). "
            "Nothing was changed. To have it wiped, set allow_destroy=true for this node."
        )
    if not node["clone"]:
        raise Refusal(
            f"{why} The node needs a copy of the source's data, and its clone plugin is not active: "
            "plugin_load_add=mysql_clone.so."
        )
    stop = ["stop"] if node["channel"] else []
    return [*stop, "clone", "configure", "start"]


def plan_replica(state: str, node: dict, source: dict, want: dict) -> list[str]:
    """The actions that make this node a running replica of the source. Refusal where they are not safe.

    Actions: fence, semi_sync_off, await_copy, online, stop, clone, configure, renew, start. The order of the questions
    matters: what forbids everything comes first, then what only a copy mends, then what a statement mends.
    """
    channel = node["channel"]
    if node["seeding"] == "running":  # It needs the node open, and ends with a restart, fenced.
        return ["await_copy", "configure", "start"]
    fence = [] if node["super_read_only"] else ["fence"]
    if is_source(node):  # A replica's applier would wait for replicas, and time out.
        fence = [*fence, "semi_sync_off"]
    if node["seeding"] == "begun":
        mended = {**node, "seeding": "", "offline_mode": False, "super_read_only": True, "semi_sync": None}
        return [*fence, "online", *plan_replica(name_state(mended, source, want), mended, source, want)]
    if state == "other_channels":
        raise Refusal(
            f"{state}: this node has replication channels of its own: {', '.join(node['channels'])}. "
            "Only the default channel is managed; remove them first."
        )
    changed = different(channel, want) if channel else ["host"]
    if "error" in source:
        if (state in RUNNING and not changed) or left_alone(node, source, want):
            return fence
        raise Refusal(explain(error_state(source["errno"], source["error"]), node, source, want))
    if source["uuid"] == node["uuid"]:
        raise Refusal(f"source_host={want['source_host']!r} is this node itself.")
    if source["uuid"] in node["replicas"]:
        raise Refusal(
            f"{state}: {_where(want)} replicates from this node: the roles are the other way round. "
            "Bring the inventory up to date, or switch over first."
        )
    if state == "primary" and not fresh(node, source):
        raise Refusal(
            f"{state}: this node accepts writes and has data (databases: {', '.join(node['databases']) or 'none'}): "
            "it may be the primary of now. If it is not, SET GLOBAL super_read_only=ON on it and run again."
        )
    if node["seeding"] == "broken":
        return fence + _seed(explain(state, node, source, want), node, source, want)
    if source["errant"]:
        return fence + _seed(explain("errant", node, source, want), node, source, want)
    if state == "applier_broken":
        return fence + _seed(explain(state, node, source, want), node, source, want)
    if source["purged"] and (channel is None or channel["io"] != "ON" or state == "other_source"):
        return fence + _seed(explain("purged", node, source, want), node, source, want)
    if channel is None:
        # A source may hold data that is older than its binary log, so a new node gets a copy and not only the log.
        if not node["gtid_executed"] and (want["seed"] != "never" or node["databases"]):
            return fence + _seed(f"{state}: this node has replicated nothing yet.", node, source, want)
        return [*fence, "configure", "start"]
    if state == "other_source" and channel["io"] == "ON" and source["super_read_only"]:
        raise Refusal(
            f"{state}: this node replicates from {channel['host']}:{channel['port']}, and {_where(want)} is not "
            "writable (super_read_only=ON). A working replica is moved only to a primary."
        )
    if changed == ["password"] and channel["applier"] == "ON":
        return [*fence, "renew"]
    if changed:
        return [*fence, "stop", "configure", "start"]
    if state == "other_source":  # Another server answers at the address of now.
        return [*fence, "stop", "start"]
    if state == "stopped" or (state == "unreachable" and channel["io"] == "OFF"):
        return [*fence, "start"]
    if state in (
        "auth_failed",
        "tls_failed",
        "io_broken",
        "purged",
    ):  # The source let us in just now: try again at once.
        return [*fence, "stop", "start"]
    return fence


def plan_primary(state: str, node: dict, writable_peers: list[str]) -> list[str]:
    """The actions that let applications write here. Refusal where that could make a second primary."""
    if node["channel"] or node["channels"]:
        where = (
            f"{node['channel']['host']}:{node['channel']['port']}" if node["channel"] else ", ".join(node["channels"])
        )
        raise Refusal(
            f"{state}: this node is a replica of {where}. A replica becomes the primary by a switchover or a "
            "failover, not by opening it."
        )
    if state == "primary":
        return [] if node["semi_sync"] is None or is_source(node) else ["semi_sync_on"]
    if node["seeding"]:
        raise Refusal(f"{state}: {REMEDIES[state]} It holds nothing to be the primary of.")
    if node["offline_mode"]:
        raise Refusal(
            f"{state}: offline_mode=ON: this node was taken out of service. SET GLOBAL offline_mode=OFF "
            "when that is over."
        )
    if writable_peers:
        raise Refusal(
            f"{state}: this node stays fenced: {', '.join(writable_peers)} says that it is writable. "
            "Bring the inventory up to date, or make this node its replica."
        )
    return ["open"]


def plan(state: str, node: dict, source: dict | None, want: dict, writable_peers: list[str]) -> list[str]:
    """The actions from ``state`` to ``want["state"]``."""
    if node["in_group"]:
        if want["state"] == "primary" and writable(node):
            return []
        raise Refusal(
            f"{state}: this node is a member of a replication group, which elects its primary and gives its members the data: "
            "the module mysql_group manages it."
        )
    channel = node["channel"]
    if want["state"] == "replica":
        return plan_replica(state, node, source, want)
    if want["state"] == "primary":
        return plan_primary(state, node, writable_peers)
    if channel is None:
        return []
    running = channel["io"] != "OFF" or channel["applier"] != "OFF"
    if want["state"] == "stopped":
        return ["stop"] if running else []
    return [*([] if node["super_read_only"] else ["fence"]), "stop", "reset"]
