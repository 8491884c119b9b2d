# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What it takes to make a MySQL node a member of a replication group. Pure functions: nothing here talks to a server.

A **node** is what mysql_node.read_node found, and

    server_id   number
    plugin      group_replication is loaded
    received    transactions that the group has decided on, applied here or not, also of a group that was
    member      None while it is in no group, or a dictionary of
        name, state, role    as MySQL has them: ONLINE, RECOVERING, ERROR, ...; PRIMARY, SECONDARY
        quorum               it reaches a majority of the members
        members              [{host, port, uuid, state, role}], as it sees them
    settings    group_replication_* without that prefix, empty without the plugin
    unfit       names of the users' tables that a group cannot replicate
    account     the account for recovery is as wanted
    credentials the channel for recovery logs in as wanted

A **peer** is what its state service said, by its address: ``role, writable, server_id, server_uuid, gtid_executed, group``; an empty
dictionary where nothing answers. Its group is None or as ``member``, with ``received``.
"""

from __future__ import annotations

from ansible_collections.foobar.webstack.plugins.module_utils.gtid import GtidSet
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import Refusal, is_source

# What recovery logs in with on the other members ("User Credentials For Distributed Recovery"); CLONE needs BACKUP_ADMIN.
PRIVILEGES = ("REPLICATION SLAVE", "BACKUP_ADMIN", "CONNECTION_ADMIN", "GROUP_REPLICATION_STREAM")
# What a member cannot change while it is in a group. The configuration file has it for the next start.
FIXED = ("group_name", "communication_stack", "local_address", "ssl_mode", "single_primary_mode", "view_change_uuid")
LARGEST = 9  # members, reference manual, "Group Replication Limitations"


class Passing(Refusal):
    """A refusal that time alone may end: the module asks again for some seconds."""


def quorum(uuid: str, members: list[dict]) -> bool:
    """Whether the member with this UUID is in the group and reaches more than half of it."""
    states = {member["uuid"]: member["state"] for member in members}
    reached = [state for state in states.values() if state in ("ONLINE", "RECOVERING")]
    return states.get(uuid) in ("ONLINE", "RECOVERING") and 2 * len(reached) > len(states)


def name_state(node: dict) -> str:
    """One word: primary, secondary, joining, no_quorum, expelled or outside."""
    member = node["member"]
    if member is None:
        return "outside"
    if member["state"] not in ("ONLINE", "RECOVERING"):
        return "expelled"
    if not member["quorum"]:
        return "no_quorum"
    if member["state"] == "RECOVERING":
        return "joining"
    return member["role"].lower()


def primary(node: dict) -> str | None:
    """Address of the group's primary."""
    members = (node["member"] or {}).get("members", [])
    return next((member["host"] for member in members if member["role"] == "PRIMARY"), None)


def set_value(value: object) -> str:
    """A setting as MySQL shows it."""
    return {True: "ON", False: "OFF"}[value] if isinstance(value, bool) else str(value)


def different(node: dict, want: dict) -> list[str]:
    """Names of the settings in which the server differs from what is wanted."""
    have = node["settings"]
    return [name for name, value in want["settings"].items() if have.get(name, "").lower() != set_value(value).lower()]


def changeable(node: dict, want: dict) -> list[str]:
    """Those of them that can be set now."""
    return [name for name in different(node, want) if node["member"] is None or name not in FIXED]


def input_faults(want: dict) -> list[str]:
    """Everything that is wrong with the input as such, one sentence each."""
    members, found = want["members"], []
    if len(members) % 2 == 0 or not 3 <= len(members) <= LARGEST:
        found.append(
            f"members: a group has 3, 5, 7 or {LARGEST} members, not {len(members)}: an even number survives the loss of no more "
            "members than the odd number below it."
        )
    twice = sorted({address for address in members if members.count(address) > 1})
    if twice:
        found.append(f"members: {', '.join(twice)} stands twice.")
    if want["address"] not in members:
        found.append(f"address: {want['address']} is not among the members {', '.join(members)}.")
    if want["force"] and want["force"] not in members:
        found.append(f"force: {want['force']} is not among the members {', '.join(members)}.")
    if not 0 < len(want["password"].encode()) <= 32:  # Reference manual, "CHANGE REPLICATION SOURCE TO Statement"
        found.append("password: a replication password has 1 to 32 bytes.")
    return found


