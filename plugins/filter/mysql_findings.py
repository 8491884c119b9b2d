# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The filters of the playbook mysql_doctor. They are documented in mysql_findings.yml and mysql_report.yml."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.foobar.webstack.plugins.module_utils.mysql_findings import findings, nodes, report


class FilterModule:
    """Filters over what mysql_replica_info returned of each node."""

    def filters(self) -> dict[str, Callable]:
        return {
            "mysql_findings": lambda answers, primary=None, limits=None: findings(nodes(answers), primary, limits),
            "mysql_report": lambda answers, found: report(nodes(answers), found),
        }
