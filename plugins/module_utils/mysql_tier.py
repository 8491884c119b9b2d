# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Who is the primary now, and who may become it. Pure functions over what the nodes said; nothing here asks one.

A **node** is what the module mysql_replica_info returns, or None for a host that cannot be reached. The inventory says
who begins as the primary; once the databases hold data, they know better.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.foobar.webstack.plugins.module_utils.gtid import GtidSet

Node = Mapping[str, Any]
Nodes = Mapping[str, "Node | None"]

FAILOVER = "playbooks/failover.yml"
SWITCHOVER = "playbooks/switchover.yml"
REJOIN = "playbooks/rejoin.yml"


def survey(nodes: Nodes, addresses: Mapping[str, str], planned: str | None) -> dict[str, Any]:
    """Say who the primary is, and the place of every node.

    Returns
        primary    the host, or None while nobody can be taken for it
        old        the host that was the primary last, as far as the others know: where their channels point
        places     {host: primary, replica, member (of a replication group) or leave}; a node that is left is not to be touched
        notes      where the inventory lags behind the truth, and why a node is left
        faults     what no run may go on with
    """
    hosts = {address: host for host, address in addresses.items()}
    group = _group(nodes, hosts)
    if group:
        return group
    follows = {
        host: hosts.get(node["channel"]["host"], node["channel"]["host"])
        for host, node in nodes.items()
        if node and node.get("channel")
    }
    writable = [host for host, node in nodes.items() if _state(node) == "primary" and not _new(node)]
    result: dict[str, Any] = {"primary": None, "old": None, "places": {}, "notes": [], "faults": []}
    followed = [host for host in follows.values() if host in nodes]
    result["old"] = max(followed, key=followed.count) if followed else planned
    if len(writable) > 1:
        result["faults"].append(
            f"{', '.join(writable)} are writable at the same time. Nothing is done before only one is: find out which has "
            f"the writes of now, SET GLOBAL super_read_only=ON on the other, then run {REJOIN} for it."
        )
    elif writable:
        result["primary"] = writable[0]
    else:
        result["primary"], reason = _closed_primary(nodes, follows, planned)
        if reason:
            result["notes"].append(reason)
        elif result["primary"]:
            result["faults"] += _ahead(result["primary"], nodes)
            result["primary"] = None if result["faults"] else result["primary"]
    primary = result["primary"]
    if primary and planned and primary != planned:
        result["notes"].append(
            f"{primary} is the primary, the inventory has {planned} in the group mysql_primary: exchange the two there."
        )
    for host, node in nodes.items():
        place, note = ("leave", "") if not primary else _place(host, node, primary, nodes[primary])
        result["places"][host] = place
        if note:
            result["notes"].append(note)
    return result


def _group(nodes: Nodes, hosts: Mapping[str, str]) -> dict[str, Any] | None:
    """The same of a replication group that has a majority and a primary, None where there is none."""
    for seen_by in nodes.values():
        members = seen_by["group"]["members"] if _state(seen_by) == "group" else []
        reached = [member for member in members if member["state"] in ("ONLINE", "RECOVERING")]
        primary = next((hosts.get(member["host"]) for member in reached if member["role"] == "PRIMARY"), None)
        if primary and 2 * len(reached) > len(members):
            inside = {hosts.get(member["host"]) for member in reached}
            places = {host: "primary" if host == primary else "member" if host in inside else "leave" for host in nodes}
            notes = [f"{host} is {_state(nodes[host])}, and not in the group." for host in nodes if host not in inside]
            return {"primary": primary, "old": None, "places": places, "notes": notes, "faults": []}
    return None


def _state(node: Node | None) -> str:
    return node["state"] if node else "unreachable"


def _new(node: Node | None) -> bool:
    """A node that has never held anything."""
    return _state(node) == "not_installed" or (
        _state(node) in ("fenced", "primary") and not node["gtid_executed"] and not node["databases"]
    )


def _silent(node: Node | None) -> bool:
    return _state(node) in ("unreachable", "down", "offline")


def _closed_primary(nodes: Nodes, follows: Mapping[str, str], planned: str | None) -> tuple[str | None, str]:
    """The node to open while none is, or why there is none."""
    silent = [host for host, node in nodes.items() if _silent(node)]
    if all(_new(node) for node in nodes.values()):
        return planned, ""
    # Closed after a restart, and everybody else still follows it or is new.
    closed = [
        host
        for host, node in nodes.items()
        if _state(node) == "fenced"
        and not _new(node)
        and all(_new(nodes[other]) or follows.get(other) == host for other in nodes if other != host)
    ]
    if len(closed) == 1:
        return closed[0], ""
    if silent:
        return None, (
            f"No database is writable, and {', '.join(silent)} cannot be asked: the databases are left as they are. Bring "
            f"it back, or run {FAILOVER}."
        )
    return None, (
        "No database is writable, and not all follow the same one: the databases are left as they are. See "
        f"playbooks/mysql_doctor.yml, and choose the primary with {FAILOVER}."
    )


