#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Write several files as one change, validated together
version_added: 0.1.0
author: The foobar.webstack founders (@foobar)
description:
  - Writes all files of one configuration, then runs a command that judges them in their place, and reloads the service that reads them.
    When either refuses them, every file is put back as it was and the task fails.
  - M(ansible.builtin.template) validates one file, at another path. That cannot judge a fragment that is only valid
    with its neighbours, or a file that mandatory access control lets the program read in its place alone.
  - One task for many files also costs one connection to the host, not one for each file.
options:
  files:
    description: The files. Missing parent directories are created with mode 0755.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      content:
        description: The whole text of the file. C(--diff) shows it.
        type: str
      secret:
        description: The whole text of a file that no diff and no log may show.
        type: str
      owner:
        description: Name of the user who owns the file.
        type: str
        default: root
      group:
        description: Name of the group that owns the file.
        type: str
        default: root
      mode:
        description: Permissions, octal in quotes or symbolic.
        type: str
        default: "0644"
  directories:
    description: Directories of the configuration. Missing ones are made before the files.
    type: list
    elements: dict
    default: []
    version_added: 0.2.0
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      prune:
        description:
          - Remove the files of the directory whose first line is this one and which O(files) does not name.
            Other files, and those of directories below it, stay.
        type: str
      create:
        description: Whether a missing one is made. Otherwise it is left out, and only one that is there is pruned.
        type: bool
        default: true
      owner:
        description: Name of the user who owns the directory.
        type: str
        default: root
      group:
        description: Name of the group that owns the directory.
        type: str
        default: root
      mode:
        description: Permissions, octal in quotes or symbolic.
        type: str
        default: "0755"
  validate:
    description:
      - Command that succeeds when the files are good. It runs after a change, without a shell.
      - While it runs, the files that it may refuse are in their place.
      - In check mode nothing is written and the command does not run.
    type: str
  reload:
    description:
      - Service that reads the files, as systemd names it. After a change that O(validate) has let through it is reloaded, if it is active.
      - When it cannot be reloaded, every file is put back as it was, and the task fails with what the service has said. So files that are
        not in use never stay, and the next run tries again.
      - Where one of the files is in C(/etc/systemd), systemd reads its units first.
    type: str
    version_added: 0.2.0
attributes:
  check_mode:
    description: Predicts the change without making it.
    support: full
  diff_mode:
    description: Shows each file that changes, but for the text of secret ones.
    support: full
  platform:
    description: Works on hosts with POSIX file permissions.
    support: full
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
"""

EXAMPLES = r"""
- name: Configure MySQL and its certificate
  foobar.webstack.config_files:
    files:
      - path: /etc/mysql/mysql.conf.d/zz-site.cnf
        content: "{{ lookup('ansible.builtin.template', 'etc/mysql/mysql.conf.d/zz-site.cnf.j2') }}"
      - path: /etc/mysql/tls/server-key.pem
        secret: "{{ key }}"
        group: mysql
        mode: "0640"
    validate: mysqld --validate-config
  register: files

- name: Restart MySQL when its settings changed
  ansible.builtin.systemd_service:
    name: mysql
    state: restarted
  when: "'/etc/mysql/mysql.conf.d/zz-site.cnf' in files.changed_files"

- name: Configure HAProxy, which keeps what it has when it cannot take over with the new
  foobar.webstack.config_files:
    files:
      - path: /etc/haproxy/haproxy.cfg
        content: "{{ lookup('ansible.builtin.template', 'etc/haproxy/haproxy.cfg.j2') }}"
    validate: haproxy -c -f /etc/haproxy/haproxy.cfg
    reload: haproxy
"""

RETURN = r"""
changed_files:
  description: Paths of the directories and files that were made, removed, or whose text, owner or permissions changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/mysql/mysql.conf.d/zz-site.cnf]
