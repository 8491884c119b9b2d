# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The filters of the role firewall. Each is documented in the .yml file of its name."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.firewall import lock_out, rules


class FilterModule:
    """Filters over the variables of the role firewall."""

    def filters(self) -> dict[str, Callable]:
        return {"firewall_rules": rules, "firewall_lock_out": lock_out}
