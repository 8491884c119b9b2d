#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_replica_info
short_description: What a MySQL server is in replication, and how it is
version_added: 0.2.0
description:
  - Reads role, GTID sets, channel, semi-synchronous replication and group of the local MySQL server, over one connection.
  - Changes nothing, returns nothing secret, and does not fail where there is no server or where it does not answer.
author: The foobar.webstack founders (@foobar)
requirements:
  - PyMySQL on the managed host (Debian package C(python3-pymysql))
attributes:
  check_mode:
    support: full
    description: It is the same as without.
  diff_mode:
    support: none
    description: Nothing changes.
  platform:
    support: full
    platforms: posix
    description: Works on the host that runs the MySQL server.
options:
  gather:
    description:
      - What to read besides.
      - V(tables) is the users' tables without a primary key, V(accounts) is the accounts and their global privileges,
        V(certificate) is the certificate that the server has loaded, V(disk) is the space for data and binary logs.
    type: list
    elements: str
    choices: [tables, accounts, certificate, disk]
    default: []
extends_documentation_fragment: foobar.webstack.mysql
seealso:
  - module: foobar.webstack.mysql_replica
"""

EXAMPLES = r"""
- name: Read what the node is
  foobar.webstack.mysql_replica_info:
  register: found

- name: Refuse a node that applications can write to
  ansible.builtin.assert:
    that: found.node.state != 'primary'

- name: Read also what could make a switchover fail
  foobar.webstack.mysql_replica_info:
    gather: [tables, disk]
