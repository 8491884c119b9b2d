# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Networks and the regions they are in: tables and country databases, compiled to a map for HAProxy.

An address is one number of 128 bits here, an IPv4 address that of its place in IPv6, ::ffff:0:0/96 (RFC 4291, 2.5.5.2).
A span is (first address, last address, region, origin); one without a region is known to be in none.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, NamedTuple

IPV4 = 0xFFFF << 32
IPV4_END = IPV4 + 2**32 - 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 10  # faults of one file

Origin = Any
Span = tuple[int, int, "str | None", Origin]


class Layout(NamedTuple):
    """Columns of a country database: the network, or its first and last address; what says the country, in order of preference."""

    network: tuple[int, ...]
    country: tuple[int, ...]
    header: bool
    by_geoname: bool = False


class Faults:
    """Sentences, and of one file only the first."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._of_file: dict[Any, int] = {}

    def add(self, sentence: str, file: Any = None) -> None:
        count = self._of_file[file] = self._of_file.get(file, 0) + 1
        if file is None or count <= SHOWN:
            self.sentences.append(sentence)

    def all(self) -> list[str]:
        more = [
            f"{file} has {count - SHOWN} faults more" for file, count in self._of_file.items() if file and count > SHOWN
        ]
        return self.sentences + more


def compile_map(
    regions: list[Mapping[str, Any]],
    default: str,
    tables: Iterable[str | Path] = (),
    databases: Iterable[str | Path] = (),
) -> tuple[list[str], list[str]]:
    """Return the lines of a map, "network region" each, and one sentence for each fault. With faults there are no lines.

    regions is a list of {name, countries, networks}, whose countries are ISO 3166-1 codes of two letters. A table is a CSV file of
    network,region. A database is a CSV file, .gz too, of first address,last address,country (DB-IP, IP2Location), or of network and country
    with a header (GeoLite2 with its Locations, IPinfo). Where networks lie in each other, the smaller one counts; networks and tables
    count before databases. The networks of the map do not overlap, and neighbours of one region are one. Linear in the rows of sorted files.
    """
    faults = Faults()
    names = [region["name"] for region in regions]
    databases = list(databases)
    for sentence in _region_faults(regions, default, databases):
        faults.add(sentence)
    own = _flatten(list(chain(_listed_networks(regions, faults), _table_networks(tables, names, faults))), faults)
    countries = {str(code): region["name"] for region in regions for code in region.get("countries", ())}
    found = _flatten(_database_networks(databases, countries, faults), faults)
    if faults.sentences:
        return [], faults.all()
    return [
        f"{_text(first, size)} {region}"
        for first, last, region in _joined(_laid_over(own, found))
        for first, size in _blocks(first, last)
    ], []


# Faults of the variables


def _region_faults(regions: list[Mapping[str, Any]], default: str, databases: list[str | Path]) -> Iterator[str]:
    names = [region["name"] for region in regions]
    owner: dict[str, str] = {}
    for index, name in enumerate(names):
        if not NAME.fullmatch(name):
            yield f"haproxy_regions[{index}].name is {name!r}: use letters, digits, '.', '_' and '-' only, and begin with a letter or digit"
        if name in names[:index]:
            yield f"haproxy_regions[{index}].name is {name!r}, as is that of another: give each a name of its own"
    for region in regions:
        where = f"haproxy_regions[{region['name']}].countries"
        for code in map(str, region.get("countries", ())):
            if not re.fullmatch("[A-Z]{2}", code):
                hint = " ('NO' in quotes is Norway)" if code == "False" else ""
                yield f"{where} has {code!r}: give a country's two capital letters, such as DE{hint}"
            elif owner.setdefault(code, region["name"]) != region["name"]:
                yield f"{where} has {code}, which is in {owner[code]!r} too: keep it in one"
        if region.get("countries") and not databases:
            yield f"{where} is given, but haproxy_country_databases is []: name the CSV files that say where a country's networks are"
    if default not in names:
        yield f"haproxy_default_region is {default!r}, which is none of haproxy_regions: name the region of everybody else ({_listed(names)})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "there are none"


# Reading


def _address(text: str) -> int:
    """Raises ValueError or OSError."""
    if ":" in text:
        return int.from_bytes(inet_pton(AF_INET6, text), "big")
    return IPV4 + int.from_bytes(inet_pton(AF_INET, text), "big")


def network(text: str) -> tuple[int, int]:
    """Return the first and the last address of a network or an address; raise ValueError with what would be right."""
    address, slash, length = text.partition("/")
    width = 128 if ":" in address else 32
    try:
        first = _address(address)
    except (ValueError, OSError):
        first = -1
    if first < 0 or (slash and not (length.isascii() and length.isdigit() and int(length) <= width)):
        raise ValueError("give a network, such as 192.0.2.0/24 or 2001:db8::/32")
    size = 1 << width - (int(length) if slash else width)
    if first & size - 1:
        raise ValueError(f"the network is {_text(first & -size, size)}, and the address alone has no /{length}")
    last = first + size - 1
    return first, last


def _listed_networks(regions: Iterable[Mapping[str, Any]], faults: Faults) -> Iterator[Span]:
    for region in regions:
        where = f"haproxy_regions[{region['name']}].networks"
        for text in region.get("networks", ()):
            try:
                yield (*network(text), region["name"], (where, None))
            except ValueError as error:
                faults.add(f"{where} has {text!r}: {error}")


@contextmanager
def _open(path: str | Path, faults: Faults) -> Iterator[Any]:
    """A file as lines of text. What cannot be read of it is a fault."""
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
            yield file
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        faults.add(f"{path} cannot be read: {error}: give a whole CSV file, and name it .gz only if it is compressed")


def _table_networks(tables: Iterable[str | Path], names: list[str], faults: Faults) -> Iterator[Span]:
    for path in tables:
        rows = 0
        with _open(path, faults) as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                fields = [field.strip() for field in text.split(",")]
                if not text or text.startswith("#") or (not rows and fields == ["network", "region"]):
                    continue
                rows += 1
                where = f"{path}, line {number} is {text!r}"
                try:
                    if len(fields) != 2:
                        raise ValueError("give network,region, such as 192.0.2.0/24,eu")
                    first, last = network(fields[0])
                    if fields[1] not in names:
                        raise ValueError(f"{fields[1]!r} is none of haproxy_regions ({_listed(names)})")
                    yield first, last, fields[1], (path, number)
                except ValueError as error:
                    faults.add(f"{where}: {error}", path)
            if not rows:
                faults.add(f"{path} is empty: give lines of network,region, such as 192.0.2.0/24,eu")


def _database_networks(databases: list[str | Path], countries: Mapping[str, str], faults: Faults) -> list[Span]:
    layouts: dict[str | Path, Layout] = {}
    geonames: dict[str, str] = {}
    for path in databases:
        with _open(path, faults) as file:
            rows = csv.reader(file)
            first = next(rows, [])
            columns = {name.strip().lower(): index for index, name in enumerate(first)}
            if "network" not in columns and {"geoname_id", "country_iso_code"} <= set(columns):
                for row in rows:
                    if len(row) == len(first):
                        geonames[row[columns["geoname_id"]]] = row[columns["country_iso_code"]]
                    elif row:
                        faults.add(
                            f"{path}, line {rows.line_num} is {','.join(row)!r}: give {len(first)} columns", path
                        )
            elif (layout := _layout(first, columns)) is not None:
                layouts[path] = layout
            else:
                given = "empty" if not first else f"no country database, it begins with {','.join(first)!r}"
                faults.add(
                    f"{path} is {given}: give rows of first address,last address,country or of GeoLite2-Country-Blocks"
                )
    spans: list[Span] = []
    seen: set[str] = set()
    for path, layout in layouts.items():
        codes = geonames if layout.by_geoname else None
        if codes == {}:
            faults.add(
                f"{path} names countries by number: give GeoLite2-Country-Locations-en.csv in haproxy_country_databases too"
            )
        else:
            _read_database(path, layout, codes, countries, spans, seen, faults)
    if seen:
        for code in sorted(set(countries) - seen):
            if re.fullmatch("[A-Z]{2}", code):
                faults.add(
                    f"haproxy_regions[{countries[code]}].countries has {code}, which is in no country database: give its ISO 3166-1 code"
                )
    return spans


def _layout(first: list[str], columns: Mapping[str, int]) -> Layout | None:
    """Tell a country database's columns by its first row."""

    def named(*names: str) -> tuple[int, ...]:
        return tuple(columns[name] for name in names if name in columns)

    country = named("country_iso_code", "country_code", "country")[:1]
    if "network" in columns and "geoname_id" in columns:
        return Layout(
            named("network"), named("geoname_id", "registered_country_geoname_id"), header=True, by_geoname=True
        )
    if "network" in columns and country:
        return Layout(named("network"), country, header=True)
    ends = named("start_ip", "end_ip") or named("ip_from", "ip_to")
    if len(ends) == 2 and country:
        return Layout(ends, country, header=True)
    if len(first) >= 3 and all(
        re.fullmatch("[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", text.strip()) for text in first[:2]
    ):
        return Layout((0, 1), (2,), header=False)
    return None