def plan(node: dict, peers: dict[str, dict], want: dict) -> list[str]:
    """The actions that make this node a member of the group. Refusal where they are not safe.

    Actions, in this order: leave, await_group, catch_up, detach, load, account, reset, settings, credentials, semi_sync_off, clone,
    bootstrap or join, wait, online.
    """
    state, member = name_state(node), node["member"]
    _check_identity(node, peers)
    if member and member["name"] and member["name"] != want["name"]:
        raise Refusal(
            f"This node is a member of the group {member['name']}, and not of {want['name']}. STOP GROUP_REPLICATION there first, "
            "if it shall change."
        )
    if state in ("primary", "secondary", "joining"):
        # What is written here replicates; to the other members the account comes from the primary.
        account = ["account"] if state == "primary" and not node["account"] else []
        return account + _upkeep(node, want) + (["wait"] if state == "joining" else [])
    if state == "no_quorum":
        raise Passing(_no_quorum(node))
    _check_outsider(node, want)
    leave, online = (["leave"], ["online"]) if state == "expelled" else ([], [])
    chosen = _working(peers, want) or elect(node, peers, want)
    if want["address"] in chosen:
        if node["databases"] and not node["gtid_executed"]:
            raise Refusal(
                f"This node would begin the group, but has executed no transaction since it has GTIDs: the others could not tell that they "
                f"lack its data (databases: {', '.join(node['databases'])}). Write to it once, and run again. Nothing was changed."
            )
        detach = ["catch_up", "detach"] if node["channel"] else []
        semi_sync = ["semi_sync_off"] if is_source(node) else []
        return [*leave, *detach, *_prepare(node, want), *semi_sync, "bootstrap", *online]
    return [*leave, *_join(node, [peers[address] for address in chosen], want), *online]


def _upkeep(node: dict, want: dict) -> list[str]:
    settings = ["settings"] if changeable(node, want) else []
    return settings + ([] if node["credentials"] else ["credentials"])


def _prepare(node: dict, want: dict, reset: bool = False) -> list[str]:
    return [
        *([] if node["plugin"] else ["load"]),
        *([] if node["account"] else ["account"]),
        *(["reset"] if reset else []),
        *_upkeep(node, want),
    ]


def _no_quorum(node: dict) -> str:
    members = node["member"]["members"]
    gone = [member["host"] for member in members if member["state"] not in ("ONLINE", "RECOVERING")]
    return (
        f"no_quorum: this member reaches {len(members) - len(gone)} of {len(members)}, which is no majority, so that nobody can write. "
        f"Start {', '.join(gone)}, or mend the network between them, and run again. Nothing was changed."
    )


def _check_identity(node: dict, peers: dict[str, dict]) -> None:
    for address, peer in peers.items():
        if peer.get("server_id") == node["server_id"]:
            raise Refusal(
                f"{address} has the same server id, {node['server_id']}. Give each node one of its own (mysql_server_id)."
            )
        if peer.get("server_uuid") == node["uuid"]:
            raise Refusal(
                f"{address} has the same server_uuid, {node['uuid']}: one is a copy of the other's disk. Remove auto.cnf from the data "
                "directory of the copy, and restart mysqld there."
            )


def _check_outsider(node: dict, want: dict) -> None:
    if node["channels"]:
        raise Refusal(
            f"This node has replication channels of its own: {', '.join(node['channels'])}. Remove them first."
        )
    if node["channel"] and node["channel"]["host"] not in want["members"]:
        raise Refusal(
            f"This node is a replica of {node['channel']['host']}, which is not among the members {', '.join(want['members'])}."
        )
    if node["offline_mode"] and not (node["member"] or node["seeding"]):
        raise Refusal(
            "offline_mode=ON: this node was taken out of service. SET GLOBAL offline_mode=OFF when that is over."
        )
    if node["unfit"]:
        tables = ", ".join(node["unfit"][:10]) + (
            f" and {len(node['unfit']) - 10} more" if len(node["unfit"]) > 10 else ""
        )
        raise Refusal(
            f"A group replicates InnoDB tables with a primary key, and these are not: {tables}. Give each one, as with "
            "ALTER TABLE ... ADD COLUMN id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY FIRST. Nothing was changed."
        )


def _working(peers: dict[str, dict], want: dict) -> list[str]:
    """Addresses of the members of the group that has a majority."""
    found = [address for address, peer in peers.items() if (peer.get("group") or {}).get("quorum")]
    for address in found:
        name = peers[address]["group"]["name"]
        if name != want["name"]:
            raise Refusal(f"{address} is a member of the group {name}, and not of {want['name']}.")
    return found


