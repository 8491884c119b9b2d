"""Say over HTTP what this MySQL node may be used for, and reopen a primary that has restarted.

    mysql_state.py serve --address 192.0.2.14 --port 9201 --peers /etc/mysql/webstack-peers --term /var/lib/mysql-state/term

``GET /write`` answers 200 when this node accepts writes: read-write, not offline and without a replication channel, and
no peer was opened after it; of a replication group only its primary does, while it reaches a majority of the members.
``GET /read?max_lag=10`` answers 200 when it may serve reads: the primary, or a replica at most 10 seconds behind.
``GET /replica?max_lag=10`` answers 200 on such a replica only.
``GET /`` answers 200 when mysqld answers. Otherwise they answer 503, and all of them carry the whole state as JSON.
``GET /metrics`` says the same to Prometheus.

    mysql_state.py open --peers /etc/mysql/webstack-peers --state http://192.0.2.14:9201/

mysqld always starts read-only. This opens it again if every peer still replicates from it; see ``judge``. Then it watches:
when a peer was opened after this node, the node is closed; see ``rival``. With --stall it also sees to it that no commit
goes on without a replica; see ``arming``. ``mysql_state.py stall`` does that alone.

The file lists the state services of the other nodes, and is read again each time that they are asked: nodes come and go
while this runs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit
from urllib.request import ProxyHandler, build_opener

SOCKET = "/run/mysqld/mysqld.sock"
ANSWER_WITHIN = 1.0  # seconds that mysqld or a peer has to answer
CACHE = 0.1  # seconds that one answer of mysqld serves all who ask
PEER_ANSWERS_WITHIN = 0.5  # seconds that a load balancer's check waits for a peer that is silent
PEER_CACHE = 0.2  # seconds that one answer of the peers serves all who ask
DEFAULT_MAX_LAG = 10.0  # seconds
HEARTBEATS_MISSED = 3  # heartbeats that may be missing before the source counts as silent
CLOCKS_DIFFER = 1.0  # seconds that a time may lie in the future before the clock counts as set back since

NODE = """
SELECT @@GLOBAL.super_read_only AS super_read_only, @@GLOBAL.offline_mode AS offline_mode,
       @@GLOBAL.report_host AS address, @@GLOBAL.server_id AS server_id, @@GLOBAL.server_uuid AS server_uuid,
       @@GLOBAL.version AS version, @@GLOBAL.gtid_executed AS gtid_executed, @@SESSION.timestamp AS clock,
       (SELECT UNIX_TIMESTAMP(SET_TIME) FROM performance_schema.variables_info
        WHERE VARIABLE_NAME = 'super_read_only') AS opened
"""
# Times are seconds since 1970, and 0 or NULL where there is none.
CHANNELS = """
SELECT c.CHANNEL_NAME AS channel, c.HOST AS source, c.PORT AS port, s.SOURCE_UUID AS source_uuid,
       s.SERVICE_STATE AS receiver, s.LAST_ERROR_NUMBER AS receiver_error,
       a.SERVICE_STATE AS applier, w.LAST_ERROR_NUMBER AS applier_error,
       c.HEARTBEAT_INTERVAL AS heartbeat_interval,
       UNIX_TIMESTAMP(s.LAST_HEARTBEAT_TIMESTAMP) AS heard,
       UNIX_TIMESTAMP(s.LAST_QUEUED_TRANSACTION_END_QUEUE_TIMESTAMP) AS queued,
       UNIX_TIMESTAMP(s.LAST_QUEUED_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP) AS newest,
       UNIX_TIMESTAMP(s.QUEUEING_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP) AS queueing,
       UNIX_TIMESTAMP(o.PROCESSING_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP) AS processing,
       w.applying,
       GTID_SUBTRACT(s.RECEIVED_TRANSACTION_SET, @@GLOBAL.gtid_executed) <> '' AS behind
