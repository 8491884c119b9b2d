#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_replica
short_description: The place of a MySQL server in replication
version_added: 0.1.0
description:
  - Makes the local MySQL server 8.4 or later a running replica of a source, or the primary, or neither. It needs GTIDs.
  - Names the state that it finds, says what it does about it, and refuses what may lose data or make a second primary.
  - A replica is seeded with the source's data by C(CLONE) where it needs them. A node that holds users' databases or
    transactions that the source lacks is never wiped without O(allow_destroy=true).
  - A replica always is super_read_only.
author: The foobar.webstack founders (@foobar)
requirements:
  - PyMySQL on the managed host (Debian package C(python3-pymysql))
  - The clone plugin on source and replica, for seeding
notes:
  - The account O(source_user) needs REPLICATION SLAVE on the source, and BACKUP_ADMIN for seeding. The module logs in
    with it, too, to compare GTID sets before it changes anything.
  - C(CLONE) restarts mysqld. A server without super_read_only=ON in its configuration is open for writes from then
    until the module has closed it.
  - A changed password is found because the server keeps the one of a channel readable for its administrator, in
    C(mysql.slave_master_info).
attributes:
  check_mode:
    support: full
    description:
      - Reads and plans, and fails where the real run would refuse. It does not wait.
      - A new O(source_password) that the source does not know yet is taken for right, with a warning. The account may
        be due to get it in the same run.
  diff_mode:
    support: full
    description: Shows state, source and fence. Passwords are not shown.
  platform:
    support: full
    platforms: posix
    description: Works on the host that runs the MySQL server.
options:
  state:
    description:
      - V(replica) replicates from O(source_host), is seeded if need be, and refuses writes.
      - V(primary) accepts writes. A node is opened only if it has no replication channel and none of O(peers) says
        that it is writable.
      - V(stopped) keeps the channel, but stops it.
      - V(absent) removes the channel. The node stays super_read_only.
    type: str
    choices: [replica, primary, stopped, absent]
    required: true
  source_host:
    description: Name or address of the source. Its certificate must carry it. Required for O(state=replica).
    type: str
  source_port:
    description: Port of the source.
    type: int
    default: 3306
  source_user:
    description: Replication account on the source. Required for O(state=replica).
    type: str
  source_password:
    description: Its password, at most 32 bytes. Required for O(state=replica).
    type: str
  source_ssl_ca:
    description:
      - File on this host with the certificates of the authorities that may have signed the source's certificate.
      - Required for O(state=replica) unless O(source_ssl_verify=false).
    type: path
  source_ssl_verify:
    description: Check that the source's certificate carries O(source_host). The connection uses TLS in any case.
    type: bool
    default: true
  seed:
    description:
      - V(auto) and V(clone) copy the source's data where replication alone would not do, that is, on a node that has
        replicated nothing yet, or that lacks what the source's binary logs no longer hold.
      - V(never) refuses instead, and takes a new node for seeded by other means.
    type: str
    choices: [auto, clone, never]
    default: auto
  allow_destroy:
    description:
      - Let the seeding replace the databases and transactions of this node where nothing less mends it.
      - Accounts do not count as data. Seeding always replaces them by the source's.
    type: bool
    default: false
  max_lag:
    description: Seconds behind the source from which on a running replica is called lagging, with a warning.
    type: int
  peers:
    description:
      - Addresses that answer 200 if their node is writable, asked before a node is opened. For O(state=primary) only.
      - One that does not answer does not hinder; a warning names it.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for the server to come back after seeding, and then for replication to run.
    type: int
    default: 300
extends_documentation_fragment: foobar.webstack.mysql
seealso:
  - module: foobar.webstack.mysql_account
"""

EXAMPLES = r"""
- name: Replicate from the primary
  foobar.webstack.mysql_replica:
    state: replica
    source_host: 172.30.56.14
    source_user: replication
    source_password: "{{ replication_password }}"
    source_ssl_ca: /etc/mysql/tls/ca.pem