def _ahead(host: str, nodes: Nodes) -> list[str]:
    """Why a closed node may not be opened though all others follow it: they hold what it has lost.

    Open, it would give other transactions the same GTIDs, which nobody can tell apart afterwards. The node was asked last: it has made
    nothing that a replica got since. What began on a replica itself came from nobody's primary.
    """
    ahead = {}
    for other, node in nodes.items():
        if node and node.get("channel"):
            ahead[other] = (everything(node) - GtidSet(nodes[host]["gtid_executed"])).without(node["uuid"])
    most = max(ahead, key=lambda other: len(ahead[other]), default=None)
    if most is None or not ahead[most]:
        return []
    held = ", ".join(f"{other} holds {len(gtids)} ({gtids})" for other, gtids in ahead.items() if gtids)
    return [
        f"{host} was the primary, is closed, and lacks transactions: {held}. It has lost them in a crash, or was set back to a snapshot or a "
        f"backup, and would use their GTIDs again if it were opened. Run {FAILOVER} -e primary={most}, then {REJOIN} -e node={host}. "
        f"If they shall be given up: {FAILOVER} -e primary={host} -e accept_loss=true, then {REJOIN} for who holds them."
    ]


def _place(host: str, node: Node | None, primary: str, leader: Node) -> tuple[str, str]:
    if host == primary:
        return "primary", ""
    state = _state(node)
    if _silent(node):
        return "leave", f"{host} is {state}, and left as it is."
    if state == "fenced" and not _new(node):
        own = own_transactions(node, leader)
        if own["count"]:
            return "leave", (
                f"{host} was a primary and holds {own['count']} transactions that {primary} lacks ({own['gtids']}). It stays closed: "
                f"run {REJOIN} -e node={host}, which saves them and copies {primary} over it."
            )
    return "replica", ""


def everything(node: Node) -> GtidSet:
    """What a node has executed, or has in its relay log and can still execute."""
    received = (node.get("channel") or {}).get("received") or ""
    return GtidSet(node["gtid_executed"]) | GtidSet(received)


def switchover_faults(nodes: Nodes, seen: Mapping[str, Any], target: str, max_lag: float) -> list[str]:
    """Why ``target`` cannot take over from the primary as things are."""
    if target not in nodes:
        return [f"primary: {target!r} is no database. There are {', '.join(nodes)}."]
    if seen["faults"]:
        return list(seen["faults"])
    primary = seen["primary"]
    if seen["places"][target] == "member" or (target == primary and _state(nodes[target]) == "group"):
        return []
    if primary is None or _state(nodes[primary]) != "primary":
        return [f"No database is writable, so that nothing can be handed over. {FAILOVER} chooses a primary."]
    if target == primary:
        return []
    node, leader = nodes[target], nodes[primary]
    if _state(node) != "replica":
        return [f"primary: {target} is {_state(node)}. It must be a running replica of {primary}."]
    channel = node["channel"]
    faults = []
    if channel["source_uuid"] != leader["uuid"]:
        faults.append(f"primary: {target} replicates from {channel['host']}, not from {primary}.")
    if channel["io"] != "ON" or channel["applier"] != "ON":
        error = channel["applier_error"] or channel["io_error"] or "no error"
        faults.append(
            f"primary: replication does not run on {target} (receiver {channel['io']}, applier {channel['applier']}; {error})."
        )
    elif channel["lag"] is not None and channel["lag"] > max_lag:
        faults.append(
            f"primary: {target} is {channel['lag']} s behind; more than {max_lag} s would be a long time without writes."
        )
    # The nodes were asked one after the other: what the primary made in between is no transaction of the target's own.
    own = (GtidSet(node["gtid_executed"]) - GtidSet(leader["gtid_executed"])).without(leader["uuid"])
    if own:
        faults.append(
            f"primary: {target} holds transactions that {primary} lacks ({own}). Run {REJOIN} -e node={target}."
        )
    return faults