def _silent(peer: dict) -> bool:
    return "gtid_executed" not in peer


def _held(peer: dict) -> GtidSet:
    """What a node has: "the most up to date member" is that with most executed and certified (manual, "Restarting a Group")."""
    executed = GtidSet(peer["gtid_executed"])
    # What a node without any transaction has once received it received before it was emptied.
    return executed and executed | GtidSet((peer["group"] or {}).get("received"))


def elect(node: dict, peers: dict[str, dict], want: dict) -> list[str]:
    """The one address whose node begins the group, as no member is in one: every node comes to the same answer.

    It holds all that any of them holds: while a pair is converted that is the writable one, otherwise the one with the largest GTID set,
    and of several the first in the list of members.
    """
    undecided = [
        address for address, peer in peers.items() if (peer.get("group") or {}).get("state") in ("ONLINE", "RECOVERING")
    ]
    if undecided:
        raise Passing(
            f"no_quorum: {', '.join(undecided)} is in the group without a majority, so that nobody can write. Start the other members, "
            "or mend the network between them, and run again."
        )
    # Open is what the others' state services call so, or the nodes would come to different answers.
    open_here = not (node["super_read_only"] or node["offline_mode"] or node["channel"])
    here = {**node, "group": {"received": node["received"]}, "server_uuid": node["uuid"], "writable": open_here}
    nodes = {want["address"]: here}
    nodes.update({address: peer for address, peer in peers.items() if not _silent(peer)})
    silent = [address for address in peers if address not in nodes]
    held = {address: _held(nodes[address]) for address in want["members"] if address in nodes}
    open_ones = [address for address in held if nodes[address]["writable"]]
    if len(open_ones) > 1:
        raise Refusal(
            f"{', '.join(open_ones)} are writable at the same time. Find out which has the writes of now, and SET GLOBAL "
            "super_read_only=ON on the other."
        )
    largest = max(held, key=lambda address: len(held[address]))  # of several the first
    if silent and not want["force"]:
        raise Passing(
            f"No member has a majority, and {', '.join(silent)} cannot be asked: it may hold what the others lack. Start mysqld there "
            f"and run again. Only if it is lost for ever: force={largest} (mysql_group_force) begins the group again on "
            "that node, without what only a lost one holds. Nothing was changed."
        )
    chosen = (want["force"] if silent else "") or (open_ones or [largest])[0]
    if chosen not in nodes:
        raise Passing(f"force: {chosen} cannot be asked. Of those that answer, {largest} holds most.")
    for address, transactions in held.items():
        more = transactions - held[chosen]
        if nodes[chosen]["writable"]:  # What it has made since it was asked is no transaction of another's own.
            more = more.without(nodes[chosen]["server_uuid"])
        if more:
            raise Refusal(
                f"{address} holds {len(more)} transactions that {chosen} lacks ({more}), and {chosen} would begin the group. Save them "
                "(mysqlbinlog --include-gtids), then empty that node or apply them. Nothing was changed."
            )
    return [chosen]


def _join(node: dict, group: list[dict], want: dict) -> list[str]:
    """The actions that make this node a member of a group that others are in, or are about to begin."""
    mine, theirs = _held({**node, "group": {"received": node["received"]}}), GtidSet()
    for peer in group:
        theirs = theirs | _held(peer)
    own = mine - theirs
    empty = not node["databases"] and not own.without(node["uuid"])
    stranded = node["databases"] and not mine  # its data is older than its binary log
    if (own or stranded) and not empty and not want["allow_destroy"]:
        what = f"{len(own)} transactions that the group lacks ({own})" if own else "data of its own"
        raise Passing(
            f"This node holds {what} (databases: {', '.join(node['databases']) or 'none'}). Joining would destroy them. Save them "
            f"(mysqlbinlog --include-gtids); to have the node wiped, set allow_destroy=true for it (mysql_group_allow_destroy: "
            f"{want['address']}). Nothing was changed."
        )
    copied = bool(own or stranded or (theirs and not mine))
    detach = ["catch_up", "detach"] if node["channel"] else []
    return [
        "await_group",
        *detach,
        *_prepare(node, want, bool(own or (not mine and node["received"]))),
        *(["clone"] if copied else []),
        "join",
    ]