"""

RETURN = r"""
node:
  description: The server. What cannot be known of it is null, or empty for a list.
  returned: always
  type: dict
  contains:
    state:
      description:
        - V(not_installed), V(down) (it does not answer within 10 seconds, see RV(node.error)), V(offline) (offline_mode=ON), V(group) (a member of
          a replication group), V(replica) (it has a channel), V(primary) (it has none and is writable) or V(fenced) (it has
          none and is read-only). The first that fits.
      type: str
      sample: replica
    uuid:
      description: Its C(server_uuid).
      type: str
      sample: 3e11fa47-71ca-11e1-9e33-c80aa9429562
    server_id:
      description: Its C(server_id).
      type: int
      sample: 2887399437
    address:
      description: Its C(report_host).
      type: str
      sample: 172.30.56.13
    port:
      description: Its port.
      type: int
      sample: 3306
    version:
      description: The server's version.
      type: str
      sample: 8.4.7
    gtid_mode:
      description: It numbers its transactions.
      returned: when the server answers
      type: bool
      sample: true
    clone:
      description: Its clone plugin is active.
      returned: when the server answers
      type: bool
      sample: true
    seeding:
      description: >-
        V(running) while another server's data is copied over it, V(begun) or V(broken) where a run was ended meanwhile, before or after its own
        data were dropped, or empty.
      returned: when the server answers
      type: str
      sample: ""
    in_group:
      description: It takes part in a replication group now.
      returned: when the server answers
      type: bool
      sample: false
    super_read_only:
      description: Nobody can write, administrators included.
      type: bool
      sample: true
    read_only:
      description: Nobody but administrators can write.
      type: bool
      sample: true
    offline_mode:
      description: Nobody but administrators can connect.
      type: bool
      sample: false
    gtid_executed:
      description: The transactions that it has, in one line.
      type: str
      sample: 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-77
    gtid_purged:
      description: Those of them that its binary logs no longer hold, in one line.
      type: str
      sample: ""
    databases:
      description: Names of the users' databases.
      type: list
      elements: str
      sample: [guestbook]
    replicas:
      description: C(server_uuid) of the servers that replicate from it now.
      type: list
      elements: str
      sample: []
    channel:
      description:
        - Its default replication channel, or null. Besides what is listed it has the connection's settings V(auto_position), V(ssl),
          V(ssl_ca), V(ssl_verify), V(connect_retry), V(retry_count) and V(heartbeat) (seconds).
      type: dict
      contains:
        host:
          description: The source.
          type: str
          sample: 172.30.56.14
        port:
          description: Its port.
          type: int
          sample: 3306
        user:
          description: The replication account.
          type: str
          sample: replication
        source_uuid:
          description: C(server_uuid) of the source that it last was connected to. Empty before.
          type: str
          sample: 5c1d1a3c-71ca-11e1-9e33-c80aa9429562
        io:
          description: The receiver, V(ON), V(OFF) or V(CONNECTING).
          type: str
          sample: "ON"
        applier:
          description: The applier, V(ON) or V(OFF).
          type: str
          sample: "ON"
        io_errno:
          description: Number of the receiver's last error, or 0.
          type: int
          sample: 0
        io_error:
          description: Its text.
          type: str
          sample: ""
        applier_errno:
          description: Number of the applier's last error, or 0.
          type: int
          sample: 0
        applier_error:
          description: Its text.
          type: str
          sample: ""
        received:
          description: The transactions that it has received since it was configured or last restarted, in one line.
          type: str
          sample: 5c1d1a3c-71ca-11e1-9e33-c80aa9429562:1-77
        lag:
          description: Seconds behind the source as the server tells, or null where it cannot tell.
          type: int
          sample: 0
    channels:
      description: Names of its channels that are not the default one.
      type: list
      elements: str
      sample: []
    semi_sync:
      description: Semi-synchronous replication. Null where neither plugin is loaded.
      type: dict
      contains:
        source:
          description: Its commits are to wait for an acknowledgement.
          type: bool
          sample: true
        source_active:
          description: They do. It is false after a time-out until a replica has caught up.
          type: bool
          sample: true
        source_replicas:
          description: Number of replicas that acknowledge.
          type: int
          sample: 1
        timeout_ms:
          description: How long a commit waits before it goes on without, in milliseconds.
          type: int
          sample: 10000
        wait_no_replica:
          description: Commits wait, too, while there is no replica that acknowledges.
          type: bool
          sample: false
        replica:
          description: As a replica it is to acknowledge.
          type: bool
          sample: true
        replica_active:
          description: It does.
          type: bool
          sample: false
    group:
      description: The replication group that it is configured for. Null without the plugin or the configuration.
      type: dict
      contains:
        name:
          description: UUID of the group.
          type: str
          sample: 8a94f357-aab4-11df-86ab-c80aa9429562
        mode:
          description: V(single_primary) or V(multi_primary).
          type: str
          sample: single_primary
        members:
          description: The members as this one sees them, each with V(host), V(port), V(uuid), V(state) and V(role). Empty while it has not joined.
          type: list
          elements: dict
          sample: [{host: 172.30.56.13, port: 3306, uuid: 3e11fa47-71ca-11e1-9e33-c80aa9429562, state: ONLINE, role: PRIMARY}]
    tables_without_key:
      description: The users' tables that have no primary key.
      returned: when O(gather) has V(tables) and the server answers
      type: list
      elements: str
      sample: [guestbook.log]
    accounts:
      description: The accounts.
      returned: when O(gather) has V(accounts) and the server answers
      type: list
      elements: dict
      contains:
        user:
          description: The user.
          type: str
          sample: guestbook
        host:
          description: Whence it may come.
          type: str
          sample: 172.30.56.13
        plugin:
          description: How it proves itself.
          type: str
          sample: caching_sha2_password
        password:
          description: There is something to prove it by.
          type: bool
          sample: true
        tls:
          description: What it must connect with, empty for nothing, V(ANY), V(X509) or V(SPECIFIED).
          type: str
          sample: ANY
        locked:
          description: It cannot log in.
          type: bool
          sample: false
        privileges:
          description: Its global privileges. What roles give is not among them.
          type: list
          elements: str
          sample: []
    certificate:
      description: The certificate that the server has loaded, or null.
      returned: when O(gather) has V(certificate) and the server answers
      type: dict
      contains:
        file:
          description: Whence.
          type: str
          sample: /etc/mysql/tls/server.pem
        not_after:
          description: Until when it is good.
          type: str
          sample: "2027-01-31T12:00:00Z"
        days:
          description: Whole days until then, by the clock of the host. Negative afterwards.
          type: int
          sample: 68
    disk:
      description:
        - Space in bytes. V(data) and V(binary_logs) have V(path), V(free) and V(size) of their file systems.
        - V(binary_logs) is null where the server writes none.
      returned: when O(gather) has V(disk) and the server answers
      type: dict
      contains:
        binary_log_bytes:
          description: What the binary logs take up.
          type: int
          sample: 1048576
        binary_log_seconds:
          description: How long they are kept, 0 for ever.
          type: int
          sample: 604800
    error:
      description: Why the server could not be asked, or null.
      type: str
      sample: null
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_info import GATHER, UNKNOWN, read


def find(module: AnsibleModule) -> dict:
    socket = module.params["login_unix_socket"]
    installed = os.path.exists(socket) or module.get_bin_path("mysqld", opt_dirs=["/usr/sbin", "/usr/libexec"])
    if not installed:
        return {**UNKNOWN, "state": "not_installed"}
    if mysql.pymysql is None:
        return {**UNKNOWN, "state": "down", "error": missing_required_lib("PyMySQL (Debian: python3-pymysql)")}
    try:
        server = mysql.Server(unix_socket=socket, user=module.params["login_user"], read_timeout=mysql.CONNECT_TIMEOUT)
        try:
            refused = mysql.unsupported(server.value("SELECT VERSION()"))
            if refused:
                return {**UNKNOWN, "state": "down", "error": f"Not supported: {refused}"}
            return read(server, module.params["gather"])
        finally:
            server.close()
    except mysql.MySQLError as error:
        return {**UNKNOWN, "state": "down", "error": str(error)}


def main():
    gather = {"type": "list", "elements": "str", "choices": [*GATHER], "default": []}
    module = AnsibleModule(argument_spec={"gather": gather, **mysql.LOGIN}, supports_check_mode=True)
    module.exit_json(changed=False, node=find(module))


if __name__ == "__main__":
    main()
