"""Binary log files (MySQL manual, "Replication Protocol, Binary Log Event"): a magic number, then events with a header of 19 bytes.

A GTID event begins a transaction and says how long that is, so that a file is walked one transaction a step.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import Refused
from gtid import GtidSet

HEADER = struct.Struct("<IBIIIH")  # time, type, server id, size, position of the next event, flags
MAGIC = b"\xfebin"
GTID_EVENT, PREVIOUS_GTIDS_EVENT, TAGGED_GTID_EVENT = 33, 35, 42
LENGTHS = {252: 2, 253: 3, 254: 8}  # MySQL's packed integers: the first byte, and how many follow it


@dataclass
class Transaction:
    gtid: str
    committed: float  # seconds since 1970, on the server that it was first committed on
    end: int  # offset of the first byte after it


class Transactions:
    """A set that grows by one transaction after the other, as they stand in a binary log."""

    def __init__(self):
        self.origins: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def add(self, gtid: str) -> None:
        uuid, number = gtid.split(":")
        first = last = int(number)
        intervals = self.origins.setdefault((uuid, ""), [])
        if intervals and intervals[-1][1] + 1 == last:
            first = intervals.pop()[0]
        intervals.append((first, last))

    def gathered(self) -> GtidSet:
        return GtidSet.of(self.origins)


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _events(log: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, offset and size of each whole event. A caller sends the offset to go on at, to leave out what lies between."""
    if log[:4] != MAGIC:
        raise Refused("this is no binary log, or it is encrypted")
    offset = 4
    while offset + HEADER.size <= len(log):
        _time, kind, _server, size, _next, _flags = HEADER.unpack_from(log, offset)
        if size < HEADER.size:
            raise Refused(f"the binary log is damaged at byte {offset}")
        if offset + size > len(log):
            return
        skip = yield kind, offset, size
        if skip:
            yield 0, 0, 0  # the answer to send()
        offset = skip or offset + size


def previous_gtids(log: bytes) -> GtidSet:
    """The set of the file's second event: what the server's binary logs held before this file."""
    at = next((offset for kind, offset, _size in _events(log) if kind == PREVIOUS_GTIDS_EVENT), 0)
    if not at:
        return GtidSet()
    at += HEADER.size
    (origins,) = struct.unpack_from("<Q", log, at)
    if origins >> 56:
        raise Refused("its transactions have tagged GTIDs, which are not supported")
    at += 8
    found = {}
    for _origin in range(origins):
        uuid, intervals = _uuid(log[at : at + 16]), struct.unpack_from("<Q", log, at + 16)[0]
        at += 24
        pairs = [struct.unpack_from("<QQ", log, at + 16 * number) for number in range(intervals)]
        found[uuid, ""] = [(first, end - 1) for first, end in pairs]
        at += 16 * intervals
    return GtidSet.of(found)


def _gtid_event(log: bytes, offset: int) -> Transaction:
    body = offset + HEADER.size
    uuid, number = _uuid(log[body + 1 : body + 17]), struct.unpack_from("<Q", log, body + 17)[0]
    at = body + 42  # after the flags, the GTID and two logical timestamps
    times = int.from_bytes(log[at : at + 7], "little")
    at += 7
    if times >> 55:  # another server committed it first
        times = int.from_bytes(log[at : at + 7], "little")
        at += 7
    length, more = log[at], LENGTHS.get(log[at], 0)
    if more:
        length = int.from_bytes(log[at + 1 : at + 1 + more], "little")
    return Transaction(f"{uuid}:{number}", times / 1e6, offset + length)


def transactions(log: bytes) -> Iterator[Transaction]:
    """The transactions of a binary log in their order, without one at the end that is not there as a whole."""
    events = _events(log)
    for kind, offset, _size in events:
        if kind == TAGGED_GTID_EVENT:
            raise Refused("its transactions have tagged GTIDs, which are not supported")
        if kind == GTID_EVENT:
            transaction = _gtid_event(log, offset)
            if transaction.end > len(log):
                return
            yield transaction
            events.send(transaction.end)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= len(MAGIC):
            yield MAGIC
            return
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as log:
            yield log
