# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The decisions about the database tier as filters. Each is documented in the .yml file of its name."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils import mysql_tier


class FilterModule:
    """Filters over what the databases said of themselves."""

    def filters(self) -> dict[str, Callable]:
        return {
            "mysql_survey": mysql_tier.survey,
            "mysql_switchover_faults": mysql_tier.switchover_faults,
            "mysql_failover": mysql_tier.failover,
            "mysql_own_transactions": mysql_tier.own_transactions,
        }
