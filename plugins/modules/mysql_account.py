#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_account
short_description: Accounts of a MySQL server, exactly as they are listed
version_added: 0.1.0
description:
  - Creates, changes and drops accounts of a MySQL server 8.4 or later, all in one call over the local socket.
  - Sends only the difference. A password is compared with the stored hash, so a second run changes nothing.
  - A password that the server's policy (C(validate_password)) rejects is refused before any account is changed. Where there is a policy,
    the server is asked with a C(CREATE USER) or C(ALTER USER) that it refuses in any case, and that an audit log may show.
  - An account gets exactly the privileges that are listed. What else was granted to it is revoked.
  - Accounts that are not listed, granted roles, C(PROXY) and partial revokes are left alone.
  - Run it on the primary. Replicas receive the accounts through replication or when they are seeded.
author: The foobar.webstack founders (@foobar)
requirements:
  - PyMySQL on the managed host (Debian package C(python3-pymysql))
attributes:
  check_mode:
    support: full
    description: Says what would change. Where no server runs yet, every listed account counts as a change.
  diff_mode:
    support: full
    description: Shows plugins, TLS requirement and privileges. A changed password is shown as changed, never itself.
  platform:
    support: full
    platforms: posix
    description: Works on the host that runs the MySQL server.
options:
  accounts:
    description: The accounts.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the account, 1 to 32 characters.
        type: str
        required: true
      host:
        description:
          - Where the account may come from, as MySQL writes it, for example V(10.0.0.%).
          - The default is V(%), or V(localhost) for O(accounts[].plugin=auth_socket).
        type: str
      password:
        description:
          - The password in clear. It is needed to create the account; left out, the present one stays.
          - The server receives it over the socket and writes only its hash to the tables and to the binary log.
        type: str
      old_password:
        description:
          - Whether the password that O(accounts[].password) replaces stays valid (MySQL's dual passwords).
          - V(retain) lets clients log in with either until they all have the new one. It refuses a third password while
            the one before is still valid, because clients may use either. Going back to that one is possible.
          - V(discard) leaves O(accounts[].password) as the only one. Use it once every client has moved, or where a password
            has leaked.
        type: str
        choices: [retain, discard]
        default: retain
      plugin:
        description: How the account proves itself. V(auth_socket) lets in the operating system's user of the same name.
        type: str
        choices: [caching_sha2_password, auth_socket]
        default: caching_sha2_password
      privileges:
        description:
          - Level to list of privileges. A level is V(*.*), V(database.*), V(database.table), V(PROCEDURE database.name)
            or V(FUNCTION database.name).
          - Names mean themselves. C(_) and C(%) in the name of a database are no wildcards here.
          - A name with a dot stands between backquotes.
          - Privileges are written as in C(GRANT), also V(ALL), V(GRANT OPTION) and V(SELECT (column)).
          - An account without any may only log in.
        type: dict
        default: {}
      require_ssl:
        description: Refuse connections of this account that are not encrypted. It means nothing for V(auth_socket).
        type: bool
        default: true
      state:
        description: Whether the account exists.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment: foobar.webstack.mysql
seealso:
  - module: foobar.webstack.mysql_replica
"""

EXAMPLES = r"""
- name: Manage the accounts of the guestbook
  foobar.webstack.mysql_account:
    accounts:
      - name: guestbook_writer
        host: 172.30.56.%
        password: "{{ guestbook_writer_password }}"
        privileges:
          guestbook.*: [SELECT, INSERT, UPDATE, DELETE]
      - name: guestbook_reader
        host: 172.30.56.%
        password: "{{ guestbook_reader_password }}"
        privileges:
          guestbook.*: [SELECT]

- name: Let replicas in, seeding included
  foobar.webstack.mysql_account:
    accounts:
      - name: replication
        password: "{{ replication_password }}"
        privileges:
          "*.*": [REPLICATION SLAVE, BACKUP_ADMIN]

- name: End a rotation, when every client uses the new password
  foobar.webstack.mysql_account:
    accounts:
      - name: guestbook_reader
        host: 172.30.56.%
        password: "{{ guestbook_reader_password }}"
        old_password: discard
        privileges:
          guestbook.*: [SELECT]

- name: Let the local exporter in, and its predecessor no more
  foobar.webstack.mysql_account:
    accounts:
      - name: prometheus
        plugin: auth_socket
        privileges:
          "*.*": [PROCESS, REPLICATION CLIENT]
          performance_schema.*: [SELECT]
      - name: exporter
        host: localhost
        state: absent
"""

RETURN = r"""
accounts:
  description: What was done, or would be done in check mode, for each account that needed it.
  returned: success
  type: dict
  contains:
    name@host:
      description: The statements, in order and without the password.
      type: list
      elements: str
  sample:
    guestbook_writer@172.30.56.%: ["GRANT SELECT ON `guestbook`.* TO guestbook_writer@172.30.56.%"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.foobar.webstack.plugins.module_utils import mysql
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_account import (
    SHA2,
    SOCKET,
    complete,
    faults,
    label,
    passwords,
    probe,
    shown,
    statements,
    view,
)
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_grants import parse_grants, wanted_privileges

# What the server's answer means for whoever wrote the play.
REMEDIES = {
    1146: "Create the table first: privileges on a table need it to exist.",
    1290: "This node is fenced (super_read_only=ON). Accounts are managed on the primary.",
    1305: "Create the routine first.",
    1524: "Load the plugin: for auth_socket, plugin_load_add=auth_socket.so in the server's configuration.",
    1819: "The server's password policy (validate_password) rejects the password of this account.",
}
# Empty without the component or the plugin of that name.
POLICY = """
SELECT VARIABLE_NAME AS name, VARIABLE_VALUE AS value FROM performance_schema.global_variables
WHERE VARIABLE_NAME LIKE 'validate\\_password%'
"""


def read_account(server: mysql.Server, account: dict, known: frozenset) -> dict | None:
    row = server.row(
        "SELECT plugin, HEX(authentication_string) AS hash, ssl_type <> '' AS require_ssl,"
        " HEX(User_attributes ->> '$.additional_password') AS old FROM mysql.user"
        " WHERE User = %s AND Host = %s",
        (account["name"], account["host"]),
    )
    if row is None:
        return None
    grants = server.query("SHOW GRANTS FOR %s@%s", (account["name"], account["host"]))
    return {
        "plugin": row["plugin"],
        "stored": bytes.fromhex(row["hash"] or ""),
        "old": bytes.fromhex(row["old"] or ""),
        "require_ssl": bool(row["require_ssl"]),
        "privileges": parse_grants([next(iter(grant.values())) for grant in grants], known),
    }


def plan(server: mysql.Server, accounts: list[dict]) -> tuple[dict, dict]:
    """Statements of each account that needs any, and the diff. ValueError for what cannot be done."""
    known = frozenset(row["Privilege"].upper() for row in server.query("SHOW PRIVILEGES"))
    literal = bool(server.value("SELECT @@GLOBAL.partial_revokes"))
    todo, before, after = {}, {}, {}
    for account in accounts:
        who = label(account)
        try:
            want = wanted_privileges(account["privileges"], known, literal)
        except ValueError as error:
            raise ValueError(f"privileges of {who}: {error}") from error
        have = read_account(server, account, known)
        todo[who] = statements(account, have, want)
        if todo[who]:
            was, becomes = passwords(todo[who], have)
            before[who] = have and {**view(have, known), **was}
            after[who] = None
            if account["state"] == "present":
                after[who] = {**view({**account, "privileges": want}, known), **becomes}
    return {who: steps for who, steps in todo.items() if steps}, {"before": before, "after": after}


def rejected(server: mysql.Server, todo: dict) -> str:
    """Which of the passwords that are to be set the server's policy rejects, empty where it takes all."""
    policy = {row["name"]: row["value"] for row in server.query(POLICY)}
    found = []
    for who, steps in todo.items() if policy else ():
        for statement, arguments in probe(steps):
            try:
                server.query(statement, arguments)
            except mysql.MySQLError as error:
                if error.number == 1819:
                    found.append(who)
    settings = ", ".join(f"{name}={value}" for name, value in policy.items() if value)
    return (
        f"{', '.join(found)}: the server's policy rejects the password ({settings}). No account was changed."
        if found
        else ""
    )


ACCOUNT = {
    "name": {"type": "str", "required": True},
    "host": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "old_password": {"type": "str", "choices": ["retain", "discard"], "default": "retain", "no_log": False},
    "plugin": {"type": "str", "choices": [SHA2, SOCKET], "default": SHA2},
    "privileges": {"type": "dict", "default": {}},
    "require_ssl": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main():
    accounts = {"type": "list", "elements": "dict", "required": True, "options": ACCOUNT}
    module = AnsibleModule(argument_spec={"accounts": accounts, **mysql.LOGIN}, supports_check_mode=True)
    accounts = [complete(entry) for entry in module.params["accounts"]]
    wrong = faults(accounts)
    if wrong:
        module.fail_json(msg=" ".join(wrong))
    if mysql.not_installed_yet(module):
        seen = ("plugin", "require_ssl", "privileges")
        new = {label(entry): {key: entry[key] for key in seen} for entry in accounts if entry["state"] == "present"}
        diff = {"before": dict.fromkeys(new), "after": new}
        module.exit_json(changed=bool(new), accounts={who: [f"CREATE USER {who}"] for who in new}, diff=diff)
    server = mysql.connect_locally(module)
    try:
        todo, diff = plan(server, accounts)
        fenced = server.value("SELECT @@GLOBAL.super_read_only")
        weak = "" if fenced else rejected(server, todo)
    except (mysql.MySQLError, ValueError) as error:
        module.fail_json(msg=str(error))
    if todo and fenced:
        message = f"{', '.join(todo)}: {REMEDIES[1290]}"
        if not module.check_mode:
            module.fail_json(msg=message)
        module.warn(message)
    if weak:
        module.fail_json(msg=weak)
    for who, steps in {} if module.check_mode else todo.items():
        for statement, arguments in steps:
            try:
                server.query(statement, arguments)
            except mysql.MySQLError as error:
                remedy = REMEDIES.get(error.number, "")
                module.fail_json(msg=f"{shown(statement, who)}: {error}. {remedy}".rstrip(" ."))
    module.exit_json(
        changed=bool(todo),
        accounts={who: [shown(statement, who) for statement, _arguments in steps] for who, steps in todo.items()},
        diff=diff,
    )


if __name__ == "__main__":
    main()