FROM performance_schema.replication_connection_configuration c
JOIN performance_schema.replication_connection_status s USING (CHANNEL_NAME)
JOIN performance_schema.replication_applier_status a USING (CHANNEL_NAME)
LEFT JOIN performance_schema.replication_applier_status_by_coordinator o USING (CHANNEL_NAME)
LEFT JOIN (
    SELECT CHANNEL_NAME, MAX(LAST_ERROR_NUMBER) AS LAST_ERROR_NUMBER,
           MIN(NULLIF(UNIX_TIMESTAMP(APPLYING_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP), 0)) AS applying
    FROM performance_schema.replication_applier_status_by_worker GROUP BY CHANNEL_NAME
) w USING (CHANNEL_NAME)
"""
# What this member of a replication group sees of it; one row, without an id, of a member that has not joined yet.
MEMBERS = """
SELECT m.MEMBER_ID AS uuid, m.MEMBER_HOST AS host, m.MEMBER_PORT AS port, m.MEMBER_STATE AS state, m.MEMBER_ROLE AS role,
       s.GROUP_NAME AS name, s.RECEIVED_TRANSACTION_SET AS received
FROM performance_schema.replication_group_members m
LEFT JOIN performance_schema.replication_connection_status s USING (CHANNEL_NAME) ORDER BY m.MEMBER_HOST, m.MEMBER_PORT
"""
GROUP_APPLIER = "group_replication_applier"
IN_GROUP = ("ONLINE", "RECOVERING")
# Anybody may read both tables, which list nothing of a plugin that is not loaded. The values are ON, OFF and numbers as text.
SEMI_SYNC = """
SELECT LOWER(VARIABLE_NAME) AS name, VARIABLE_VALUE AS value FROM performance_schema.global_variables
WHERE VARIABLE_NAME LIKE 'rpl\\_semi\\_sync\\_%'
UNION ALL
SELECT LOWER(VARIABLE_NAME), VARIABLE_VALUE FROM performance_schema.global_status
WHERE VARIABLE_NAME IN ('Rpl_semi_sync_source_status', 'Rpl_semi_sync_source_clients', 'Rpl_semi_sync_replica_status',
                        'Rpl_semi_sync_source_wait_sessions', 'Rpl_semi_sync_source_no_tx')