def _read_database(
    path: str | Path,
    layout: Layout,
    geonames: Mapping[str, str] | None,
    countries: Mapping[str, str],
    spans: list[Span],
    seen: set[str],
    faults: Faults,
) -> None:
    begin, end = layout.network[0], layout.network[-1]
    column, other = layout.country[0], layout.country[-1]
    rows = 0
    with _open(path, faults) as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or (layout.header and number == 1):
                continue
            rows += 1
            try:
                first, last = network(row[begin]) if begin == end else _range(row[begin], row[end])
                code = row[column] or row[other]
                if geonames is not None:
                    code = geonames.get(code, "")
                elif len(code) != 2 and code not in ("", "-"):
                    raise ValueError(f"{code!r} is no country: give its two capital letters")
            except (ValueError, OSError, IndexError) as error:
                wrong = (
                    error
                    if error.__class__ is ValueError
                    else "give rows of first address,last address,country, or network and country"
                )
                faults.add(f"{path}, line {number} is {','.join(row)!r}: {wrong}", path)
                continue
            seen.add(code)
            spans.append((first, last, countries.get(code), (path, number)))
        if not rows:
            faults.add(f"{path} is empty: give rows of networks and countries")


def _range(begin: str, end: str) -> tuple[int, int]:
    """Return two addresses, each as text or as a number (IP2Location), which is of IPv4 where the last is below 2^32."""
    if end.isdigit():
        first, last = int(begin), int(end)
        if last < 2**32:
            first, last = IPV4 + first, IPV4 + last
    else:
        first, last = _address(begin), _address(end)
    if first > last or last >= 2**128 or (IPV4 <= first <= IPV4_END) != (IPV4 <= last <= IPV4_END):
        raise ValueError("give the first address, then the last one of the same kind")
    return first, last