def failover(
    nodes: Nodes,
    seen: Mapping[str, Any],
    states: Mapping[str, Any],
    target: str | None = None,
    now: float | None = None,
    served: Mapping[str, list[Mapping[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Choose the node that becomes the primary, and say what may be lost.

    states    what the state services said, by host: of a replica ``source_seen``, its last sight of the primary
    target    the operator's choice, None for the node with the most transactions
    served    by application server, the servers of its load balancer's backend for writes, each {name, healthy}; none where it does not say

    Returns
        target      the host, or None
        faults      why it is not possible at all
        losses      what is, or may be, lost: refused unless the operator accepts it
        old         the primary that is given up, and what is known of its end
    """
    old = seen["old"]
    result: dict[str, Any] = {"target": target, "old": old, "faults": [], "losses": [], "report": []}
    writable = [host for host, node in nodes.items() if _state(node) == "primary"]
    candidates = [host for host, node in nodes.items() if _state(node) in ("replica", "fenced") and not _new(node)]
    if target is not None and target not in nodes:
        result["faults"].append(f"primary: {target!r} is no database. There are {', '.join(nodes)}.")
    elif any(node and node.get("group") for node in nodes.values()):
        result["faults"].append(
            "The databases are a replication group, which elects its primary by itself. Where it has lost its majority, "
            "playbooks/site.yml says what to do."
        )
    elif writable:
        result["faults"].append(f"{', '.join(writable)} is writable: hand over with {SWITCHOVER} -e primary=<host>.")
    elif not candidates:
        result["faults"].append("No database answers that holds data. Start one, or see playbooks/restore.yml.")
    elif target is not None and target not in candidates:
        result["faults"].append(f"primary: {target} is {_state(nodes[target])}. There are {', '.join(candidates)}.")
    if result["faults"]:
        return result
    held = {host: everything(nodes[host]) for host in candidates}
    if target is None:
        # The old primary itself, if it is back: it has all that it acknowledged.
        result["target"] = target = max(candidates, key=lambda host: (len(held[host]), host == old))
    for host in candidates:
        lacking = held[host] - held[target]
        if lacking:
            result["losses"].append(f"{host} holds {len(lacking)} transactions that {target} lacks ({lacking}).")
    channel = nodes[target].get("channel")
    if channel and channel["applier_errno"]:
        waiting = held[target] - GtidSet(nodes[target]["gtid_executed"])
        if waiting:
            result["losses"].append(
                f"{target} received {len(waiting)} transactions that it cannot apply ({waiting}): {channel['applier_error']}"
            )
    away = [host for host, node in nodes.items() if _silent(node) and host != old]
    if away:
        result["losses"].append(
            f"{', '.join(away)} cannot be asked: it may hold what {target} lacks, or have been the primary meanwhile."
        )
    for application, servers in (served or {}).items():
        open_ones = [server["name"] for server in servers if server["healthy"]]
        if open_ones:
            result["losses"].append(
                f"Applications on {application} still reach {', '.join(open_ones)}, and write to it. Two nodes would take writes, and each lack the "
                "other's: first stop that machine, or cut it off from the application servers, too."
            )
        elif not servers:
            result["report"].append(f"{application} does not say whether its applications still reach {old}.")
    if target != old and _silent(nodes.get(old)):
        result["losses"] += _unseen(old, target, held[target], states, result["report"], now)
    return result


def _unseen(
    old: str | None, target: str, held: GtidSet, states: Mapping[str, Any], report: list[str], now: float | None
) -> list[str]:
    """What a primary that cannot be asked may have acknowledged and nobody else has."""
    sights = {host: state["source_seen"] for host, state in states.items() if state and state.get("source_seen")}
    if not sights:
        return [f"Nobody knows whether {old} waited for a replica (semi-synchronous replication) at its end."]
    now = now or time.time()
    # The clocks of the replicas may differ. A state service of a previous version does not say how long ago it was.
    ago = {host: sight.get("ago", now - sight["at"]) for host, sight in sights.items()}
    host, last = max(sights.items(), key=lambda sight: (len(GtidSet(sight[1]["gtid_executed"])), -ago[sight[0]]))
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now - ago[host]))
    report.append(
        f"{host} saw {old} alive until {clock}, {max(0, round(ago[host]))} s ago. If it went on "
        "without a replica for longer than its semi-synchronous time-out, what it accepted then is on it alone."
    )
    lacking = GtidSet(last["gtid_executed"]) - held
    if lacking:
        return [f"{old} had {len(lacking)} transactions then that {target} never received ({lacking})."]
    if not last["semi_sync_active"]:
        return [
            f"{old} did not wait for a replica then (semi-synchronous replication was off): its last writes may be lost."
        ]
    return []


def own_transactions(node: Node, leader: Node) -> dict[str, Any]:
    """The transactions that a node holds and its primary lacks: ``gtids``, their ``count``, and an ``id`` to name a file by.

    The primary must have been asked after the node, unless that is closed: it goes on, and a replica gets what it makes. What began on
    the primary itself counts, too: it lacks that if it was set back to an older state.
    """
    gtids = GtidSet(node["gtid_executed"]) - GtidSet(leader["gtid_executed"])
    return {
        "gtids": str(gtids),
        "count": len(gtids),
        "id": hashlib.sha256(str(gtids).encode()).hexdigest()[:12],
    }
