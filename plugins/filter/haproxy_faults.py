# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The filter of the role haproxy's variables. It is documented in haproxy_faults.yml."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.haproxy import faults


class FilterModule:
    """Filters over the variables of the role haproxy."""

    def filters(self) -> dict[str, Callable]:
        return {"haproxy_faults": faults}
