#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_parameters
short_description: Set kernel parameters at every boot, and now as far as this kernel allows
version_added: 0.2.0
author: The foobar.webstack founders (@foobar)
description:
  - Writes a file of C(/etc/sysctl.d) and gives each parameter its value now.
  - A parameter that this kernel does not have, or does not let the host set, is named in the result and fails nothing. So it is in
    containers, where C(/proc/sys) is read-only or belongs to another namespace.
options:
  parameters:
    description:
      - The parameters and their values, as in C(net.ipv4.tcp_syncookies).
      - A C(*) stands for every name at its place, as in C(net.ipv6.conf.*.accept_ra).
    type: dict
    required: true
  path:
    description: The file that sets them at every boot.
    type: path
    default: /etc/sysctl.d/90-webstack.conf
attributes:
  check_mode:
    description: Predicts the change without making it.
    support: full
  diff_mode:
    description: Shows the file, and the values before and after.
    support: full
  platform:
    description: Linux.
    support: full
    platforms: linux
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
"""

EXAMPLES = r"""
- name: Ignore redirects, and answer a flood of connections with cookies
  foobar.webstack.kernel_parameters:
    parameters:
      net.ipv4.conf.all.accept_redirects: 0
      net.ipv6.conf.*.accept_redirects: 0
      net.ipv4.tcp_syncookies: 1
"""

RETURN = r"""
set:
  description: The parameters that got another value now.
  returned: always
  type: dict
  sample: {net.ipv4.tcp_rfc1337: "1"}
refused:
  description: The parameters that have another value than wanted and that this kernel does not let the host set, with the value that they have.
  returned: always
  type: dict
  sample: {kernel.sysrq: "438"}
missing:
  description: The parameters that this kernel does not have.
  returned: always
  type: list
  elements: str
  sample: [kernel.yama.ptrace_scope]
"""

import glob
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule

SYSTEM = "/proc/sys"
HEADER = "# Ansible managed: foobar.webstack.kernel_parameters\n"


def normal(value: str) -> str:
    """Several values are separated by a tab in the kernel and by any space in a file."""
    return " ".join(value.split())


def find(parameters: dict[str, str], system: str) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return the wanted value and the file of each parameter, with each * replaced by what is there, and those not there."""
    found, missing = {}, []
    for name, value in parameters.items():
        pattern = os.path.join(system, name.replace(".", "/"))
        paths = sorted(glob.glob(pattern))
        if not paths:
            missing.append(name)
        for path in paths:
            found[os.path.relpath(path, system).replace("/", ".")] = (value, path)
    return found, missing


def apply(parameters: dict[str, str], system: str = SYSTEM, check_mode: bool = False) -> dict:
    """Give the parameters their values and return what was set, what the kernel refused and what it lacks."""
    found, missing = find(parameters, system)
    before, refused = {}, {}
    for name, (value, path) in found.items():
        try:
            with open(path, encoding="utf-8") as file:
                old = normal(file.read())
        except OSError as error:
            refused[name] = error.strerror  # some can be written only
            continue
        if old == normal(value):
            continue
        try:
            if check_mode and not os.access(path, os.W_OK):
                raise PermissionError
            if not check_mode:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(value)
            before[name] = old
        except OSError:
            refused[name] = old
    return {"set": {name: found[name][0] for name in before}, "before": before, "refused": refused, "missing": missing}


def main():
    module = AnsibleModule(
        argument_spec={
            "parameters": {"type": "dict", "required": True},
            "path": {"type": "path", "default": "/etc/sysctl.d/90-webstack.conf"},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    parameters = {name: str(value) for name, value in module.params["parameters"].items()}
    text = HEADER + "".join(f"{name} = {value}\n" for name, value in parameters.items())
    old = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            old = file.read()
    if text != old and not module.check_mode:
        handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        module.atomic_move(temporary, path)
        module.set_mode_if_different(path, "0644", False)
    result = apply(parameters, check_mode=module.check_mode)
    before = result.pop("before")
    diff = [{"before_header": path, "after_header": path, "before": old, "after": text}] if text != old else []
    if before:
        lines = ["".join(f"{name} = {value}\n" for name, value in values.items()) for values in (before, result["set"])]
        diff.append({"before_header": SYSTEM, "after_header": SYSTEM, "before": lines[0], "after": lines[1]})
    module.exit_json(changed=bool(diff), diff=diff, **result)


if __name__ == "__main__":
    main()