"""
SOURCE = ("channel", "source", "port", "source_uuid", "receiver", "receiver_error", "applier", "applier_error")
DOWN = {
    "role": "down",
    "writable": False,
    "opened": None,
    "lag": None,
    "sources": [],
    "semi_sync": None,
    "group": None,
}
ROLES = ("primary", "replica", "fenced", "offline", "down")


# Decisions: pure functions over the rows of NODE, CHANNELS, MEMBERS and SEMI_SYNC.


def lag(channel: dict, now: float, source_now: float | None = None) -> float | None:
    """Return how many seconds the channel's data is behind its source, None when nobody can know.

    The oldest transaction that is being received or applied counts. Without one, the data is as old as the silence of
    a source that is disconnected or has missed its heartbeats.

    Transactions bear the time of the source's clock, ``source_now``, signs of life that of this node's. A time in the future
    is from before the clock was set back, and tells nothing.
    """
    if channel["applier"] != "ON":
        return None
    in_work = [channel[stage] for stage in ("queueing", "processing", "applying") if channel[stage]]
    if channel["behind"] and not in_work and channel["newest"]:
        in_work = [channel["newest"]]
    heard = [
        channel[event] for event in ("heard", "queued") if channel[event] and channel[event] <= now + CLOCKS_DIFFER
    ]
    if not in_work and not heard:
        return None
    if source_now is None:
        source_now = now
    elif in_work and max(in_work) > source_now + CLOCKS_DIFFER:
        return None
    silence = now - float(max(heard, default=now))
    patience = HEARTBEATS_MISSED * float(channel["heartbeat_interval"])
    if channel["receiver"] == "ON" and (in_work or silence <= patience):
        silence = 0.0
    return round(max(0.0, silence, *(source_now - float(then) for then in in_work)), 3)


def semi_sync(values: dict[str, str]) -> dict | None:
    """Return both sides of semi-synchronous replication, None without its plugins.

    ``waiting`` counts the commits that wait for a replica now, ``unacknowledged`` those that went on without one.
    """
    if "rpl_semi_sync_source_enabled" not in values:
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
        "waiting": number("source_wait_sessions"),
        "unacknowledged": number("source_no_tx"),
    }


def membership(uuid: str, members: list[dict]) -> dict | None:
    """Return this node's place in its replication group, None without the plugin.

    ``quorum``: it is in the group, and reaches more than half of the members. ``received``: transactions that the group has
    decided on, applied here or not.
    """
    if not members:
        return None
    mine = next((member for member in members if member["uuid"] == uuid), members[0])
    reached = sum(member["state"] in IN_GROUP for member in members)
    return {
        "name": mine["name"],
        "state": mine["state"],
        "role": mine["role"],
        "received": (mine["received"] or "").replace("\n", ""),
        "quorum": mine["state"] in IN_GROUP and 2 * reached > len(members),
        "members": [{key: member[key] for key in ("host", "port", "uuid", "state", "role")} for member in members],
    }


def describe(
    node: dict,
    channels: list[dict],
    values: dict[str, str] | None = None,
    members: list[dict] | None = None,
    clocks: dict[str, float] | None = None,
) -> dict:
    """Return the state that is served. The role is primary, replica, fenced (read-only, but no replica) or offline.

    The secondaries of a replication group are its replicas. A member without a majority, or that only joins yet, is fenced.
    ``clocks`` is what the clocks of the sources show now, where that is known.
    """
    now = float(node["clock"])
    group = membership(node["server_uuid"], members or [])
    # The other members are heard all the time, or there is no majority.
    heard = {"receiver": "ON", "heard": now, "heartbeat_interval": 1}
    appliers = [{**channel, **heard} for channel in channels if channel["channel"] == GROUP_APPLIER]
    channels = [channel for channel in channels if not channel["channel"].startswith("group_replication_")]
    if node["offline_mode"]:
        role = "offline"
    elif channels:
        role = "replica"
    elif group and group["state"] != "OFFLINE" and (not group["quorum"] or group["state"] != "ONLINE"):
        role = "fenced"
    elif group and group["role"] == "SECONDARY":
        role = "replica"
    else:
        role = "fenced" if node["super_read_only"] else "primary"
    lags = {
        "primary": [0.0],
        "replica": [lag(channel, now, (clocks or {}).get(channel["source"])) for channel in channels or appliers]
        or [None],
    }
    lags = lags.get(role, [None])
    return {
        "role": role,
        "writable": role == "primary",
        "lag": None if None in lags else max(lags),
        "sources": [{key: channel[key] for key in SOURCE} for channel in channels],
        "semi_sync": semi_sync(values or {}),
        "group": group,
        **node,
        "clock": now,
        "opened": None if node["super_read_only"] else float(node["opened"] or 0),
        "super_read_only": bool(node["super_read_only"]),
        "offline_mode": bool(node["offline_mode"]),
    }


def may_read(state: dict, max_lag: float) -> bool:
    return state["lag"] is not None and state["lag"] <= max_lag


def remember(before: dict | None, source: str, answer: dict, at: float) -> dict | None:
    """Return what the state service of ``source`` last said of it: its answer now, else what it said before.

    A failover reads here what the old primary had and whether it waited for a replica, when nobody can ask it any more.
    """
    if "gtid_executed" not in answer:
        return before if before and before["source"] == source else None
    sides = answer["semi_sync"] or {}
    return {
        "source": source,
        "at": round(at, 3),
        "writable": answer["writable"],
        "semi_sync_active": sides.get("source", False) and sides.get("source_active", False),
        "waiting": sides.get("waiting", 0),
        "gtid_executed": answer["gtid_executed"],
    }


def metrics(state: dict) -> str:
    """Return the state in the text format of Prometheus. What is not known is left out."""
    sides = state["semi_sync"] or {}
    seen, group = state.get("source_seen"), state["group"]
    values = [
        ("up", "Whether mysqld answers.", state["role"] != "down"),
        ("writable", "Whether this node accepts writes.", state["writable"]),
        ("lag_seconds", "How old the data may be.", state["lag"]),
        ("semi_sync_enabled", "Whether commits are to wait for a replica.", sides.get("source")),
        ("semi_sync_active", "Whether they do.", sides.get("source") and sides.get("source_active")),
        ("semi_sync_replicas", "Replicas that acknowledge.", sides.get("source_replicas")),
        ("semi_sync_stalls", "Whether commits wait for ever while there is none.", sides.get("wait_no_replica")),
        ("semi_sync_waiting", "Commits that wait for a replica now.", sides.get("waiting")),
        ("semi_sync_unacknowledged_total", "Commits that went on without a replica.", sides.get("unacknowledged")),
        ("semi_sync_replica_active", "Whether this replica acknowledges.", sides.get("replica_active")),
        ("group_quorum", "Whether this member reaches a majority of its group.", group and group["quorum"]),
        ("source_seen_timestamp_seconds", "When this replica's source last answered.", seen and seen["at"]),
    ]
    lines = []
    for suffix, meaning, value in values:
        if value is not None:
            name, kind = f"webstack_mysql_{suffix}", "counter" if suffix.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", f"{name} {float(value):.15g}"]
    lines += ["# HELP webstack_mysql_role What this node is.", "# TYPE webstack_mysql_role gauge"]
    lines += [f'webstack_mysql_role{{role="{role}"}} {int(role == state["role"])}' for role in ROLES]
    return "\n".join(lines) + "\n"


def judge(mine: dict, peers: dict[str, dict]) -> tuple[str, str]:
    """Return open, wait or stay, and why, for a node that has started and so is read-only.

    It is still the primary if every peer answers, replicates from it and holds nothing that it lacks ("ahead"). A peer
    that was promoted meanwhile has lost its channel, even when it has restarted too. While a peer does not answer, or
    its receiver is stopped as at the beginning of a failover, nobody can know.
    """
    if mine["writable"]:
        return "stay", "this node is open"
    if mine["sources"]:
        return "stay", f"this node is a replica of {mine['sources'][0]['source']}"
    if mine["group"]:
        return "stay", "this node is a member of a group, which elects its primary"
    doubts = []
    for url, peer in peers.items():
        ours = [
            source
            for source in peer["sources"]
            if source["source_uuid"] == mine["server_uuid"] or source["source"] == mine["address"]
        ]
        if peer["role"] in ("down", "offline"):
            doubts.append(f"{url} does not say what it is")
        elif peer["writable"]:
            return "stay", f"{url} is the primary"
        elif not ours:
            return "stay", f"{url} does not replicate from this node"
        elif peer["ahead"]:
            return "stay", f"{url} holds transactions that this node lacks"
        elif ours[0]["receiver"] == "OFF":
            doubts.append(f"replication is stopped on {url}")
    if doubts:
        return "wait", ", ".join(doubts)
    if not mine["gtid_executed"]:
        return "stay", "nobody has ever opened this node"
    return "open", "every peer replicates from this node" if peers else "there are no peers"


def count(before: dict | None, state: dict, known: int) -> dict:
    """Return the term that this node knows of, and the opening that began it, if that was its own.

    A term begins with each opening of any node, and has the next number, whatever the clocks say: ``known`` is the highest
    that the others have. mysqld keeps the time of an opening, by which it is recognised on its own node, and forgets it
    when it restarts, closed. An opening from before this service was there began none.
    """
    if before is None:
        return {"term": known if not state["writable"] else 0, "opened": state["opened"]}
    if not state["writable"]:
        return {**before, "term": max(before["term"], known)}
    if not state["opened"] or state["opened"] == before["opened"]:
        return before
    return {"term": max(before["term"], known) + 1, "opened": state["opened"]}


def rival(mine: dict, peers: dict[str, dict]) -> str | None:
    """Return the peer that is the primary instead of this node, which is open, too: the node that was opened last is it.

    So a primary that was cut off, and replaced meanwhile, gives way as soon as it sees its successor, whose term is higher.
    The clocks decide between equal terms, and where the state service of one node knows of no terms yet. A group knows its
    primary by itself, and a node that has nothing of what this one has is a stranger.
    """

    def order(state: dict, terms: bool) -> tuple[int, float, int]:
        return state["term"] if terms else 0, state["opened"] or 0.0, -state["server_id"]

    def origins(state: dict) -> set[str]:
        return {part.strip().split(":")[0] for part in state["gtid_executed"].split(",")}

    if mine["opened"] is None or mine["sources"] or (mine["group"] and mine["group"]["state"] != "OFFLINE"):
        return None
    for url, peer in peers.items():
        terms = "term" in mine and "term" in peer
        if peer["writable"] and origins(peer) & origins(mine) and order(peer, terms) > order(mine, terms):
            return url
    return None


def closing(state: dict) -> list[str]:
    """Return the statements that close an open node. Its clients are disconnected first, so that no commit that still
    waits for a replica is acknowledged."""
    return [
        "SET GLOBAL offline_mode = ON",
        "SET GLOBAL super_read_only = ON",
        *([] if state["offline_mode"] else ["SET GLOBAL offline_mode = OFF"]),
        *(["SET GLOBAL rpl_semi_sync_source_enabled = OFF"] if state["semi_sync"] else []),
    ]


def opening(state: dict, stalls: bool) -> list[str]:
    """Return the statements that open this node; no commit may come before it has to wait for a replica."""
    statements = []
    if state["semi_sync"]:
        statements += ["SET GLOBAL rpl_semi_sync_source_wait_no_replica = ON"] if stalls else []
        statements += ["SET GLOBAL rpl_semi_sync_source_enabled = ON"]
    return [*statements, "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"]


def arming(state: dict) -> str | None:
    """Return whether commits shall wait when there is no replica: ON, OFF, or None to leave that as it is.

    The first primary has no replica yet: it must take the accounts and the data that its first one comes with. So mysqld
    itself begins to wait with the first replica (wait_no_replica=OFF does that), and only then, at most a second later,
    is it told to wait for one that has gone, too. A node that takes over, or opens itself again, is told so before.
    """
    sides = state["semi_sync"]
    if not sides:
        return None
    if state["role"] == "replica" and sides["wait_no_replica"]:
        return "OFF"
    attached = state["writable"] and sides["source"] and sides["source_replicas"] > 0
    return "ON" if attached and not sides["wait_no_replica"] else None


# mysqld, the peers and the clients.


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Node:
    """The local mysqld over one lasting connection, which still serves when mysqld has no other left to give."""

    def __init__(self, user: str):
        self.user = user
        self.connection = None
        self.clocks = {}  # of the sources: what to add to time.monotonic()

    def query(self, sql: str, *values: str) -> list[dict]:
        """Return the rows, over a new connection if mysqld has closed the old one."""
        import pymysql  # here, so that the decisions above need nothing

        kept = self.connection is not None
        try:
            if not kept:
                self.connection = pymysql.connect(
                    unix_socket=SOCKET,
                    user=self.user,
                    connect_timeout=ANSWER_WITHIN,
                    read_timeout=ANSWER_WITHIN,
                    write_timeout=ANSWER_WITHIN,
                    autocommit=True,
                    cursorclass=pymysql.cursors.DictCursor,
                )
            with self.connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return list(cursor.fetchall())
        except (pymysql.MySQLError, OSError) as error:
            self.connection = None
            if kept and not isinstance(error.__context__, TimeoutError):
                return self.query(sql, *values)
            raise ConnectionError(str(error)) from error

    def state(self) -> dict:
        try:
            values = {row["name"]: row["value"] for row in self.query(SEMI_SYNC)}
            clocks = {source: ahead + time.monotonic() for source, ahead in self.clocks.items()}
            return describe(self.query(NODE)[0], self.query(CHANNELS), values, self.query(MEMBERS), clocks)
        except ConnectionError as error:
            return {**DOWN, "error": str(error)}


class Term:
    """What ``count`` says, in a file that outlives this service."""

    def __init__(self, file: str, peers: Peers):
        self.file, self.peers = Path(file), peers
        self.heard = 0  # from the source
        try:
            self.record = json.loads(self.file.read_text())
        except (OSError, ValueError):
            self.record = None

    def of(self, state: dict) -> int:
        known = self.heard
        if self.record and state["writable"] and state["opened"] != self.record["opened"]:
            known = max([known, *(said.get("term", 0) for said in self.peers.ask().values())])
        record = count(self.record, state, known)
        if record != self.record and state["role"] != "down":
            self.record = record
            self.save()
        return record["term"]

    def save(self) -> None:
        new = self.file.with_suffix(".new")
        try:
            with new.open("w") as file:
                json.dump(self.record, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.file)
        except OSError as error:
            say(f"the term is not kept: {error}")


class Cache:
    """The state, asked for at most once in CACHE seconds however many ask."""

    def __init__(self, node: Node, term: Term):
        self.node, self.term = node, term
        self.lock = threading.Lock()
        self.good_until = 0.0
        self.last = {"role": "unknown"}
        self.source_seen, self.seen_at = None, 0.0

    def watch_source(self, port: int, interval: float = 1.0) -> None:
        """Ask the source of this node what it is, for as long as this service runs. Its state service has the same port."""
        while True:
            for source in self.state()["sources"]:
                host = f"[{source['source']}]" if ":" in source["source"] else source["source"]
                asked = time.monotonic()
                answer = ask(f"http://{host}:{port}/")
                if "clock" in answer:
                    self.node.clocks = {**self.node.clocks, source["source"]: answer["clock"] - asked}
                    self.seen_at = asked
                self.term.heard = max(self.term.heard, answer.get("term", 0))
                self.source_seen = remember(self.source_seen, source["source"], answer, time.time())
            time.sleep(interval)

    def state(self) -> dict:
        with self.lock:
            if time.monotonic() >= self.good_until:
                state = self.node.state()
                if state["role"] != self.last["role"]:
                    say(f"{self.last['role']} -> {state['role']} {state.get('error', '')}".rstrip())
                sources = [source["source"] for source in state["sources"]]
                seen = self.source_seen if self.source_seen and self.source_seen["source"] in sources else None
                if seen:
                    seen = {**seen, "ago": round(time.monotonic() - self.seen_at, 3)}
                self.last = {**state, "term": self.term.of(state), "source_seen": seen}
                self.good_until = time.monotonic() + CACHE
            return self.last


class Peers:
    """The other nodes. What one said last counts while it is silent."""

    def __init__(self, file: str):
        self.file, self.said = Path(file), {}
        self.lock = threading.Lock()
        self.good_until = 0.0

    @property
    def urls(self) -> list[str]:
        return self.file.read_text().split()

    def ask(self) -> dict[str, dict]:
        """Return what the peers said last, after asking all at once unless that was just done."""
        with self.lock:
            urls = self.urls
            self.said = {url: said for url, said in self.said.items() if url in urls}
            if urls and time.monotonic() >= self.good_until:
                with ThreadPoolExecutor(len(urls)) as pool:
                    answers = pool.map(lambda url: (url, ask(url, PEER_ANSWERS_WITHIN)), urls)
                    self.said |= {url: answer for url, answer in answers if "server_id" in answer}
                self.good_until = time.monotonic() + PEER_CACHE
            return self.said

    def rival(self, mine: dict) -> str | None:
        return None if mine["opened"] is None else rival(mine, self.ask())


class HTTPServer(ThreadingHTTPServer):
    request_queue_size = 128  # clients that may wait to be accepted

    def handle_error(self, request, client_address) -> None:
        """Say nothing of a client that has left: a load balancer does so once it has read the status."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    cache: Cache
    peers: Peers
    timeout = 5  # seconds for a client to send its request
    wbufsize = -1  # an answer is sent whole

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        state = self.cache.state()
        try:
            max_lag = float(parse_qs(url.query).get("max_lag", [DEFAULT_MAX_LAG])[0])
            good = {
                "/": state["role"] != "down",
                "/metrics": True,
                "/write": state["writable"] and not (url.path == "/write" and self.peers.rival(state)),
                "/read": may_read(state, max_lag),
                "/replica": state["role"] == "replica" and may_read(state, max_lag),
            }[url.path]
        except ValueError:
            return self.send_error(400, "max_lag is a number of seconds")
        except KeyError:
            return self.send_error(404)
        kind, body = "application/json", json.dumps(state) + "\n"
        if url.path == "/metrics":
            kind, body = "text/plain; version=0.0.4", metrics(state)
        body = body.encode()
        self.send_response(200 if good else 503)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return None

    do_HEAD = do_OPTIONS = do_GET  # noqa: N815 - names of http.server

    def version_string(self) -> str:
        return "mysql-state"

    def log_message(self, *_args) -> None:
        """Say nothing of a request: there are several a second."""


