#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_config
short_description: Change the configuration of sshd without locking yourself out
version_added: 0.2.0
author: The foobar.webstack founders (@foobar)
description:
  - Writes one file of C(/etc/ssh/sshd_config.d) and reloads sshd.
  - Before anything changes, sshd judges the configuration as it would be, with all other files as they are. It is refused when sshd
    refuses it, when another file overrules it, or when the user who is connected could not come back.
  - That user is found from the ssh session that the module runs in, through C(sudo) and the like. A user who has no accepted key while
    passwords are refused, is in no allowed group, is root where root may not log in, or came by a port that is no longer listened to,
    could not come back.
  - Within an ssh session the former file is put back after O(revert_after) seconds, unless a new connection confirms the new one by
    stopping the timer named in RV(confirm). So nobody is locked out by what cannot be known beforehand.
options:
  path:
    description: The file, below C(/etc/ssh/sshd_config.d).
    type: path
    default: /etc/ssh/sshd_config.d/00-webstack.conf
  content:
    description: Its whole text.
    type: str
    required: true
  revert_after:
    description: Seconds within which a new connection must confirm the change.
    type: int
    default: 60
attributes:
  check_mode:
    description: Judges the configuration and predicts the change without making it.
    support: full
  diff_mode:
    description: Shows the file.
    support: full
  platform:
    description: Debian and other systems with OpenSSH and systemd. Without sshd nothing is done.
    support: full
    platforms: debian
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
"""

EXAMPLES = r"""
- name: Refuse passwords
  foobar.webstack.sshd_config:
    content: |
      PasswordAuthentication no
      KbdInteractiveAuthentication no
  register: sshd

# The rest in a file of its own, tasks/confirm.yml: reset_connection cannot be conditional itself.
- name: Come back over a new connection, and confirm
  ansible.builtin.include_tasks: confirm.yml
  when: sshd.confirm | default('', true) | length > 0

# - ansible.builtin.meta: reset_connection
# - ansible.builtin.wait_for_connection:
#     timeout: 120
# - ansible.builtin.systemd_service: # fails when the timer has run: no connection came through before it
#     name: "{{ sshd.confirm }}"
#     state: stopped
"""

RETURN = r"""
installed:
  description: Whether the host has sshd. Without it nothing was done.
  returned: always
  type: bool
  sample: true
user:
  description: The user whose ssh session this is, empty where the connection is no ssh session.
  returned: when sshd is installed
  type: str
  sample: admin
confirm:
  description: The timer that puts the former file back. Stop it over a new connection. Empty where nothing changed or no ssh session can be lost.
  returned: when sshd is installed
  type: str
  sample: webstack-sshd-revert.timer