"""

import contextlib
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule

FILE_SPEC = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "secret": {"type": "str", "no_log": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
}
DIRECTORY_SPEC = {
    "path": {"type": "path", "required": True},
    "prune": {"type": "str"},
    "create": {"type": "bool", "default": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0755"},
}


class ConfigFilesModule(AnsibleModule):
    """A module that keeps the texts of files out of the host's log.

    Ansible logs the arguments of every module, and masks in them what is secret letter by letter. A secret of several lines, a
    private key for example, is quoted in a list, is other letters then, and would be logged.
    """

    def _log_invocation(self):
        self.log("Invoked for " + ", ".join(file["path"] for file in self.params["files"]))


class Path:
    """A path that shall have an owner and permissions, and those it had when the task began."""

    def __init__(self, module: AnsibleModule, params: dict):
        self.module = module
        self.path = params["path"]
        self.attributes = module.load_file_common_arguments(params, path=self.path)
        self.old_stat = os.stat(self.path) if os.path.exists(self.path) else None

    def attributes_differ(self) -> bool:
        mode, self.module.check_mode = self.module.check_mode, True
        try:
            return self.module.set_fs_attributes_if_different(self.attributes, changed=False)
        finally:
            self.module.check_mode = mode

    def restore_attributes(self) -> None:
        os.chown(self.path, self.old_stat.st_uid, self.old_stat.st_gid)
        os.chmod(self.path, self.old_stat.st_mode & 0o7777)


class Directory(Path):
    """One directory, and the files in it that are to go."""

    def __init__(self, module: AnsibleModule, params: dict):
        super().__init__(module, params)
        self.prune = params["prune"]

    def stale(self, kept: set[str]) -> list[File]:
        if self.old_stat is None or self.prune is None:
            return []
        paths = sorted(entry.path for entry in os.scandir(self.path) if entry.is_file(follow_symlinks=False))
        return [StaleFile(self.module, path) for path in paths if path not in kept and self._ours(path)]

    def _ours(self, path: str) -> bool:
        with open(path, "rb") as file:
            return file.readline().strip() == self.prune.encode()

    def differs(self) -> bool:
        return self.old_stat is None or self.attributes_differ()

    def write(self) -> None:
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        self.module.set_fs_attributes_if_different(self.attributes, changed=False)

    def restore(self) -> None:
        if self.old_stat is not None:
            self.restore_attributes()
            return
        with contextlib.suppress(OSError):  # it was not made yet, or somebody else has put a file into it
            os.rmdir(self.path)

    def diff(self) -> dict:
        before = "" if self.old_stat is None else f"mode {self.old_stat.st_mode & 0o7777:04o}\n"
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": before,
            "after": f"mode {self.attributes['mode']}\n",
        }


class File(Path):
    """One file: what it shall be, and what it was when the task began."""

    def __init__(self, module: AnsibleModule, params: dict):
        super().__init__(module, params)
        self.secret = params["secret"] is not None
        self.text = (params["secret"] if self.secret else params["content"]).encode()
        self.old_text = None
        if self.old_stat is not None:
            with open(self.path, "rb") as file:
                self.old_text = file.read()

    def differs(self) -> bool:
        """Say whether the text, owner or permissions are not as they shall be. Nothing is written."""
        return self.text != self.old_text or self.attributes_differ()

    def write(self) -> None:
        if self.text != self.old_text:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            self._replace(self.text)
        self.module.set_fs_attributes_if_different(self.attributes, changed=False)

    def restore(self) -> None:
        if self.old_text is None:
            if os.path.exists(self.path):
                os.unlink(self.path)
            return
        self._replace(self.old_text)
        self.restore_attributes()

    def _replace(self, text: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        # A new file is nobody else's to read until it has its own permissions.
        umask = os.umask(0o077)
        try:
            self.module.atomic_move(temporary, self.path)
        finally:
            os.umask(umask)

    def diff(self) -> dict:
        before = "" if self.old_text is None else self.old_text.decode(errors="replace")
        after = self.text.decode()
        if self.secret:
            after = "(secret)\n" if after == before else "(another secret)\n"
            before = before and "(secret)\n"
        return {"before_header": self.path, "after_header": self.path, "before": before, "after": after}


class StaleFile(File):
    """A file that is to go, and comes back when the others are refused. What it holds may be secret."""

    def __init__(self, module: AnsibleModule, path: str):
        super().__init__(module, {"path": path, "secret": ""})

    def differs(self) -> bool:
        return True

    def write(self) -> None:
        os.unlink(self.path)

    def diff(self) -> dict:
        return {"before_header": self.path, "after_header": self.path, "before": "(not shown)\n", "after": ""}


def write(module: AnsibleModule, paths: list[Directory | File]) -> None:
    """Write directories and files and let command and service judge them, or end the module with all of them as they were."""
    command, service = module.params["validate"], module.params["reload"]
    try:
        for path in paths:
            path.write()
        if command:
            code, out, error = module.run_command(command)
            if code:
                said = (error or out).strip()
                module.fail_json(msg=f"{command} refused the files, all are as they were: {said}", rc=code)
        if service:
            read_units(module, paths)
            reload(module, service)
    except BaseException:  # SystemExit of a failed module too
        for path in reversed(paths):
            path.restore()
        if service:
            read_units(module, paths)
        raise


def read_units(module: AnsibleModule, paths: list[Directory | File]) -> None:
    if any(path.path.startswith("/etc/systemd/") for path in paths):
        module.run_command(["systemctl", "daemon-reload"])


def reload(module: AnsibleModule, service: str) -> None:
    begun = int(time.time())
    code, out, error = module.run_command(["systemctl", "try-reload-or-restart", service])
    if code:
        module.run_command(["journalctl", "--sync"])
        # On its standard output and error, and not what it logs of its work.
        matches = [f"_SYSTEMD_UNIT={service}.service", "_TRANSPORT=stdout"]
        said = module.run_command(["journalctl", "--quiet", "--output=cat", f"--since=@{begun}", *matches])[1]
        msg = f"{service} could not be reloaded with the files, all are as they were: {(said or error or out).strip()}"
        module.fail_json(msg=msg, rc=code)


def main():
    module = ConfigFilesModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": FILE_SPEC,
                "mutually_exclusive": [("content", "secret")],
                "required_one_of": [("content", "secret")],
            },
            "directories": {"type": "list", "elements": "dict", "default": [], "options": DIRECTORY_SPEC},
            "validate": {"type": "str"},
            "reload": {"type": "str"},
        },
        supports_check_mode=True,
    )
    directories = [
        Directory(module, params)
        for params in module.params["directories"]
        if params["create"] or os.path.isdir(params["path"])
    ]
    files = [File(module, params) for params in module.params["files"]]
    kept = {file.path for file in files}
    stale = [file for directory in directories for file in directory.stale(kept)]
    changed = [path for path in (*directories, *files, *stale) if path.differs()]
    if changed and not module.check_mode:
        write(module, changed)
    module.exit_json(
        changed=bool(changed),
        changed_files=[path.path for path in changed],
        diff=[path.diff() for path in changed],
    )


if __name__ == "__main__":
    main()