def serve(address: str, port: int, peers: Peers, term: str) -> None:
    Handler.cache, Handler.peers = Cache(Node("mysqlstate"), Term(term, peers)), peers
    threading.Thread(target=Handler.cache.watch_source, args=(port,), daemon=True).start()
    HTTPServer.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
    HTTPServer((address, port), Handler).serve_forever()


def ask(url: str, timeout: float = ANSWER_WITHIN) -> dict:
    """Return the state of a peer, DOWN when it or its mysqld does not answer."""
    try:
        with build_opener(ProxyHandler({})).open(urljoin(url, "/"), timeout=timeout) as answer:
            return {**DOWN, **json.load(answer)}
    except (OSError, ValueError):
        return DOWN


def consider(node: Node, mine: dict, urls: list[str]) -> tuple[str, str]:
    """Return what ``judge`` says of this node and its peers as they are now."""
    if mine["role"] == "down":
        return "wait", mine["error"]
    peers = {}
    for url in urls:
        peer = ask(url)
        held = node.query("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed) AS held", peer.get("gtid_executed", ""))
        peers[url] = {**peer, "ahead": not held[0]["held"]}
    return judge(mine, peers)


def reopen(node: Node, peers: Peers, stalls: bool, interval: float = 1.0) -> None:
    """Open this node as soon as that is known to be right, and return then, or when it is known to be wrong."""
    said = None
    while True:
        mine, urls = node.state(), peers.urls
        try:
            verdict, why = consider(node, mine, urls)
            if verdict == "open":
                for statement in opening(mine, stalls and bool(urls)):
                    node.query(statement)
        except ConnectionError as error:
            verdict, why = "wait", str(error)
        if (verdict, why) != said:
            say(f"{verdict}: {why}")
            said = verdict, why
        if verdict != "wait":
            return
        time.sleep(interval)


