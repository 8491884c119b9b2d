# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The filter over certificates. It is documented in certificate_faults.yml."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.certificates import faults


class FilterModule:
    """Filters over certificates in PEM form."""

    def filters(self) -> dict[str, Callable]:
        return {"certificate_faults": faults}
