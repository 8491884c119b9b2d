#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_switchover
short_description: Hand the writes over from one MySQL server to another
version_added: 0.2.0
description:
  - Runs on the primary and on the replica that takes over at the same time, in one task over both hosts. It needs GTIDs, and the
    state service of the role P(foobar.webstack.mysql_server#role) on both.
  - The primary closes itself. The replica sees that, applies what the primary had, gives up its channel and opens itself. No
    acknowledged write is lost, and no two nodes are open.
  - Where the replica does not get that far in O(timeout), it stays a replica, and the primary opens itself again.
  - Applications are refused writes in between. The gap is a fraction of a second where the replica is not behind.
  - Where commits are to wait for a replica for ever (C(mysql_server_when_alone=stall)), those on the new primary wait until one follows it.
author: The foobar.webstack founders (@foobar)
requirements:
  - PyMySQL on the managed host (Debian package C(python3-pymysql))
notes:
  - The old primary stays closed and without a source. Make it a replica with M(foobar.webstack.mysql_replica), as
    C(playbooks/switchover.yml) does.
attributes:
  check_mode:
    support: full
    description: Says what would be done. Whether the replica could follow in time is not tried.
  diff_mode:
    support: full
    description: Shows whether the node is closed.
  platform:
    support: full
    platforms: posix
    description: Works on the hosts that run the MySQL servers.
options:
  side:
    description:
      - V(old) closes this node and waits until the other one is open.
      - V(new) waits until the other one is closed, and takes over.
    type: str
    choices: [old, new]
    required: true
  peer:
    description: Address of the other node's state service, such as V(http://192.0.2.13:9201).
    type: str
    required: true
  timeout:
    description: Seconds for the other side to begin, and then for the replica to apply what is left.
    type: int
    default: 10
  promote:
    description:
      - For O(side=new) only. The old primary is lost. Take over with what this node has received, and do not ask O(peer).
      - Who decides that the old one is lost must see to it that it is.
    type: bool
    default: false
extends_documentation_fragment: foobar.webstack.mysql
seealso:
  - module: foobar.webstack.mysql_replica
"""

EXAMPLES = r"""
- name: Hand over from server4 to server3
  foobar.webstack.mysql_switchover:
    side: "{{ 'old' if inventory_hostname == 'server4' else 'new' }}"
    peer: "{{ 'http://192.0.2.13:9201' if inventory_hostname == 'server4' else 'http://192.0.2.14:9201' }}"
"""

RETURN = r"""
gtid_executed:
  description: What the node had executed when it was closed, or opened.
  returned: success, not in check mode
  type: str
seconds:
  description: Time from this node's closing to the other one's opening as this side saw it.
  returned: success, not in check mode
  type: float
  sample: 0.31
"""

import json
import time
import urllib.error

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_node import Executor, read_node
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_replication import Refusal, writable

ANSWER_WITHIN = 2  # seconds for a state service
INTERVAL = 0.02  # seconds between two questions
# The old node reopens itself this much later than the new one gives up, which covers what the last question takes.
GRACE = 5  # seconds

OPTIONS = {
    "side": {"type": "str", "choices": ["old", "new"], "required": True},
    "peer": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 10},
    "promote": {"type": "bool", "default": False},
}


def ask(url: str) -> dict:
    """What the other node's state service says, an empty dictionary where it says nothing."""
    try:
        with open_url(url, timeout=ANSWER_WITHIN, use_proxy=False, follow_redirects="none") as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return json.load(error)
        except ValueError:
            return {}
    except (OSError, ValueError):
        return {}


def closed(state: dict) -> dict | None:
    """The state of a node that is closed and nobody's replica, None of any other."""
    return state if state.get("role") == "fenced" and not state["sources"] else None


def wait_for(question, seconds: float):
    """The first true answer, or the last one when the time is over."""
    until = time.monotonic() + seconds
    while True:
        answer = question()
        if answer or time.monotonic() > until:
            return answer
        time.sleep(INTERVAL)


def hand_over(executor: Executor, want: dict) -> float:
    """Close this node and return after how many seconds the other one was open. Refusal, and open again, where it is not."""
    begun = time.monotonic()
    executor.server.query("SET GLOBAL super_read_only = ON")
    if wait_for(lambda: ask(want["peer"]).get("writable"), want["timeout"] + GRACE):
        seconds = time.monotonic() - begun
        # mysqld takes the new primary for its replica until the next heartbeat that it cannot send. By then it could not follow it.
        uuid = ask(want["peer"]).get("server_uuid")
        wait_for(
            lambda: uuid not in [row["Replica_UUID"] for row in executor.server.query("SHOW REPLICAS")], want["timeout"]
        )
        return seconds
    other = ask(want["peer"])
    if other.get("role") == "replica":
        executor.open()
        raise Refusal(f"{want['peer']} did not take over within {want['timeout']} s: this node is open again.")
    raise Refusal(
        f"{want['peer']} is {other.get('role', 'silent')}: nobody knows whether it takes over, so this node stays closed. See what it "
        "is; then let one of the two be the primary with playbooks/failover.yml."
    )


def take_over(executor: Executor, want: dict) -> float:
    """Open this node once the other one is closed and this one has all of its transactions."""
    other = wait_for(lambda: closed(ask(want["peer"])), want["timeout"])
    if not other:
        raise Refusal(f"{want['peer']} was not closed within {want['timeout']} s: this node stays a replica.")
    begun = time.monotonic()
    deadline = begun + want["timeout"]
    late = executor.server.value("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (other["gtid_executed"], want["timeout"]))
    if late or time.monotonic() > deadline:
        raise Refusal(
            f"This node did not apply all transactions of {want['peer']} within {want['timeout']} s: it stays a replica."
        )
    executor.stop()
    # It may have waited long enough and opened itself again.
    if time.monotonic() > deadline or not closed(ask(want["peer"])):
        executor.start()
        raise Refusal(f"{want['peer']} is not closed any more: this node stays a replica.")
    executor.reset()
    executor.arm()
    executor.open()
    return time.monotonic() - begun


def promote(executor: Executor, node: dict, want: dict) -> float:
    """Apply what is in the relay log, and open this node."""
    begun = time.monotonic()
    channel = node["channel"]
    if channel:
        executor.server.query("STOP REPLICA IO_THREAD FOR CHANNEL ''")
        received = executor.server.value(
            "SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status WHERE CHANNEL_NAME = ''"
        )
        if channel["applier"] == "OFF" and not channel["applier_errno"]:
            executor.server.query("START REPLICA SQL_THREAD FOR CHANNEL ''")
        if not channel["applier_errno"] and executor.server.value(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (received, want["timeout"])
        ):
            raise Refusal(
                f"This node did not apply what it has received within {want['timeout']} s, and stays closed. It goes on applying: run "
                "this again later, or with a longer timeout."
            )
        executor.stop()
        executor.reset()
    executor.arm()
    executor.open()
    return time.monotonic() - begun


def main():
    module = AnsibleModule(argument_spec={**OPTIONS, **mysql.LOGIN}, supports_check_mode=True)
    want = module.params
    if want["promote"] and want["side"] != "new":
        module.fail_json(msg="promote=true is for side=new: the old primary is lost, and does nothing.")
    server = mysql.connect_locally(module)
    try:
        node = read_node(server)
        if writable(node) != (want["side"] == "old"):
            module.fail_json(
                msg=f"side={want['side']}: this node is {'open' if writable(node) else 'closed'}: "
                + ("it has taken over already." if want["side"] == "new" else "there is nothing to hand over.")
            )
        if want["side"] == "new" and not node["channel"] and not want["promote"]:
            module.fail_json(msg="side=new: this node is no replica.")
        result = {
            "changed": True,
            "diff": {
                "before": {"super_read_only": node["super_read_only"]},
                "after": {"super_read_only": want["side"] == "old"},
            },
        }
        if module.check_mode:
            module.exit_json(**result)

        def connect():
            return mysql.Server(unix_socket=want["login_unix_socket"], user=want["login_user"])

        executor = Executor(server, connect, node, want)
        if want["promote"]:
            seconds = promote(executor, node, want)
        else:
            seconds = (hand_over if want["side"] == "old" else take_over)(executor, want)
        executed = server.value("SELECT @@GLOBAL.gtid_executed").replace("\n", "")
    except (Refusal, mysql.MySQLError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result, gtid_executed=executed, seconds=round(seconds, 3))


if __name__ == "__main__":
    main()
