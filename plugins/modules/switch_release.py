#!/usr/bin/python
# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: switch_release
short_description: Put one of the installed releases into service, and remember which was before it
version_added: 0.2.0
author: The foobar.webstack founders (@foobar)
description:
  - Below a directory, C(releases/) has one directory for each release, and the link C(current) leads to the one in service. The module
    renames a new link over it, so that whoever follows it meets one release or the other.
  - The file C(history) has the names of the releases in the order in which they went into service, the last one being in service. The
    way back leads along it.
  - Without O(release) it changes nothing and says what is there.
options:
  directory:
    description: The directory that has C(releases/) and C(current).
    type: path
    required: true
  release:
    description: The release to put into service, by the name of its directory in C(releases/).
    type: str
  back:
    description:
      - Whether this is the way back. Then the releases that went into service after O(release) leave the history, so that the next way back
        leads further.
    type: bool
    default: false
  keep:
    description:
      - How many releases stay beside the one in service, those of the history first, its newest first. Without it, all do.
    type: int
attributes:
  check_mode:
    description: Predicts the change without making it.
    support: full
  diff_mode:
    description: Shows the release before and after, and those that are removed.
    support: full
  platform:
    description: Works on hosts with POSIX links.
    support: full
    platforms: posix
extends_documentation_fragment:
  - ansible.builtin.action_common_attributes
"""

EXAMPLES = r"""
- name: Put the release into service
  foobar.webstack.switch_release:
    directory: /srv/shop
    release: 0f3a9c5d7e21
    keep: 3

- name: Ask what is there
  foobar.webstack.switch_release:
    directory: /srv/shop
  register: shop

- name: Go back
  foobar.webstack.switch_release:
    directory: /srv/shop
    release: "{{ shop.previous }}"
    back: true
"""

RETURN = r"""
old:
  description: The release that was in service, empty where there was none.
  returned: always
  type: str
  sample: 77b1d04f9a3c
current:
  description: The release that is in service now.
  returned: always
  type: str
  sample: 0f3a9c5d7e21
previous:
  description: The one that the way back leads to from there. Empty where there is none.
  returned: always
  type: str
  sample: 77b1d04f9a3c
releases:
  description: The releases that are there, the way back from the one in service first.
  returned: always
  type: list
  elements: str
  sample: [0f3a9c5d7e21, 77b1d04f9a3c]
switched:
  description: When the one in service was put into it, in seconds since 1970 by the host's clock. 0 where there is none.
  returned: always
  type: float
  sample: 1767225600.5
removed:
  description: The releases that were removed.
  returned: always
  type: list
  elements: str
  sample: []
"""

import contextlib
import os
import shutil

from ansible.module_utils.basic import AnsibleModule


class Releases:
    """The releases below a directory, as they are."""

    def __init__(self, directory: str):
        self.directory = directory
        self.link = os.path.join(directory, "current")
        self.current, self.switched = "", 0.0
        with contextlib.suppress(OSError):
            self.current = os.path.basename(os.readlink(self.link))
            self.switched = os.lstat(self.link).st_mtime
        found = {}
        with contextlib.suppress(OSError):
            found = {
                entry.name: entry.stat().st_mtime
                for entry in os.scandir(os.path.join(directory, "releases"))
                if entry.is_dir(follow_symlinks=False)
            }
        self.by_age = sorted(found, key=found.get)
        try:
            with open(os.path.join(directory, "history"), encoding="utf-8") as file:
                self.history = [name for name in file.read().split() if name in found]
        except OSError:
            # Releases from before there was a history.
            self.history = [name for name in self.by_age if found[name] <= found.get(self.current, 0.0)]
        self.history = after(self.history, self.current, back=True) if self.current in found else self.history

    def order(self, history: list[str]) -> list[str]:
        """Every release, the last of the history first, those that are no part of it last."""
        return history[::-1] + [name for name in reversed(self.by_age) if name not in history]

    def listing(self, history: list[str], current: str) -> str:
        return "".join(line(name, current) for name in self.order(history))

    def path(self, release: str) -> str:
        return os.path.join(self.directory, "releases", release)

    def switch(self, release: str, history: list[str]) -> None:
        """Rename a new link over the old one; the history first, since the link decides what it says."""
        self._replace("history", lambda path: self._write(path, history))
        if release != self.current:
            self._replace("current", lambda path: os.symlink(os.path.join("releases", release), path))

    def _replace(self, name: str, make) -> None:
        new = os.path.join(self.directory, f".{name}.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        make(new)
        os.rename(new, os.path.join(self.directory, name))

    @staticmethod
    def _write(path: str, history: list[str]) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(f"{name}\n" for name in history))
        os.chmod(path, 0o644)


def after(history: list[str], release: str, back: bool) -> list[str]:
    """Return the history once a release is in service: on the way back it ends there, otherwise the release is added."""
    if back and release in history:
        return history[: history.index(release) + 1]
    return [name for name in history if name != release] + [release]


def line(release: str, current: str) -> str:
    return f"{release}{', in service' if release == current else ''}\n"


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "release": {"type": "str"},
            "back": {"type": "bool", "default": False},
            "keep": {"type": "int"},
        },
        supports_check_mode=True,
    )
    directory, release, keep = (module.params[name] for name in ("directory", "release", "keep"))
    releases = Releases(directory)
    old, history, removed = releases.current, releases.history, []
    if release:
        if "/" in release or release.startswith("."):
            module.fail_json(msg=f"release: {release} is no name of a directory: give one from {directory}/releases")
        if not module.check_mode and not os.path.isdir(releases.path(release)):
            kept = ", ".join(releases.order(history)) or "none"
            module.fail_json(msg=f"release: {release} is not in {directory}/releases, which has {kept}")
        if release != old:
            history = after(history, release, module.params["back"])
    if keep is not None:
        removed = [name for name in releases.order(history) if name != (release or old)][max(keep, 0) :]
        history = [name for name in history if name not in removed]
    switched = bool(release and release != old)
    before = releases.listing(releases.history, old)
    kept = [name for name in releases.order(history) if name not in removed]
    if not module.check_mode:
        if switched:
            releases.switch(release, history)
        for name in removed:
            shutil.rmtree(releases.path(name))
        releases = Releases(directory)
    module.exit_json(
        changed=switched or bool(removed),
        old=old,
        current=release or old,
        previous=history[-2] if len(history) > 1 else "",
        releases=kept,
        switched=releases.switched,
        removed=removed,
        diff={
            "before_header": f"{directory}/releases",
            "after_header": f"{directory}/releases",
            "before": before,
            "after": "".join(line(name, release or old) for name in kept),
        },
    )


if __name__ == "__main__":
    main()
