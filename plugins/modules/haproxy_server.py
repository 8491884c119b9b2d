#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Whether HAProxy sends requests to a server
version_added: 0.2.0
description:
  - Takes a server out of service in the running HAProxy of this host, brings it back, or only tells how it is. It speaks to HAProxy's
    runtime API; the configuration is left as it is.
  - It does not wait. Ask again with C(until) until RV(sessions) is 0, or RV(healthy) is true.
  - With the role P(foobar.webstack.haproxy#role) what was set outlives reloads and restarts of HAProxy.
author: The foobar.webstack founders (@foobar)
options:
  name:
    description: The server, by its name in the configuration. Without it, the module tells of all servers.
    type: str
  backend:
    description: Only in this backend. Without it, in every backend that has the server.
    type: str
  state:
    description:
      - V(ready), it gets requests while its checks succeed.
      - V(drain), it gets no new ones but those of clients that belong to it, by a session cookie say. It is checked on.
      - V(maint), it gets none, and is not checked.
      - Requests that it is answering are answered in any case. Without O(state), nothing is changed.
    type: str
    choices: [ready, drain, maint]
  last:
    description: Take it out even where nobody is left to answer.
    type: bool
    default: false
  socket:
    description: HAProxy's runtime API, a socket with level admin.
    type: path
    default: /run/haproxy/admin.sock
attributes:
  check_mode:
    support: full
    description: Fails where the real run would refuse, and changes nothing.
  diff_mode:
    support: full
    description: Shows the state in each backend.
  platform:
    support: full
    platforms: posix
    description: Works on the host that runs HAProxy.
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
seealso:
  - name: HAProxy Management Guide
    description: The runtime API.
    link: https://docs.haproxy.org/3.0/management.html#9.3
"""

EXAMPLES = r"""
- name: Send web1 no new requests
  foobar.webstack.haproxy_server:
    name: web1
    state: drain

- name: Wait until it has answered those that it got before
  foobar.webstack.haproxy_server:
    name: web1
  register: web1
  until: web1.sessions == 0
  retries: 30
  delay: 1

- name: Bring it back
  foobar.webstack.haproxy_server:
    name: web1
    state: ready
"""

RETURN = r"""
servers:
  description: The server in each backend that has it, as it is at the end; without O(name), all servers.
  returned: success
  type: list
  elements: dict
  sample: [{backend: web, name: web1, state: drain, status: DRAIN, sessions: 3, healthy: true}]
  contains:
    backend:
      description: The backend.
      type: str
    name:
      description: The server.
      type: str
    state:
      description: What was set, V(ready), V(drain) or V(maint).
      type: str
    status:
      description: HAProxy's own word, such as C(UP), C(UP 1/3), C(DOWN), C(DRAIN) or C(MAINT).
      type: str
    sessions:
      description: The requests or connections that it has, or that wait for it.
      type: int
    healthy:
      description: Whether its last checks have all succeeded, or it is not checked by configuration.
      type: bool
before:
  description: The same as it was found.
  returned: success
  type: list
  elements: dict
  sample: [{backend: web, name: web1, state: ready, status: UP, sessions: 3, healthy: true}]
sessions:
  description: The sum of the sessions in RV(servers).
  returned: success
  type: int
  sample: 3
healthy:
  description: Whether every one of RV(servers) is. False for a server that no backend has.
  returned: success
  type: bool
  sample: true
"""

import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.foobar.webstack.plugins.module_utils import haproxy_servers

TIMEOUT = 10  # seconds


def ask(path: str, command: str) -> str:
    """Return HAProxy's answer, without the empty line at its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip()


def find(path: str, name: str | None, backend: str | None) -> tuple[list[dict], list[dict]]:
    """Return all servers, and those that are meant."""
    servers = haproxy_servers.read(ask(path, "show stat -1 4 -1"), ask(path, "show servers state"))
    meant = [server for server in servers if name in (None, server["name"]) and backend in (None, server["backend"])]
    return servers, meant


def change(module: AnsibleModule, servers: list[dict], meant: list[dict]) -> list[dict]:
    """Give the servers that are meant their state; return those whose state was another."""
    name, state = module.params["name"], module.params["state"]
    if not meant:
        names = ", ".join(sorted({server["name"] for server in servers}))
        module.fail_json(msg=f"name: {name} is no server of any backend here. These are: {names}")
    leaving = [server for server in meant if server["state"] != state]
    if state != "ready" and not module.params["last"]:
        alone = ", ".join(haproxy_servers.alone(servers, leaving))
        if alone:
            module.fail_json(
                msg=f"name: {name} is the last server that answers for {alone}. It was left as it is. To take it out all the same: last=true"
            )
    for server in leaving:
        command = f"set server {server['backend']}/{server['name']} state {state}"
        said = "" if module.check_mode else ask(module.params["socket"], command)
        if said:
            module.fail_json(msg=f"{command}: {said}")
    return leaving


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "backend": {"type": "str"},
            "state": {"type": "str", "choices": list(haproxy_servers.STATES)},
            "last": {"type": "bool", "default": False},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
        },
        required_by={"state": ("name",)},
        supports_check_mode=True,
    )
    name, state, backend, path = (module.params[key] for key in ("name", "state", "backend", "socket"))
    try:
        servers, before = find(path, name, backend)
        changed = change(module, servers, before) if state else []
        after = find(path, name, backend)[1] if changed and not module.check_mode else before
    except OSError as error:
        module.fail_json(msg=f"socket: HAProxy does not answer at {path}: {error.strerror or error}")
    module.exit_json(
        changed=bool(changed),
        servers=after,
        before=before,
        sessions=sum(server["sessions"] for server in after),
        healthy=bool(after) and all(server["healthy"] for server in after),
        diff={
            "before": "".join(f"{server['backend']}/{server['name']} {server['state']}\n" for server in before),
            "after": "".join(f"{server['backend']}/{server['name']} {state or server['state']}\n" for server in before),
        },
    )


if __name__ == "__main__":
    main()
