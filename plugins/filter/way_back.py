# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The filter of the playbook rollback. It is documented in way_back.yml."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.release import way_back


class FilterModule:
    """The filter over what servers say of their releases."""

    def filters(self) -> dict[str, Callable]:
        return {"way_back": way_back}