def keep(node: Node, peers: Peers, stalls: bool, service: str | None = None, interval: float = 1.0) -> None:
    """Close this node when it has a rival, and let commits wait for a replica that has gone, for as long as mysqld runs.

    Its own state service knows its term. The unit of a previous version does not name that, and is in force until systemd
    is reloaded: there the clocks decide.
    """
    while True:
        time.sleep(interval)
        if not (peers.urls or stalls):
            continue
        state = node.state()
        mine = ask(service) if service else state
        other = peers.rival(mine) if peers.urls else None
        setting = arming(state) if stalls else None
        if other:
            say(f"closed: {other} was opened after this node, and is the primary")
        if setting:
            say(f"commits {'wait' if setting == 'ON' else 'do not wait'} while no replica is attached")
        statements = [f"SET GLOBAL rpl_semi_sync_source_wait_no_replica = {setting}"] if setting else []
        try:
            for statement in closing(mine) if other else statements:
                node.query(statement)
        except ConnectionError as error:
            say(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="answer over HTTP what this node may be used for")
    server.add_argument("--address", required=True)
    server.add_argument("--port", type=int, required=True)
    server.add_argument("--peers", default=os.devnull, metavar="FILE")
    server.add_argument("--term", default="/var/lib/mysql-state/term", metavar="FILE")
    opener = commands.add_parser(
        "open", help="open this node if it is still the primary, and close it when it no longer is"
    )
    opener.add_argument("--peers", default=os.devnull, metavar="FILE")
    opener.add_argument("--state", metavar="URL", help="the state service of this node; without it the clocks decide")
    opener.add_argument("--stall", action="store_true", help="do what the command stall does, too")
    commands.add_parser("stall", help="let commits wait for a replica that has gone")
    options = parser.parse_args()
    if options.command == "serve":
        serve(options.address, options.port, Peers(options.peers), options.term)
    node = Node("root")
    if options.command == "open":
        peers = Peers(options.peers)
        reopen(node, peers, options.stall)
        keep(node, peers, options.stall, options.state)
    elif options.command == "stall":
        keep(node, Peers(os.devnull), stalls=True)


if __name__ == "__main__":
    main()
