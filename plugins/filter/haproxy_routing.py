# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The filters that write lines of haproxy.cfg. Each is documented in the .yml file of its name."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.haproxy_routes import routing


class FilterModule:
    """Filters of the role haproxy's template."""

    def filters(self) -> dict[str, Callable]:
        return {"haproxy_routing": routing}