"""

import grp
import os
import pwd
import re
import shlex
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.foobar.webstack.plugins.module_utils.sshd import (
    Session,
    key_files,
    key_types,
    overruled,
    parse,
    reasons_for_lockout,
)

MAIN = "/etc/ssh/sshd_config"
DROP_INS = "/etc/ssh/sshd_config.d"
FORMER = "/run/webstack-sshd-former.conf"
REVERT = "webstack-sshd-revert"


def find_session() -> Session | None:
    """Return the ssh session that this process descends from: that of its oldest ancestor that has one."""
    found, pid = None, os.getpid()
    while pid > 0:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = dict(item.split(b"=", 1) for item in file.read().split(b"\0") if b"=" in item)
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                status = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            break
        if b"SSH_CONNECTION" in environment:
            found = int(status["Uid"].split()[0]), environment[b"SSH_CONNECTION"].decode().split()
        pid = int(status["PPid"])
    if not found:
        return None
    uid, (address, _client_port, server, port) = found
    user = pwd.getpwuid(uid)
    groups = [grp.getgrgid(gid).gr_name for gid in os.getgrouplist(user.pw_name, user.pw_gid)]
    return Session(user.pw_name, uid, user.pw_dir, groups, address, server, int(port))


class Sshd:
    """sshd and the systemd unit that runs it."""

    def __init__(self, module: AnsibleModule, program: str):
        self.module = module
        self.program = program

    def run(self, *command: str, check: bool = True) -> tuple[int, str]:
        code, out, error = self.module.run_command(list(command))
        if code and check:
            self.module.fail_json(msg=f"{' '.join(command)}: {(error or out).strip()}", rc=code)
        return code, out

    def active(self, unit: str) -> bool:
        return self.run("systemctl", "is-active", "--quiet", unit, check=False)[0] == 0

    def judge(self, path: str, content: str, session: Session | None) -> None:
        """End the module unless the configuration would be good with this file. It is tried in a copy of /etc/ssh's files."""
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as scratch:
            drop_ins, main = f"{scratch}/sshd_config.d", f"{scratch}/sshd_config"
            if os.path.isdir(DROP_INS):
                shutil.copytree(DROP_INS, drop_ins)
            os.makedirs(drop_ins, exist_ok=True)
            with open(f"{drop_ins}/{os.path.basename(path)}", "w", encoding="utf-8") as file:
                file.write(content)
            with open(MAIN, encoding="utf-8") as file:
                text, includes = re.subn(
                    r"(?im)^(\s*include\s.*?)(?:/etc/ssh/)?sshd_config\.d/", rf"\g<1>{drop_ins}/", file.read()
                )
            if not includes:
                self.module.fail_json(
                    msg=f"{MAIN} does not include {DROP_INS}/*.conf: make that its first line (Include {DROP_INS}/*.conf)"
                )
            with open(main, "w", encoding="utf-8") as file:
                file.write(text)

            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd wants it even to judge
            code, out, error = self.module.run_command([self.program, "-t", "-f", main])
            if code:
                said = (error or out).strip().replace(drop_ins, DROP_INS).replace(main, MAIN)
                self.module.fail_json(msg=f"sshd refuses the configuration, nothing was changed: {said}", rc=code)
            if faults := overruled(content, parse(self.run(self.program, "-T", "-f", main)[1])):
                self.module.fail_json(
                    msg=f"{path} would be overruled by {MAIN} or a file that it includes earlier, nothing was changed: "
                    f"{', '.join(faults)}. Remove those lines, or move them below the Include line."
                )
            if session:
                who = f"user={session.user},host={session.address},addr={session.address},laddr={session.server},lport={session.port}"
                self.refuse_lockout(session, parse(self.run(self.program, "-T", "-C", who, "-f", main)[1]))

    def refuse_lockout(self, session: Session, settings: dict[str, list[str]]) -> None:
        keys = set()
        for path in key_files(session, settings):
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    keys |= key_types(file.read())
        if reasons := reasons_for_lockout(session, settings, keys):
            self.module.fail_json(
                msg=f"{session.user}, who is connected from {session.address}, could not come back, nothing was changed: "
                + "; ".join(reasons)
            )

    def write(self, path: str, content: str) -> None:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        self.module.atomic_move(temporary, path)

    def apply(self, path: str, content: str, former: str | None, revert_after: int | None) -> None:
        """Write the file and reload sshd. With revert_after, have the former one put back then."""
        active = self.active(
            "ssh"
        )  # it is not where a socket starts one sshd for each connection, which reads the file anew
        restore = f"rm -f {shlex.quote(path)}"
        if former is not None:
            self.write(FORMER, former)
            restore = f"cp {FORMER} {shlex.quote(path)}"
        if active:
            restore += "; systemctl reload-or-restart ssh"
        if revert_after:
            self.run(
                *("systemd-run", "--quiet", "--collect", f"--unit={REVERT}", f"--on-active={revert_after}"),
                *("--timer-property=AccuracySec=1s", "/bin/sh", "-c", restore),
            )
        self.write(path, content)
        self.module.set_mode_if_different(path, "0600", False)
        if active:
            code = self.run("systemctl", "reload", "ssh", check=False)[0]
            if code or not self.active("ssh"):
                self.run("/bin/sh", "-c", restore)
                self.run("systemctl", "stop", f"{REVERT}.timer", check=False)
                self.module.fail_json(
                    msg="sshd did not survive its reload, the former configuration serves again: see journalctl --unit ssh"
                )


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": f"{DROP_INS}/00-webstack.conf"},
            "content": {"type": "str", "required": True},
            "revert_after": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    path, content = module.params["path"], module.params["content"]
    program = module.get_bin_path("sshd", opt_dirs=["/usr/sbin"])
    if not program or not os.path.exists(MAIN):
        module.exit_json(changed=False, installed=False)
    if os.path.dirname(path) != DROP_INS or not path.endswith(".conf"):
        module.fail_json(msg=f"path is {path}: sshd reads {DROP_INS}/*.conf")

    sshd = Sshd(module, program)
    former = None
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            former = file.read()
    changed = former != content
    session = find_session()
    result = {"changed": changed, "installed": True, "user": session.user if session else "", "confirm": ""}
    # Without a change nobody is locked out, but the file may be overruled by now.
    sshd.judge(path, content, session if changed else None)
    if changed and not module.check_mode:
        if sshd.active(f"{REVERT}.timer"):
            module.fail_json(
                msg="An earlier change waits to be confirmed or put back (systemctl list-timers): run again after that."
            )
        sshd.apply(path, content, former, module.params["revert_after"] if session else None)
        result["confirm"] = f"{REVERT}.timer" if session else ""
    module.exit_json(
        diff={
            "before_header": path,
            "after_header": path,
            "before": former or "",
            "after": content if changed else former or "",
        },
        **result,
    )


if __name__ == "__main__":
    main()
