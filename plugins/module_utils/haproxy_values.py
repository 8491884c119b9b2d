# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The forms of the values in the variables of the role haproxy, and their way into its configuration."""

from __future__ import annotations

import ipaddress
import re
import warnings
from collections.abc import Iterable
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# RFC 9110, section 5.6.2, less what the configuration would take for its own
TOKEN = re.compile(r"[A-Za-z0-9._~-]+")
# One line of printable ASCII
LINE = re.compile(r"[ -~]*")
# Any text of several lines
TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*")
TIME = re.compile(r"[0-9]+(us|ms|s|m|h|d)?")

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "$": r"\$", "\n": r"\n", "\r": r"\r", "\t": r"\t"})


def quoted(text: Any) -> str:
    """One word of the configuration, whatever the text holds (Configuration Manual, 2.2)."""
    return f'"{str(text).translate(_ESCAPES)}"'


def formatted(text: Any) -> str:
    """The same where HAProxy expects a log-format: the text as it is, with nothing to be filled in."""
    return quoted(str(text).replace("%", "%%"))


def network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def regex_fault(regex: Any) -> str | None:
    """What is wrong with a regular expression, or None. Python knows all that is usual in PCRE."""
    text = str(regex)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # [[:alpha:]] is none of Python's, but PCRE's
            re.compile(text)
    except re.error as error:
        return str(error)
    return None if LINE.fullmatch(text) else "it is not printable ASCII in one line"


def items(value: Any) -> list[str]:
    """A list of texts, which may be given as its only element, or as numbers."""
    return [] if value is None else [str(item) for item in (value if isinstance(value, (list, tuple)) else [value])]


def true(value: bool | str | None) -> bool:
    return str(value).lower() in ("true", "yes", "on", "1", "1.0", "y", "t")


def listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "there are none"
