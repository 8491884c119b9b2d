# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The topology's functions as filters: thin skins. Each is documented in the .yml file of its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.utils.unsafe_proxy import wrap_var
from ansible.vars.hostvars import HostVars
from ansible_collections.foobar.webstack.plugins.module_utils import topology
from jinja2.runtime import Undefined


def build(
    groups: Mapping[str, Iterable[str]],
    hostvars: HostVars,
    site: Any,
    services: Any = None,
    virtual_ips: Any = None,
) -> dict[str, Any]:
    names = dict.fromkeys(host for members in groups.values() for host in members)
    result = topology.build(groups, {name: _variables(hostvars, name) for name in names}, site, services, virtual_ips)
    # A fault may quote a template, which ansible-core 2.18 would run again.
    return dict(result, faults=wrap_var(result["faults"]))


def _variables(hostvars: HostVars, host: str) -> dict[str, Any]:
    """The few variables of a host that the topology reads: only they are templated, each once."""
    known = hostvars[host]
    found = {}
    for variable in topology.HOST_VARIABLES:
        if variable in known and not (variable == "ansible_host" and "webstack_address" in found):
            try:
                value = known[variable]
            except Exception:
                value = Undefined()
            # A template that cannot be resolved is reported as it stands: it is no address and no number.
            found[variable] = hostvars.raw_get(host)[variable] if isinstance(value, Undefined) else value
    return found


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "topology": build,
            "host_flows": topology.host_flows,
            "fault_lines": topology.fault_lines,
            "topology_table": topology.table,
            "mermaid": topology.mermaid,
        }