- name: Open the primary unless another node is open
  foobar.webstack.mysql_replica:
    state: primary
    peers: [http://172.30.56.13:9201/write]

- name: Give up the data of a node that went its own way
  foobar.webstack.mysql_replica:
    state: replica
    source_host: 172.30.56.14
    source_user: replication
    source_password: "{{ replication_password }}"
    source_ssl_ca: /etc/mysql/tls/ca.pem
    allow_destroy: true
"""

RETURN = r"""
state_before:
  description:
    - What was found. V(primary), V(unconfigured), V(running), V(lagging), V(stopped), V(connecting), V(unreachable),
      V(auth_failed), V(tls_failed), V(purged), V(errant), V(applier_broken), V(io_broken), V(other_source) or
      V(other_channels).
    - Or V(not_installed) in check mode on a host without a server.
  returned: always
  type: str
  sample: unconfigured
state_after:
  description: What it is now, or would be in check mode. V(unknown) where an action failed.
  returned: always
  type: str
  sample: running
actions:
  description:
    - What was done, or would be done in check mode, in order.
    - Of V(fence), V(stop), V(clone), V(configure), V(renew), V(start), V(reset) and V(open). V(renew) gives the receiver another
      password, while the applier goes on.
  returned: always
  type: list
  elements: str
  sample: [clone, configure, start]
errant_gtid:
  description: Transactions of this node that the source does not have.
  returned: when the source was asked
  type: str
  sample: 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3
missing_gtid:
  description: Transactions of the source that this node does not have yet.
  returned: when the source was asked
  type: str
  sample: ""
databases:
  description: Names of the users' databases on this node.
  returned: when the server was asked
  type: list
  elements: str
  sample: [guestbook]
lag:
  description: Seconds behind the source, as the server tells. Null where it cannot tell.
  returned: always
  type: int
  sample: 0
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_node import (
    Executor,
    ask_peers,
    read_node,
    read_source,
)
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import (
    PASSING,
    RUNNING,
    Refusal,
    awaits_account,
    explain,
    name_state,
    plan,
)

OPTIONS = {
    "state": {"type": "str", "choices": ["replica", "primary", "stopped", "absent"], "required": True},
    "source_host": {"type": "str"},
    "source_port": {"type": "int", "default": 3306},
    "source_user": {"type": "str"},
    "source_password": {"type": "str", "no_log": True},
    "source_ssl_ca": {"type": "path"},
    "source_ssl_verify": {"type": "bool", "default": True},
    "seed": {"type": "str", "choices": ["auto", "clone", "never"], "default": "auto"},
    "allow_destroy": {"type": "bool", "default": False},
    "max_lag": {"type": "int"},
    "peers": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 300},
}
AFTER = {"replica": "running", "primary": "primary", "stopped": "stopped", "absent": "unconfigured"}


def observe(server: mysql.Server, want: dict) -> tuple[dict, dict | None, str]:
    node = read_node(server)
    source = read_source(server, node, want) if want["state"] == "replica" else None
    return node, source, name_state(node, source, want)


def facts(node: dict, source: dict | None) -> dict:
    result = {"lag": (node["channel"] or {}).get("lag"), "databases": node["databases"]}
    if source and "uuid" in source:
        result.update(errant_gtid=source["errant"], missing_gtid=source["missing"])
    return result


def view(state: str, node: dict) -> dict:
    """A node as a diff shows it."""
    channel = node["channel"]
    source = f"{channel['user']}@{channel['host']}:{channel['port']}" if channel else None
    return {"state": state, "source": source, "super_read_only": node["super_read_only"]}


