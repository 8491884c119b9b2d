# Copyright: The foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup plugin foobar.webstack.authority_work."""

from __future__ import annotations

DOCUMENTATION = r"""
name: authority_work
short_description: Tell which certificates a private authority has to issue
version_added: 0.2.0
author: The foobar.webstack founders (@foobar)
description:
  - Reads the directory on the control node in which the role tls keeps an authority and its certificates. Writes nothing.
requirements: [cryptography]
options:
  _terms:
    description: Directories that hold C(ca.crt), C(ca.key), and C(<name>.crt), C(<name>.key) for each certificate.
    type: list
    elements: path
    required: true
  certificates:
    description: The certificates that are wanted, each with C(name) and C(subject_alt_names), as the role tls takes them.
    type: list
    elements: dict
    required: true
  renew_days:
    description: Days before its end that a certificate is due.
    type: float
    default: 30
  every:
    description: Whether every certificate is due, whatever it is like.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say what is due
  ansible.builtin.debug:
    msg: "{{ lookup('foobar.webstack.authority_work', 'secrets/tls', certificates=tls_certificates).due }}"
"""

RETURN = r"""
_raw:
  description:
    - For each term, a dictionary of C(due), a list of certificates with the C(reason) of each, the authority C(ca) first when it is due itself;
      C(gone), the names of certificates that this authority issued and nobody wants any more; and C(authorities), how many C(ca.crt) holds.
  type: list
  elements: dict
"""

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.foobar.webstack.plugins.module_utils.certificates import work


class LookupModule(LookupBase):
    """Look into the directories of an authority."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        options = {name: self.get_option(name) for name in ("certificates", "renew_days", "every")}
        try:
            return [work(term, **options) for term in terms]
        except ValueError as error:
            raise AnsibleLookupError(str(error)) from error
