# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The servers of HAProxy's backends as its runtime API tells them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

STATES = ("ready", "drain", "maint")
# Bits of srv_admin_state: HAProxy, management guide, "show servers state"
MAINT = 0x01 | 0x02 | 0x04 | 0x20  # set here, inherited from a tracked server, configured, or without an address
DRAIN = 0x08 | 0x10


def read(stat: str, state: str) -> list[dict[str, Any]]:
    """Return the servers from the answers to "show stat" (CSV with a header) and "show servers state".

    Each is {backend, name, state, status, sessions, healthy}: state is what an operator has set, one of STATES; status is HAProxy's own
    word; sessions are the requests or connections at the server and those that wait for it; healthy is whether every check of late
    has succeeded, or none is made.
    """
    lines = state.splitlines()
    names = next((line[2:].split() for line in lines if line.startswith("# be_id")), [])
    rows = [dict(zip(names, line.split())) for line in lines if line[:1].isdigit() and " " in line]  # noqa: B905
    admin = {(row["be_name"], row["srv_name"]): int(row["srv_admin_state"]) for row in rows}
    return [
        {
            "backend": row["pxname"],
            "name": row["svname"],
            "state": _state(admin.get((row["pxname"], row["svname"]), 0)),
            "status": row["status"],
            "sessions": int(row["scur"] or 0) + int(row["qcur"] or 0),
            # "UP 1/3" is about to go down, or has just come up.
            "healthy": row["status"] in ("UP", "DRAIN", "no check"),
        }
        for row in csv.DictReader(stat.removeprefix("# ").splitlines())
        if row["svname"] not in ("FRONTEND", "BACKEND")
    ]


def _state(bits: int) -> str:
    return "maint" if bits & MAINT else "drain" if bits & DRAIN else "ready"


def serves(server: Mapping[str, Any]) -> bool:
    """Whether HAProxy sends it new requests."""
    return server["state"] == "ready" and server["status"].startswith(("UP", "no check"))


def alone(servers: Iterable[Mapping[str, Any]], leaving: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Name the backends that would have nobody left to serve them without the servers that leave."""
    left = {server["backend"] for server in servers if serves(server) and server not in leaving}
    return (server["backend"] for server in leaving if serves(server) and server["backend"] not in left)
