# Copyright: The foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of the module foobar.webstack.haproxy_map: sends the map to a host that has another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """A map may have some hundred thousand lines, too many for the argument of a module."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source, content = arguments.pop("src", None), arguments.pop("content", None)
        if (source is None) == (content is None):
            raise AnsibleActionFail("give the map as src, a file on the control node, or as content")
        text = str(content).encode() if source is None else Path(self._find_needle("files", source)).read_bytes()
        arguments["checksum"] = hashlib.sha256(text).hexdigest()
        answer = self._ask(arguments, task_vars)
        if answer.get("wanted"):
            answer = self._ask(arguments | {"src": self._send(text)}, task_vars)
        return result | answer

    def _ask(self, arguments, task_vars):
        return self._execute_module("foobar.webstack.haproxy_map", module_args=arguments, task_vars=task_vars)

    def _send(self, text: bytes) -> str:
        """Put the map where the module finds it until the task ends; return its path on the host."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        path = self._transfer_data(shell.join_path(shell.tmpdir, "source"), text)
        self._fixup_perms2((shell.tmpdir, path))
        return path
