#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_map
short_description: Write a map of HAProxy, and load it into the running process without a reload
version_added: 0.2.0
author: The foobar.webstack founders (@foobar)
description:
  - Replaces the file of a map. Where HAProxy runs and uses the map, its entries are replaced in the running process too, all at once, over the
    runtime socket. So requests see the old map or the new one, and no connection is touched.
  - When HAProxy refuses an entry, file and process keep the old map, and the task fails.
  - The file is sent only when the host has another one.
options:
  path:
    description: The file on the host, by the name that HAProxy's configuration has for it. Missing parent directories are created with mode 0755.
    type: path
    required: true
  src:
    description: The map, a file on the control node. A relative path is looked for as C(files) are.
    type: path
  content:
    description: The map, as text.
    type: str
  checksum:
    description: SHA-256 of the map. The action of this module sets it.
    type: str
  replace:
    description: Whether a file with another content is replaced. Otherwise only a missing one is written.
    type: bool
    default: true
  socket:
    description: HAProxy's runtime socket, of level C(admin).
    type: path
    default: /run/haproxy/admin.sock
attributes:
  check_mode:
    description: Predicts the change without making it.
    support: full
  diff_mode:
    description: Shows the first entries that are added and removed, and how many there are.
    support: full
  platform:
    description: HAProxy 2.4 or later.
    support: full
    platforms: posix
notes:
  - Empty lines and lines that begin with C(#) are no entries.
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
  - ansible.builtin.files
"""

EXAMPLES = r"""
- name: Send the customers to their servers
  foobar.webstack.haproxy_map:
    path: /etc/haproxy/customers.map
    src: customers.map
  register: customers
  notify: Reload HAProxy, where it has not loaded the map
"""

RETURN = r"""
added:
  description: How many entries are in the new map and not in the old one. One with another value is both added and removed.
  returned: success
  type: int
  sample: 2
removed:
  description: How many entries were in the old map and are not in the new one.
  returned: success
  type: int
  sample: 1
loaded:
  description:
    - Whether the running process has the new map. V(false) where HAProxy does not run, does not use the map, or does not answer on its socket.
      Then a reload has it.
  returned: success
  type: bool
  sample: true
"""

import contextlib
import hashlib
import os
import socket
import tempfile

from ansible.module_utils.basic import AnsibleModule

SHOWN = 20  # entries in a diff
CHUNK = 8000  # bytes: a command and its lines fit into HAProxy's buffer, of 16 KiB by default


class RefusedError(Exception):
    """What HAProxy said instead of doing what it was told."""


class Runtime:
    """HAProxy's runtime socket (management guide, 9.3)."""

    def __init__(self, path: str):
        self.path = path

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(self.path)
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while received := connection.recv(65536):
                answer += received
        return answer.decode(errors="replace").strip()

    def tell(self, command: str) -> None:
        """Raises RefusedError with the answer, where there is one: HAProxy has nothing to say of what it has done."""
        if answer := self.ask(command):
            raise RefusedError(answer)

    def uses(self, path: str) -> bool:
        """Whether HAProxy answers, and knows a map of this name."""
        try:
            return f"({path})" in self.ask("show map")
        except OSError:
            return False

    def stage(self, path: str, entries: list[str]) -> int:
        """Hand over all entries as another version of the map, which nobody sees yet; return its number."""
        said = self.ask(f"prepare map {path}")
        version = said.rpartition(":")[2].strip()
        if not version.isdigit():
            raise RefusedError(said)
        try:
            for chunk in chunks(entries):
                self.tell(f"add map @{version} {path} <<\n{chunk}")
        except BaseException:
            self.drop(path, version)
            raise
        return int(version)

    def drop(self, path: str, version: int | str) -> None:
        with contextlib.suppress(OSError):
            self.ask(f"clear map @{version} {path}")

    def commit(self, path: str, version: int) -> None:
        self.tell(f"commit map @{version} {path}")


def chunks(entries: list[str]):
    """Yield texts of many entries, a line each."""
    text, size = [], 0
    for entry in entries:
        length = len(entry.encode()) + 1
        if text and size + length > CHUNK:
            yield "\n".join(text) + "\n"
            text, size = [], 0
        text.append(entry)
        size += length
    if text:
        yield "\n".join(text) + "\n"


def entries_of(text: bytes) -> list[str]:
    lines = (line.strip() for line in text.decode(errors="replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def difference(path: str, gone: list[str], come: list[str]) -> dict:
    """The first entries removed and added, and how many more there are."""
    lines = [f"--- before: {path}", f"+++ after: {path}"]
    for sign, found, what in (("-", gone, "removed"), ("+", come, "added")):
        lines += [f"{sign}{entry}" for entry in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"{sign} … {len(found)} entries {what} in all")
    return {"prepared": "\n".join(lines) + "\n"}


def replace(module: AnsibleModule, text: bytes) -> None:
    os.makedirs(os.path.dirname(module.params["path"]), mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "wb") as file:
        file.write(text)
    module.atomic_move(temporary, module.params["path"])


def write(module: AnsibleModule, text: bytes, old: bytes | None, entries: list[str]) -> bool:
    """Write the file and load it; return whether the running process has it. When HAProxy refuses it, all is as it was."""
    path = module.params["path"]
    runtime = Runtime(module.params["socket"])
    load = runtime.uses(path)
    if module.check_mode:
        return load
    version = None
    try:
        if load:
            version = runtime.stage(path, entries)
        replace(module, text)
        if version is not None:
            try:
                runtime.commit(path, version)
            except BaseException:
                replace(module, old or b"")
                raise
    except RefusedError as error:
        module.fail_json(msg=f"HAProxy refused the map, {path} and the running process have the old one: {error}")
    except OSError as error:
        module.fail_json(msg=f"{path} and the running process have the old map: {error}")
    return load


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "src": {"type": "path"},
            "content": {"type": "str"},
            "checksum": {"type": "str"},
            "replace": {"type": "bool", "default": True},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
        },
        mutually_exclusive=[("src", "content")],
        add_file_common_args=True,
        supports_check_mode=True,
    )
    path = module.params["path"]
    old = read(path)
    kept = old is not None and (
        not module.params["replace"] or hashlib.sha256(old).hexdigest() == module.params["checksum"]
    )
    if not kept and module.params["src"] is None:
        # The action sends the file then, and asks again.
        module.exit_json(changed=True, wanted=True)
    new = old if kept else read(module.params["src"])
    before, after = entries_of(old or b""), entries_of(new)
    old_entries, new_entries = set(before), set(after)
    gone = [entry for entry in before if entry not in new_entries]
    come = [entry for entry in after if entry not in old_entries]
    loaded = new != old and write(module, new, old, after)
    attributes = module.load_file_common_arguments(module.params, path=path)
    changed = module.set_fs_attributes_if_different(attributes, changed=new != old)
    result = {"changed": changed, "added": len(come), "removed": len(gone), "loaded": loaded}
    if new != old:
        result["diff"] = difference(path, gone, come)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