# Computing


def _flatten(spans: list[Span], faults: Faults) -> list[tuple[int, int, str | None]]:
    """Let the smaller of two networks that lie in each other count; return spans that do not overlap, in order."""
    of_ipv4, others = (
        [span for span in spans if (span[0] >= IPV4 and span[1] <= IPV4_END) is ipv4] for ipv4 in (True, False)
    )
    return sorted(chain(_nested(of_ipv4, faults), _without_ipv4(_nested(others, faults))), key=lambda span: span[0])


def _without_ipv4(spans: Iterable[tuple[int, int, str | None]]) -> Iterator[tuple[int, int, str | None]]:
    """A network of IPv6 says nothing of IPv4, however large it is."""
    for first, last, region in spans:
        if first < IPV4 and last > IPV4_END:
            yield first, IPV4 - 1, region
            yield IPV4_END + 1, last, region
        else:
            yield first, last, region


def _nested(spans: list[Span], faults: Faults) -> list[tuple[int, int, str | None]]:
    spans.sort(key=lambda span: span[0])
    if all(span[1] < following[0] for span, following in pairwise(spans)):
        return [span[:3] for span in spans]
    networks: dict[tuple[int, int], Span] = {}
    for span in spans:
        for start, size in _blocks(*span[:2]):
            other = networks.setdefault((start, -size), span)
            if other[1] - other[0] > span[1] - span[0]:
                networks[start, -size] = span
            elif other[1] - other[0] == span[1] - span[0] and other[2] != span[2]:
                here, there = (
                    f"{region or 'no region'} by {_named(origin)}" for _first, _last, region, origin in (span, other)
                )
                faults.add(f"{_text(start, size)} is in {there} and in {here}: keep one", span[3][0])
    flat: list[tuple[int, int, str | None]] = []
    around: list[tuple[int, str | None]] = []  # the last addresses and regions of the networks that we are in
    position = 0

    def leave(until: int) -> None:
        nonlocal position
        while around and around[-1][0] < until:
            last, region = around.pop()
            if position <= last:
                flat.append((position, last, region))
                position = last + 1

    for (start, size), (_first, _last, region, _origin) in sorted(networks.items(), key=lambda item: item[0]):
        leave(start)
        if around and position < start:
            flat.append((position, start - 1, around[-1][1]))
        position = start
        around.append((start - size - 1, region))
    leave(2**128)
    return flat


def _named(origin: Origin) -> str:
    where, line = origin
    return f"{where}, line {line}" if line else where


def _laid_over(
    upper: list[tuple[int, int, str | None]], lower: list[tuple[int, int, str | None]]
) -> list[tuple[int, int, str | None]]:
    """Return what is seen of both from above, in order."""
    if not upper:
        return lower
    seen = list(upper)
    index = 0
    for first, last, region in lower:
        while index < len(upper) and upper[index][1] < first:
            index += 1
        while index < len(upper) and upper[index][0] <= last:
            if first < upper[index][0]:
                seen.append((first, upper[index][0] - 1, region))
            first = upper[index][1] + 1
            if upper[index][1] > last:
                break
            index += 1
        if first <= last:
            seen.append((first, last, region))
    seen.sort(key=lambda span: span[0])
    return seen


def _joined(spans: Iterable[tuple[int, int, str | None]]) -> Iterator[tuple[int, int, str]]:
    """Join neighbours of one region, and leave out what is in none."""
    begin, end, of = 0, -1, None
    for first, last, region in spans:
        if region == of and first == end + 1 and first not in (IPV4, IPV4_END + 1):
            end = last
            continue
        if of is not None:
            yield begin, end, of
        begin, end, of = first, last, region
    if of is not None:
        yield begin, end, of


def _blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Cut a span into the fewest networks: their first addresses and sizes."""
    while first <= last:
        size = first & -first or 2**128
        room = last - first + 1
        if size > room:
            size = 1 << room.bit_length() - 1
        yield first, size
        first += size


def _text(first: int, size: int) -> str:
    prefix = 129 - size.bit_length()
    if IPV4 <= first <= IPV4_END and prefix >= 96:
        return f"{first >> 24 & 255}.{first >> 16 & 255}.{first >> 8 & 255}.{first & 255}/{prefix - 96}"
    return f"{inet_ntop(AF_INET6, first.to_bytes(16, 'big'))}/{prefix}"
