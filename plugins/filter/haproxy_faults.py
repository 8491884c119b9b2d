"""Filter foobar.webstack.haproxy_faults: see DOCUMENTATION."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.haproxy import faults

DOCUMENTATION = r"""
name: haproxy_faults
short_description: Find what is wrong between the variables of the role haproxy
version_added: 0.1.0
author: The foobar.webstack founders (@foobar)
description:
  - Checks what types alone cannot, such as a frontend whose backend does not exist, and reports all faults at once.
positional: _input
options:
  _input:
    description: The role's C(haproxy_frontends).
    type: list
    elements: dict
    required: true
  backends:
    description: The role's C(haproxy_backends).
    type: list
    elements: dict
    required: true
  certificates:
    description: The role's C(haproxy_certificates).
    type: list
    elements: dict
    required: true
  peers:
    description: The role's C(haproxy_peers).
    type: list
    elements: dict
    required: true
  peer_name:
    description: The role's C(haproxy_peer_name).
    type: str
    required: true
  metrics:
    description: The role's C(haproxy_metrics_address) and C(haproxy_metrics_port), as C(address) and C(port).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Check what depends on each other
  ansible.builtin.assert:
    that: faults | length == 0
    fail_msg: "{{ faults | join('\n') }}"
  vars:
    faults: >-
      {{ haproxy_frontends | foobar.webstack.haproxy_faults(backends=haproxy_backends, certificates=haproxy_certificates,
         peers=haproxy_peers, peer_name=haproxy_peer_name, metrics={'address': '127.0.0.1', 'port': 8404}) }}
"""

RETURN = r"""
_value:
  description: One sentence for each fault, with variable, value and right form. Empty when there is none.
  type: list
  elements: str
"""


class FilterModule:
    """Filters over the variables of the role haproxy."""

    def filters(self) -> dict[str, Callable]:
        return {"haproxy_faults": faults}
