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
  - A replica always is super_read_only. Where the plugins of semi-synchronous replication are loaded, commits wait for replicas on the
    primary, and never on a replica.
author: The foobar.webstack founders (@foobar)
requirements:
  - PyMySQL on the managed host (Debian package C(python3-pymysql))
  - The clone plugin on source and replica, for seeding
notes:
  - The account O(source_user) needs REPLICATION SLAVE on the source, and BACKUP_ADMIN for seeding. The module logs in
    with it, too, to compare GTID sets before it changes anything.
  - While a node is seeded, each tenth of the copy is told to the system's journal, C(journalctl --follow --grep mysql_replica).
  - A run that is ended in the middle of seeding leaves mysqld copying, or the node in C(offline_mode). The next run waits for that copy,
    or ends that mode, or copies anew where data has been lost; the state is V(seeding) or V(interrupted) before.
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
      - V(auto) and V(clone) copy the source's data, or those of one in O(seed_from), where replication alone would not do, that is, on a node that has
        replicated nothing yet, or that lacks what the source's binary logs no longer hold.
      - V(never) refuses instead, and takes a new node for seeded by other means.
    type: str
    choices: [auto, clone, never]
    default: auto
  seed_from:
    description:
      - Replicas of the same source to copy instead of the source, which is spared. They are tried in this order, and the source last.
      - One that does not answer, has replicated nothing, has transactions that the source lacks, or lacks what the source no longer
        keeps, is passed over with a warning.
      - O(source_user), O(source_password) and O(source_ssl_ca) hold for them, too.
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
    suboptions:
      host:
        description: Name or address of the replica. Its certificate must carry it unless O(source_ssl_verify=false).
        type: str
        required: true
      port:
        description: Its port.
        type: int
        default: 3306
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
    description:
      - Seconds to wait for a source that is busy seeding another node, for the server to come back after seeding, and then for
        replication to run. The copy itself may take as long as it takes.
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
    - What was found. V(primary), V(unconfigured), V(running), V(lagging), V(writable), V(stopped), V(connecting), V(unreachable),
      V(auth_failed), V(tls_failed), V(purged), V(errant), V(applier_broken), V(io_broken), V(other_source), V(other_channels),
      V(member) (of a replication group), V(seeding) or V(interrupted).
    - Or V(not_installed) in check mode on a host without a server.
  returned: always
  type: str
  sample: unconfigured
state_after:
  description:
    - What it is now, or would be in check mode. V(unknown) where an action failed.
    - V(unreachable) without a failure, and with a warning, of a replica that is as it should be and whose source does not answer.
  returned: always
  type: str
  sample: running
actions:
  description:
    - What was done, or would be done in check mode, in order.
    - Of V(fence), V(stop), V(clone), V(configure), V(renew), V(start), V(reset) and V(open). V(renew) gives the receiver another
      password, while the applier goes on.
    - V(semi_sync_on) and V(semi_sync_off) say whether commits wait for replicas. V(await_copy) and V(online) mend a seeding that was ended
      in the middle.
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
replicas:
  description: Server UUIDs of the nodes that replicate from this one.
  returned: when the server was asked
  type: list
  elements: str
  sample: []
semi_sync:
  description: Both sides of semi-synchronous replication, as M(foobar.webstack.mysql_replica_info) returns them. Null without the plugins.
  returned: when the server was asked
  type: dict
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
    find_donors,
    read_node,
    read_source,
)
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import (
    PASSING,
    RUNNING,
    Refusal,
    awaits_account,
    explain,
    is_source,
    left_alone,
    name_state,
    plan,
    stalled,
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
    "seed_from": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "default": 3306}},
    },
    "allow_destroy": {"type": "bool", "default": False},
    "max_lag": {"type": "int"},
    "peers": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 300},
}
AFTER = {"replica": "running", "primary": "primary", "stopped": "stopped", "absent": "unconfigured"}


def observe(server: mysql.Server, want: dict) -> tuple[dict, dict | None, str]:
    node = read_node(server)
    source = read_source(server, node, want) if want["state"] == "replica" else None
    state = name_state(node, source, want)
    return node, source, "unreachable" if state not in RUNNING and left_alone(node, source, want) else state


def facts(node: dict, source: dict | None) -> dict:
    result = {name: node[name] for name in ("databases", "replicas", "semi_sync")}
    result["lag"] = (node["channel"] or {}).get("lag")
    if source and "uuid" in source:
        result.update(errant_gtid=source["errant"], missing_gtid=source["missing"])
    return result


def view(state: str, node: dict) -> dict:
    """A node as a diff shows it."""
    channel = node["channel"]
    source = f"{channel['user']}@{channel['host']}:{channel['port']}" if channel else None
    shown = {"state": state, "source": source, "super_read_only": node["super_read_only"]}
    return {**shown, "commits_wait_for_replicas": is_source(node)}


def expected(actions: list[str], node: dict, want: dict, donor: str) -> dict:
    """The same, as the actions will leave it."""
    after = view(AFTER[want["state"]], node)
    if "configure" in actions:
        after["source"] = f"{want['source_user']}@{want['source_host']}:{want['source_port']}"
    if "renew" in actions:
        after["password"] = "changed"  # noqa: S105
    if "reset" in actions:
        after["source"] = None
    if "clone" in actions:
        after["data"] = f"copied from {donor}" + "".join(f", {name} lost" for name in node["databases"])
    after["super_read_only"] = "open" not in actions and (
        node["super_read_only"] or bool({"fence", "clone", "await_copy"} & {*actions})
    )
    if node["semi_sync"]:
        on = {"open", "semi_sync_on"} & {*actions}
        after["commits_wait_for_replicas"] = bool(on) or (is_source(node) and want["state"] != "replica")
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
        alone = state == "unreachable" and left_alone(node, source, want)
        if alone:
            module.warn(f"{explain(state, node, source, want)} This replica is left as it is, and goes on by itself.")
        if stalled(node):
            module.warn(
                "Every commit waits for a replica, and none is attached. To go on without one until one is: "
                "SET GLOBAL rpl_semi_sync_source_wait_no_replica = OFF."
            )
        donors, unsuitable = find_donors(server, node, want) if "clone" in actions else ([], {})
        for where, fault in unsuitable.items():
            module.warn(f"{where} does not seed this node: {fault}.")
        if "clone" in actions and not donors:
            raise Refusal(f"{state}: {'; '.join(f'{where}: {fault}' for where, fault in unsuitable.items())}.")
        before = view(state, node)
        if actions:
            donor = "{}:{}".format(*donors[0]) if donors else ""
            result["diff"] = {"before": before, "after": expected(actions, node, want, donor)}
        if module.check_mode:
            after = AFTER[want["state"]] if actions and not alone else state
            module.exit_json(**{**result, "changed": bool(actions), "actions": actions, "state_after": after})

        def connect():
            return mysql.Server(unix_socket=want["login_unix_socket"], user=want["login_user"])

        # The name is in the text, since the journal has it elsewhere or not at all, as python3-systemd is there or not.
        executor = Executor(server, connect, node, want, lambda text: module.log(f"mysql_replica: {text}"))
        for action in actions:
            result["changed"] = True
            result["actions"].append(action)
            executor.run(action)
        if actions or not alone:
            wait = settle if want["state"] == "replica" and not alone else observe
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
    if want["state"] == "replica" and state not in RUNNING and not alone:
        module.fail_json(msg=explain(state, node, source, want), **result)
    if state == "lagging":
        module.warn(f"lagging: {result['lag']} s behind {want['source_host']}; max_lag is {want['max_lag']} s.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
