# Copyright: the foobar.webstack founders
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How a module reaches the local MySQL server: the documentation of module_utils/mysql.py's LOGIN."""

    DOCUMENTATION = r"""
options:
  login_unix_socket:
    description: Socket of the server.
    type: path
    default: /run/mysqld/mysqld.sock
  login_user:
    description: Administrative account that logs in through O(login_unix_socket) without a password.
    type: str
    default: root
"""
