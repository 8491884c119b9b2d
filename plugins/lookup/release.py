# Copyright: The foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin foobar.webstack.release."""

from __future__ import annotations

DOCUMENTATION = r"""
name: release
short_description: Name a directory or an archive by its content, or pack it
version_added: 0.1.0
author: The foobar.webstack founders (@foobar)
description:
  - Runs on the control node. Without O(archive) it returns a name that stays the same as long as the content does,
    so that a role can tell whether a host has this release already without sending it there.
  - With O(archive) it returns the path of an archive of the content, for M(ansible.builtin.unarchive).
options:
  _terms:
    description: Directories or archives on the control node. A relative path is looked for as C(files) are.
    type: list
    elements: path
    required: true
  archive:
    description: Return the path of an archive. A directory is packed into one that is deleted when Ansible ends.
    type: bool
    default: false
  exclude:
    description: Names of files and directories that are no part of a directory's content.
    type: list
    elements: str
    default: [.git, __pycache__]
notes:
  - Of a directory, the paths and contents of its files count; owners, modes, times and empty directories do not.
  - In an archive that this lookup packs, root owns the files, and they are readable to everybody.
"""

EXAMPLES = r"""
- name: Name the release
  ansible.builtin.set_fact:
    release: "{{ lookup('foobar.webstack.release', 'www') }}"

- name: Unpack the release
  ansible.builtin.unarchive:
    src: "{{ lookup('foobar.webstack.release', 'www', archive=true) }}"
    dest: /srv/releases/{{ release }}
"""

RETURN = r"""
_raw:
  description: For each term, 16 hexadecimal digits; with O(archive), the path of a file on the control node.
  type: list
  elements: str
"""

from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.foobar.webstack.plugins.module_utils.release import release_archive, release_name


class LookupModule(LookupBase):
    """Name or pack what the terms point to."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        return [self._release(term, variables) for term in terms]

    def _release(self, term: str, variables) -> str:
        found = self.find_file_in_search_path(variables, "files", term)
        if found is None:
            raise AnsibleLookupError(f"no directory or archive {term!r} on the control node")
        source = Path(found)
        exclude = self.get_option("exclude")
        try:
            if not self.get_option("archive"):
                return release_name(source, exclude)
            if not source.is_dir():
                return str(source)
            archive = Path(constants.DEFAULT_LOCAL_TMP, f"release-{release_name(source, exclude)}.tar.gz")
            if not archive.exists():
                release_archive(source, archive, exclude)
        except (OSError, ValueError) as error:
            raise AnsibleLookupError(f"release {term!r}: {error}") from error
        return str(archive)