def expected(actions: list[str], node: dict, want: dict) -> dict:
    """The same, as the actions will leave it."""
    after = view(AFTER[want["state"]], node)
    if "configure" in actions:
        after["source"] = f"{want['source_user']}@{want['source_host']}:{want['source_port']}"
    if "renew" in actions:
        after["password"] = "changed"  # noqa: S105
    if "reset" in actions:
        after["source"] = None
    if "clone" in actions:
        after["data"] = "copied from the source" + "".join(f", {name} lost" for name in node["databases"])
    after["super_read_only"] = "open" not in actions and (
        node["super_read_only"] or bool({"fence", "clone"} & {*actions})
    )
    return after


def settle(server: mysql.Server, want: dict) -> tuple[dict, dict | None, str]:
    """Wait until the replica runs, or for what will not pass, or for the time-out.

    A source may let the replica in and then refuse it its logs: behind the source, it has to be seen running twice.
    """
    until = time.monotonic() + want["timeout"]
    running = False
    while True:
        node, source, state = observe(server, want)
        steady = state not in PASSING and (state not in RUNNING or running or not (source or {}).get("missing"))
        if steady or time.monotonic() > until:
            return node, source, state
        running = state in RUNNING
        time.sleep(1 if running else 0.3)


def main():
    module = AnsibleModule(
        argument_spec={**OPTIONS, **mysql.LOGIN},
        required_if=[("state", "replica", ["source_host", "source_user", "source_password"])],
        supports_check_mode=True,
    )
    want = module.params
    if want["state"] == "replica" and want["source_ssl_verify"] and not want["source_ssl_ca"]:
        module.fail_json(msg="source_ssl_ca is required for state=replica unless source_ssl_verify=false.")
    if mysql.not_installed_yet(module):
        changed = want["state"] in ("replica", "primary")
        module.exit_json(
            changed=changed, state_before="not_installed", state_after=AFTER[want["state"]], actions=[], lag=None
        )

    server = mysql.connect_locally(module)
    result = {"changed": False, "actions": []}
    try:
        node, source, state = observe(server, want)
        result.update(state_before=state, state_after=state, **facts(node, source))
        if not node["gtid_mode"]:
            module.fail_json(msg="gtid_mode is not ON in the server's configuration.", **result)
        open_peers, silent_peers = ask_peers(want["peers"]) if want["state"] == "primary" else ([], [])
        if module.check_mode and awaits_account(state, node, source, want):
            module.warn(
                "The source does not know source_password yet, which is right if this run gives it to the account."
            )
            actions = ["renew"]
        else:
            actions = plan(state, node, source, want, open_peers)
        if state == "primary" and open_peers:
            module.warn(f"Two primaries: this node is writable, and {', '.join(open_peers)} says that it is, too.")
        if "open" in actions and silent_peers:
            module.warn(f"Did not answer whether it is writable: {', '.join(silent_peers)}.")
        before = view(state, node)
        if actions:
            result["diff"] = {"before": before, "after": expected(actions, node, want)}
        if module.check_mode:
            after = AFTER[want["state"]] if actions else state
            module.exit_json(**{**result, "changed": bool(actions), "actions": actions, "state_after": after})

        def connect():
            return mysql.Server(unix_socket=want["login_unix_socket"], user=want["login_user"])

        executor = Executor(server, connect, node, want)
        for action in actions:
            result["changed"] = True
            result["actions"].append(action)
            executor.run(action)
        wait = settle if want["state"] == "replica" else observe
        node, source, state = wait(executor.server, want)
        result.update(state_after=state, **facts(node, source))
        if actions:
            result["diff"]["after"] = {**result["diff"]["after"], **view(state, node)}
    except Refusal as refusal:
        module.fail_json(msg=str(refusal), **result)
    except mysql.MySQLError as error:
        result["state_after"] = "unknown"
        done = f" after {', '.join(result['actions'])}" if result["actions"] else ""
        module.fail_json(msg=f"{error}{done}", **result)
    if want["state"] == "replica" and state not in RUNNING:
        module.fail_json(msg=explain(state, node, source, want), **result)
    if state == "lagging":
        module.warn(f"lagging: {result['lag']} s behind {want['source_host']}; max_lag is {want['max_lag']} s.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
