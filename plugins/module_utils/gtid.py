# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Sets of MySQL's global transaction identifiers, compared without a server that could be asked.

A set is text as MySQL prints it, such as ``3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:5:tag:1,...`` (reference manual, "GTID
Sets"). Blanks and line ends in it mean nothing, an empty text is the empty set.
"""

from __future__ import annotations

import re

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"([1-9][0-9]{0,18})(?:-([1-9][0-9]{0,18}))?")

Intervals = list[tuple[int, int]]  # sorted, apart from each other, both ends included


class GtidSet:
    """An immutable set of transactions. ValueError where the text is none."""

    def __init__(self, text: str = ""):
        found: dict[tuple[str, str], Intervals] = {}
        for part in filter(None, re.sub(r"\s", "", text or "").lower().split(",")):
            uuid, *terms = part.split(":")
            tag = ""
            if not _UUID.fullmatch(uuid) or not terms:
                raise ValueError(f"{part!r} is no set of GTIDs, such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3")
            for term in terms:
                interval = _INTERVAL.fullmatch(term)
                if interval:
                    first, last = int(interval[1]), int(interval[2] or interval[1])
                    if first <= last:  # MySQL, too, takes 5-3 for nothing
                        found.setdefault((uuid, tag), []).append((first, last))
                elif _TAG.fullmatch(term):
                    tag = term
                else:
                    raise ValueError(f"{term!r} in {part!r} is neither an interval of transactions nor a tag")
        self._origins = {origin: _merge(intervals) for origin, intervals in found.items()}

    @classmethod
    def of(cls, origins: dict[tuple[str, str], Intervals]) -> GtidSet:
        """The set of intervals by their origins, each a UUID and a tag or ""."""
        result = cls()
        result._origins = {origin: _merge(intervals) for origin, intervals in origins.items() if intervals}
        return result

    def __or__(self, other: GtidSet) -> GtidSet:
        origins = {*self._origins, *other._origins}
        return self.of({o: self._origins.get(o, []) + other._origins.get(o, []) for o in origins})

    def __sub__(self, other: GtidSet) -> GtidSet:
        return self.of({o: _without(mine, other._origins.get(o, [])) for o, mine in self._origins.items()})

    def without(self, uuid: str) -> GtidSet:
        """The transactions that did not begin on the server with this UUID."""
        return self.of({origin: mine for origin, mine in self._origins.items() if origin[0] != uuid.lower()})

    def __le__(self, other: GtidSet) -> bool:
        """Whether the other set has all that is in this one."""
        return not self - other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and self._origins == other._origins

    def __hash__(self) -> int:
        return hash(str(self))

    def __bool__(self) -> bool:
        return bool(self._origins)

    def __len__(self) -> int:
        """How many transactions."""
        return sum(last - first + 1 for intervals in self._origins.values() for first, last in intervals)

    def __str__(self) -> str:
        """The set as MySQL prints it, on one line."""
        by_uuid: dict[str, list[str]] = {}
        for (uuid, tag), intervals in sorted(self._origins.items()):
            terms = [str(first) if first == last else f"{first}-{last}" for first, last in intervals]
            by_uuid.setdefault(uuid, []).append(":".join(([tag] if tag else []) + terms))
        return ",".join(f"{uuid}:{':'.join(terms)}" for uuid, terms in by_uuid.items())

    def __repr__(self) -> str:
        return f"GtidSet({str(self)!r})"


def _merge(intervals: Intervals) -> Intervals:
    merged: Intervals = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _without(mine: Intervals, others: Intervals) -> Intervals:
    left: Intervals = []
    for first, last in mine:
        for other_first, other_last in others:
            if other_last < first or other_first > last:
                continue
            if first < other_first:
                left.append((first, other_first - 1))
            first = other_last + 1
        if first <= last:
            left.append((first, last))
    return left
