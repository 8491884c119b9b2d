# Copyright: The foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin foobar.webstack.region_map."""

from __future__ import annotations

DOCUMENTATION = r"""
name: region_map
short_description: Compile networks and country databases to a map from addresses to regions
version_added: 0.2.0
author: The foobar.webstack founders (@foobar)
description:
  - Runs on the control node, and writes a file of lines C(network region) for HAProxy's C(map_ip).
  - Where networks lie in each other, the smaller one counts. The networks of O(regions) and O(tables) count before O(databases).
  - The file is named by its sources and made once in a run of Ansible, at whose end it is deleted.
options:
  regions:
    description:
      - The regions, each with C(name), C(countries) and C(networks), as the role haproxy takes them in C(haproxy_regions).
    type: list
    elements: dict
    required: true
  default_region:
    description: The region of addresses that are in no network. One of O(regions).
    type: str
    required: true
  tables:
    description: CSV files of C(network,region). A relative path is looked for as C(files) are. Empty lines and those that begin with C(#) do not count.
    type: list
    elements: str
    default: []
  databases:
    description:
      - CSV files, compressed ones with C(.gz) too, of C(first address,last address,country) as of DB-IP and IP2Location, or of C(network) and a
        country in columns that the header names, as of IPinfo and GeoLite2. GeoLite2-Country-Locations-en.csv goes with GeoLite2-Country-Blocks.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Tell the regions of the offices
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', map.path) }}"
  vars:
    map: "{{ lookup('foobar.webstack.region_map', regions=[{'name': 'eu'}, {'name': 'us'}], default_region='us', tables=['offices.csv']) }}"
"""

RETURN = r"""
_raw:
  description:
    - One dictionary of C(path), the map on the control node, and C(faults), one sentence for each line or value that is wrong. With faults there
      is no map, and the path is empty.
  type: list
  elements: dict
"""

import hashlib
import json
import os
from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.foobar.webstack.plugins.module_utils.regions import compile_map

HEADER = "# Ansible managed: role foobar.webstack.haproxy\n"


class LookupModule(LookupBase):
    """Compile the map, or find the one that was."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        regions, default = self.get_option("regions"), self.get_option("default_region")
        files = {name: self._files(name, variables) for name in ("tables", "databases")}
        stats = [(str(path), os.stat(path)) for paths in files.values() for path in paths]
        sources = json.dumps(
            [regions, default, [(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]], default=str
        )
        path = Path(constants.DEFAULT_LOCAL_TMP, f"regions-{hashlib.sha256(sources.encode()).hexdigest()[:16]}.map")
        faults = []
        if not path.exists():
            try:
                lines, faults = compile_map(regions, default, **files)
            except (OSError, ValueError) as error:
                raise AnsibleLookupError(f"region_map: {error}") from error
            if faults:
                return [{"path": "", "faults": faults}]
            # Several hosts may be served at once: whoever reads the map sees a whole one.
            partial = path.with_name(f"{path.name}.{os.getpid()}")
            partial.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
            partial.replace(path)
        return [{"path": str(path), "faults": faults}]

    def _files(self, name: str, variables) -> list[Path]:
        variable = {"tables": "haproxy_region_tables", "databases": "haproxy_country_databases"}[name]
        found = []
        for term in self.get_option(name):
            path = self.find_file_in_search_path(variables, "files", term, ignore_missing=True)
            if path is None or not Path(path).is_file():
                raise AnsibleLookupError(f"{variable} has {str(term)!r}, which is no file on the control node")
            found.append(Path(path))
        return found
