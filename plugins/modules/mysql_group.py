#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_group
short_description: Membership of a MySQL server in a replication group
version_added: 0.2.0
description:
  - Makes the local MySQL server 8.4 or later a member of a group (MySQL Group Replication, single primary), which elects another
    primary by itself when it loses one. It needs GTIDs, and the state service of the role P(foobar.webstack.mysql_server#role) on
    every member.
  - Run it on all members at the same time. While no member is in the group, every node asks all others, and all come to the same
    answer which of them begins it, namely the one that is writable, or else the one with the largest GTID set. It is never begun a
    second time, and not at all while one of O(members) cannot be asked, unless O(force) says so.
  - A replica of a member becomes a member once it has caught up. A node without data is seeded by C(CLONE). A node with transactions
    that the group lacks is never wiped without O(allow_destroy=true).
  - A member that is in the group stays in it.
author: The foobar.webstack founders (@foobar)
requirements:
  - PyMySQL on the managed host (Debian package C(python3-pymysql))
  - The plugins clone and group_replication. The module loads the latter where no restart of mysqld has done so yet
  - A service that restarts mysqld, and starts Group Replication after each start, as the role P(foobar.webstack.mysql_group#role) installs
attributes:
  check_mode:
    support: full
    description: Reads and plans, and fails where the real run would refuse. It neither waits for the group nor joins it.
  diff_mode:
    support: full
    description: Shows state, primary and settings. Passwords are not shown.
  platform:
    support: full
    platforms: posix
    description: Works on the host that runs the MySQL server.
options:
  state:
    description:
      - V(member) is in the group.
      - V(primary) is in the group and takes the writes, which another member hands over within a second. Nothing is done about a node
        that is not in the group yet; the module fails.
    type: str
    choices: [member, primary]
    default: member
  name:
    description: UUID of the group, the same on all members. Required for O(state=member), as are O(address), O(members) and O(password).
    type: str
  address:
    description: Address of this node. Its certificate must carry it.
    type: str
  members:
    description:
      - Addresses of all members, this one included, 3, 5, 7 or 9 of them.
      - Of nodes that hold the same, the first one begins the group and so is its first primary.
    type: list
    elements: str
    default: []
  state_port:
    description: Port of the state service on every member.
    type: int
    default: 9201
  user:
    description:
      - Account that a member logs in with to the others. The module makes it, on this node alone before the node is in the group, and
        on the primary afterwards.
    type: str
    default: group_member
  password:
    description:
      - Its password, 1 to 32 bytes. Where it changes, the one before stays valid as a second one.
    type: str
  settings:
    description:
      - Settings of Group Replication without the prefix C(group_replication_), as the configuration file has them. What differs is set.
      - A setting that a member cannot change takes effect when mysqld restarts. The module warns of it.
    type: dict
    default: {}
  force:
    description:
      - Address of the member that begins the group again although others cannot be asked, because they are lost for ever. Writes that only a lost
        one holds are lost.
      - It means nothing while a group works.
    type: str
  allow_destroy:
    description: Replace the data of this node by the group's where it holds transactions that the group lacks.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for the group to begin, for this node to be seeded and to catch up.
    type: int
    default: 300
extends_documentation_fragment: foobar.webstack.mysql
seealso:
  - module: foobar.webstack.mysql_replica
"""

EXAMPLES = r"""
- name: Be a member of the group
  foobar.webstack.mysql_group:
    name: 5cf3a5b3-0a26-5a0b-9f0e-2f0f5d6f1f3a
    address: 172.30.70.11
    members: [172.30.70.11, 172.30.70.12, 172.30.70.13]
    password: "{{ group_password }}"
    settings:
      local_address: 172.30.70.11:3306
      group_seeds: 172.30.70.11:3306,172.30.70.12:3306,172.30.70.13:3306
  register: member

- name: Hand the writes over to this node
  foobar.webstack.mysql_group:
    state: primary
"""

RETURN = r"""
state_before:
  description:
    - What was found. V(primary), V(secondary), V(joining), V(no_quorum) (in the group, but without a majority), V(expelled) (out of it
      because of an error) or V(outside).
    - Or V(not_installed) in check mode on a host without a server.
  returned: always
  type: str
  sample: outside
state_after:
  description: What it is now, or would be in check mode. V(unknown) where an action failed.
  returned: always
  type: str
  sample: secondary
primary:
  description: Address of the group's primary, null where it is not known.
  returned: always
  type: str
  sample: 172.30.70.11
actions:
  description:
    - What was done, or would be done in check mode, in order.
    - Of V(leave), V(await_group), V(catch_up) and V(detach) (of a replica), V(load) (the plugin), V(account), V(reset) (the node's own
      transactions), V(settings), V(credentials), V(semi_sync_off), V(clone), V(bootstrap), V(join), V(wait), V(online) and V(elect).
  returned: always
  type: list
  elements: str
  sample: [await_group, load, account, credentials, join]
"""

import contextlib
import json
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_group import (
    FIXED,
    PRIVILEGES,
    Passing,
    changeable,
    different,
    input_faults,
    name_state,
    plan,
    primary,
    quorum,
    set_value,
)
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_node import SYSTEM_DATABASES, read_node
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_password import password_matches
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import Refusal

ANSWER_WITHIN = 3  # seconds for a state service
PATIENCE = 15  # seconds for what passes: a member gives up 10 s after it has lost the majority
INTERVAL = 0.5  # seconds between two questions

OPTIONS = {
    "state": {"type": "str", "choices": ["member", "primary"], "default": "member"},
    "name": {"type": "str"},
    "address": {"type": "str"},
    "members": {"type": "list", "elements": "str", "default": []},
    "state_port": {"type": "int", "default": 9201},
    "user": {"type": "str", "default": "group_member"},
    "password": {"type": "str", "no_log": True},
    "settings": {"type": "dict", "default": {}},
    "force": {"type": "str"},
    "allow_destroy": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 300},
}
CHANNEL = "group_replication_recovery"

# Of a member that has not started there is one row, without an id.
MEMBERS = """
SELECT MEMBER_ID AS uuid, MEMBER_HOST AS host, MEMBER_PORT AS port, MEMBER_STATE AS state, MEMBER_ROLE AS role
FROM performance_schema.replication_group_members WHERE MEMBER_ID <> '' ORDER BY MEMBER_HOST, MEMBER_PORT
"""
# Without the plugin there is one that the server itself has.
SETTINGS = """
SELECT SUBSTR(LOWER(VARIABLE_NAME), 19) AS name, VARIABLE_VALUE AS value FROM performance_schema.global_variables
WHERE VARIABLE_NAME LIKE 'group\\_replication\\_%'
"""
UNFIT = """
SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME) AS name FROM information_schema.TABLES AS t
WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN %s AND (ENGINE <> 'InnoDB' OR NOT EXISTS (
  SELECT INDEX_NAME FROM information_schema.STATISTICS AS s
  WHERE s.TABLE_SCHEMA = t.TABLE_SCHEMA AND s.TABLE_NAME = t.TABLE_NAME AND NON_UNIQUE = 0
  GROUP BY INDEX_NAME HAVING SUM(NULLABLE = 'YES') = 0))
ORDER BY name
"""
ACCOUNT = """
SELECT HEX(authentication_string) AS hash, ssl_type <> '' AS tls, (
  SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES
  WHERE GRANTEE = CONCAT(QUOTE(User), '@', QUOTE(Host)) AND PRIVILEGE_TYPE IN %s) AS granted
FROM mysql.user WHERE User = %s AND Host = '%%' AND plugin = 'caching_sha2_password'
"""


def ask(url: str) -> dict:
    """What a node's state service says, an empty dictionary where it says nothing."""
    try:
        with open_url(url, timeout=ANSWER_WITHIN, use_proxy=False, follow_redirects="none") as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with contextlib.suppress(ValueError):
            return json.load(error)
    except (OSError, ValueError):
        pass
    return {}


def ask_peers(want: dict) -> dict[str, dict]:
    """What the other members' state services say, by address."""
    others = [address for address in want["members"] if address != want["address"]]
    hosts = {address: f"[{address}]" if ":" in address else address for address in others}
    with ThreadPoolExecutor() as pool:
        asked = {address: pool.submit(ask, f"http://{host}:{want['state_port']}/") for address, host in hosts.items()}
    return {address: answer.result() for address, answer in asked.items()}


def account_is_good(server: mysql.Server, want: dict) -> bool:
    row = server.row(ACCOUNT, (PRIVILEGES, want["user"]))
    return bool(row) and bool(row["tls"]) and row["granted"] == len(PRIVILEGES) and _knows(row["hash"], want)


def _knows(stored: str, want: dict) -> bool:
    return password_matches(bytes.fromhex(stored or ""), want["password"])


def read_membership(server: mysql.Server) -> dict | None:
    members = server.query(MEMBERS)
    uuid = server.value("SELECT @@server_uuid")
    mine = next((member for member in members if member["uuid"] == uuid), None)
    if mine is None or mine["state"] == "OFFLINE":
        return None
    name = server.value(
        "SELECT MAX(GROUP_NAME) FROM performance_schema.replication_connection_status"
        " WHERE CHANNEL_NAME = 'group_replication_applier'"
    )
    return {
        "name": name,
        "state": mine["state"],
        "role": mine["role"],
        "quorum": quorum(uuid, members),
        "members": members,
    }


def read(server: mysql.Server, want: dict) -> dict:
    """See mysql_group for the shape."""
    variables = {row["name"]: row["value"] for row in server.query(SETTINGS)}
    member = read_membership(server)
    # To read what tables there are takes a while, and of a member the group itself takes care.
    received = server.value(
        "SELECT MAX(RECEIVED_TRANSACTION_SET) FROM performance_schema.replication_connection_status"
        " WHERE CHANNEL_NAME = 'group_replication_applier'"
    )
    unfit = [] if member else [row["name"] for row in server.query(UNFIT, (SYSTEM_DATABASES,))]
    login = server.row(
        "SELECT User_name AS user, User_password AS password FROM mysql.slave_master_info WHERE Channel_name = %s",
        (CHANNEL,),
    )
    node = read_node(server)
    return {
        **node,
        "channels": [name for name in node["channels"] if not name.startswith("group_replication_")],
        **server.row("SELECT @@GLOBAL.server_id AS server_id, @@GLOBAL.report_host AS address"),
        "received": received or "",
        "member": member,
        "plugin": "group_name" in variables,
        "settings": variables,
        "unfit": unfit,
        "account": want["password"] is None or account_is_good(server, want),
        "credentials": want["password"] is None or login == {"user": want["user"], "password": want["password"]},
    }


class Executor:
    """Carries out the actions of a plan on the local server, each a method of its name."""

    def __init__(self, connect, want: dict):
        """``connect`` opens a connection to the local server: CLONE restarts it."""
        self._connect, self._want = connect, want
        self.server = connect()
        self._until = time.monotonic() + want["timeout"]
        self._group: dict[str, dict] = {}

    def run(self, action: str) -> None:
        getattr(self, action)()

    def leave(self) -> None:
        self.server.query("STOP GROUP_REPLICATION")

    def await_group(self) -> None:
        """Wait until another member is in the group."""
        while True:
            peers = ask_peers(self._want)
            self._group = {address: peer for address, peer in peers.items() if (peer.get("group") or {}).get("quorum")}
            if self._group:
                return
            if time.monotonic() > self._until:
                raise Refusal(
                    f"No member is in the group after {self._want['timeout']} s. The one with the largest GTID set, or the writable one, "
                    "begins it when the module runs there: run it on all members."
                )
            time.sleep(INTERVAL)

    def catch_up(self) -> None:
        """Apply what the relay log has, and what the group had executed when it was asked."""
        received = self.server.value(
            "SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = ''"
        )
        for gtids in [received, *(peer["gtid_executed"] for peer in self._group.values())]:
            late = self.server.value("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (gtids or "", self._want["timeout"]))
            if late:
                raise Refusal(
                    f"This replica has not caught up after {self._want['timeout']} s, and stays one. Run again when it has, or with a "
                    "longer timeout."
                )

    def detach(self) -> None:
        self.server.query("STOP REPLICA FOR CHANNEL ''")
        self.server.query("RESET REPLICA ALL FOR CHANNEL ''")

    def load(self) -> None:
        """Load the plugin without a restart. From the next one on the configuration file does it, and not also this table."""
        with self._alone():
            self.server.query("INSTALL PLUGIN group_replication SONAME 'group_replication.so'")
            self.server.query("DELETE FROM mysql.plugin WHERE name = 'group_replication'")

    def account(self) -> None:
        """On a node that is fenced the account is of this node alone: the group has one of its own, and both may meet."""
        if account_is_good(self.server, self._want):
            return  # It came with the last transactions of the primary.
        with self._alone() if self.server.value("SELECT @@GLOBAL.super_read_only") else contextlib.nullcontext():
            user, password = self._want["user"], self._want["password"]
            row = self.server.row(ACCOUNT, (PRIVILEGES, user))
            self.server.query(
                "CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED WITH caching_sha2_password BY %s REQUIRE SSL",
                (user, password),
            )
            if row and not _knows(row["hash"], self._want):
                self.server.query("ALTER USER %s@'%%' IDENTIFIED BY %s RETAIN CURRENT PASSWORD", (user, password))
            self.server.query("ALTER USER %s@'%%' REQUIRE SSL", (user,))
            self.server.query(f"GRANT {', '.join(PRIVILEGES)} ON *.* TO %s@'%%'", (user,))

    @contextlib.contextmanager
    def _alone(self):
        """Room for changes of this node alone. No application gets in meanwhile."""
        fenced = self.server.value("SELECT @@GLOBAL.super_read_only")
        self.server.query("SET SESSION sql_log_bin = OFF")
        if fenced:
            self.server.query("SET GLOBAL offline_mode = ON")
            self.server.query("SET GLOBAL super_read_only = OFF")
        try:
            yield
        finally:
            if fenced:
                self.server.query("SET GLOBAL super_read_only = ON")
                self.server.query("SET GLOBAL offline_mode = OFF")
            self.server.query("SET SESSION sql_log_bin = ON")

    def reset(self) -> None:
        with self._alone():
            self.server.query("RESET BINARY LOGS AND GTIDS")
            self.server.query("RESET REPLICA ALL FOR CHANNEL 'group_replication_applier'")

    def settings(self) -> None:
        have = {row["name"]: row["value"] for row in self.server.query(SETTINGS)}
        node = {"settings": have, "member": read_membership(self.server)}
        for name in changeable(node, self._want):
            value = set_value(self._want["settings"][name])
            self.server.query(f"SET GLOBAL group_replication_{name} = %s", (int(value) if value.isdigit() else value,))

    def credentials(self) -> None:
        self.server.query(
            f"CHANGE REPLICATION SOURCE TO SOURCE_USER = %s, SOURCE_PASSWORD = %s FOR CHANNEL '{CHANNEL}'",
            (self._want["user"], self._want["password"]),
        )

    def semi_sync_off(self) -> None:
        """The group's majority is what acknowledges. No replica does so any more, and commits would wait for one."""
        self.server.query("SET GLOBAL rpl_semi_sync_source_enabled = OFF")

    def clone(self) -> None:
        """Have the next join copy a member, whatever the members' binary logs still hold: data may be older than they are."""
        self.server.query("SET GLOBAL group_replication_clone_threshold = 1")

    def bootstrap(self) -> None:
        self.server.query("SET GLOBAL group_replication_bootstrap_group = ON")
        try:
            self.server.query("START GROUP_REPLICATION")
        finally:
            self.server.query("SET GLOBAL group_replication_bootstrap_group = OFF")
        self.wait()

    def join(self) -> None:
        """Join, again and again: a member is refused while another joins, or while the group expels what it was before."""
        while True:
            try:
                self.server.query("START GROUP_REPLICATION")
                break
            except mysql.MySQLError:
                self.server = self._reconnect()
                member = read_membership(self.server)
                if member and member["state"] != "ERROR":
                    break  # The node's own service was faster.
                if time.monotonic() > self._until:
                    raise
                if member:
                    with contextlib.suppress(mysql.MySQLError):
                        self.leave()
                time.sleep(5 * INTERVAL)
        self.wait()
        with contextlib.suppress(mysql.MySQLError):
            self.server.query("SET GLOBAL group_replication_clone_threshold = DEFAULT")

    def wait(self) -> None:
        """Wait until the member is online, and open where it is the primary. A seeded one restarts in between."""
        seen = None
        while time.monotonic() < self._until:
            try:
                seen = read_membership(self.server)
                fenced = self.server.value("SELECT @@GLOBAL.super_read_only")
            except mysql.MySQLError:
                self.server = self._reconnect()
                continue
            if seen and seen["state"] == "ERROR":
                break
            if seen and seen["state"] == "ONLINE" and (seen["role"] == "SECONDARY" or not fenced):
                return
            time.sleep(INTERVAL)
        state = seen["state"] if seen else "OFFLINE"
        raise Refusal(f"This node is {state} in the group, and not ONLINE. The error log of mysqld says why.")

    def _reconnect(self) -> mysql.Server:
        while True:
            try:
                return self._connect()
            except mysql.MySQLError:
                if time.monotonic() > self._until:
                    raise
                time.sleep(INTERVAL)

    def online(self) -> None:
        self.server.query("SET GLOBAL offline_mode = OFF")

    def elect(self) -> None:
        """Hand the writes over to this node."""
        self.server.query("SELECT group_replication_set_as_primary(@@server_uuid)")
        self.wait()


def decide(server: mysql.Server, want: dict) -> tuple[dict, list[str]]:
    """The node and the plan for it. What passes is given some seconds."""
    until = time.monotonic() + PATIENCE
    while True:
        # The node before the others, so that what it applied in between does not look like its own.
        node = read(server, want)
        try:
            if want["state"] == "member":
                return node, plan(node, ask_peers(want), want)
            state = name_state(node)
            if state not in ("primary", "secondary"):
                raise Passing(
                    f"{state}: only a member that is in the group can be its primary. Run with state=member first."
                )
            return node, ["elect"] if state == "secondary" else []
        except Passing as refusal:
            if time.monotonic() > until:
                raise Refusal(str(refusal)) from refusal
            time.sleep(INTERVAL)


def view(node: dict, want: dict) -> dict:
    """A node as a diff shows it."""
    channel = node["channel"]
    return {
        "state": name_state(node),
        "primary": primary(node),
        "source": f"{channel['host']}:{channel['port']}" if channel else None,
        "settings": {name: node["settings"].get(name) for name in want["settings"]},
    }


def expected(node: dict, actions: list[str], want: dict) -> dict:
    """The same, as the actions will leave it."""
    after = view(node, want)
    if "bootstrap" in actions or "elect" in actions:
        after.update(state="primary", primary=node["address"])
    elif "join" in actions or "wait" in actions:
        after["state"] = "secondary"
    if "detach" in actions:
        after["source"] = None
    if "settings" in actions or "load" in actions:
        after["settings"].update({name: set_value(want["settings"][name]) for name in changeable(node, want)})
    if "clone" in actions:
        after["data"] = "copied from a member" + "".join(f", {name} lost" for name in node["databases"])
    if "credentials" in actions or "account" in actions:
        after["password"] = "set"  # noqa: S105
    return after


def main():
    module = AnsibleModule(
        argument_spec={**OPTIONS, **mysql.LOGIN},
        required_if=[("state", "member", ["name", "address", "members", "password"])],
        supports_check_mode=True,
    )
    want = module.params
    wrong = input_faults(want) if want["state"] == "member" else []
    if wrong:
        module.fail_json(msg=" ".join(wrong))
    if mysql.not_installed_yet(module):
        after = "primary" if want["address"] in (None, *want["members"][:1]) else "secondary"
        module.exit_json(changed=True, state_before="not_installed", state_after=after, primary=None, actions=[])

    server = mysql.connect_locally(module)
    result = {"changed": False, "actions": []}
    try:
        node, actions = decide(server, want)
        result.update(state_before=name_state(node), state_after=name_state(node), primary=primary(node))
        if not node["gtid_mode"]:
            module.fail_json(msg="gtid_mode is not ON in the server's configuration.", **result)
        late = [name for name in different(node, want) if node["member"] and name in FIXED]
        if late:
            module.warn(f"Takes effect when mysqld restarts on this member: {', '.join(late)}.")
        after = expected(node, actions, want)
        if actions:
            result["diff"] = {"before": view(node, want), "after": after}
        if module.check_mode:
            module.exit_json(**{**result, "changed": bool(actions), "actions": actions, "state_after": after["state"]})

        def connect():
            return mysql.Server(unix_socket=want["login_unix_socket"], user=want["login_user"])

        executor = Executor(connect, want)
        for action in actions:
            result["changed"] = True
            result["actions"].append(action)
            executor.run(action)
        if actions:
            node = read(executor.server, want)
            result.update(state_after=name_state(node), primary=primary(node))
            result["diff"]["after"] = {**after, **view(node, want)}
    except (Refusal, mysql.MySQLError) as error:
        result.setdefault("state_before", "unknown")
        result["state_after"] = "unknown"
        done = f" after {', '.join(result['actions'])}" if result["actions"] else ""
        module.fail_json(msg=f"{error}{done}", **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
