# -*- coding: utf-8 -*-
# Copyright (c) The foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What sshd's settings, as ``sshd -T`` prints them, mean for one user who wants to come back.

References are to sshd_config(5).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

Settings = Mapping[str, list[str]]

# A key in authorized_keys, after its options.
_KEY = re.compile(r"(?:^|\s)((?:webauthn-)?(?:sk-)?(?:ssh|ecdsa)-\S+)\s+AAAA")
_COMPARABLE = ("ciphers", "kexalgorithms", "macs", "permitrootlogin")


class Session(NamedTuple):
    """A login over ssh: who came, from which address to which of the host's, and the groups of that user."""

    user: str
    uid: int
    home: str
    groups: list[str]
    address: str
    server: str
    port: int


def parse(text: str) -> dict[str, list[str]]:
    """Return the settings that ``sshd -T`` printed: keyword in lower case -> its values, in order.

    OpenSSH 10.6 prints yes and no as true and false in some places.
    """
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        value = {"true": "yes", "false": "no"}.get(value, value.strip())
        settings.setdefault(keyword.lower(), []).append(value)
    return settings


def key_files(session: Session, settings: Settings) -> list[str]:
    """Return the paths in which sshd looks for the keys of a user."""
    paths = " ".join(settings.get("authorizedkeysfile", [])).split()
    tokens = {"%%": "%", "%h": session.home, "%u": session.user, "%U": str(session.uid)}
    expanded = [re.sub("%[%huU]", lambda match: tokens[match.group()], path) for path in paths if path != "none"]
    return [path if path.startswith("/") else f"{session.home}/{path}" for path in expanded]


def key_types(text: str) -> set[str]:
    """Return the types of the keys in an authorized_keys file."""
    return {match.group(1) for line in text.splitlines() if not line.startswith("#") and (match := _KEY.search(line))}


def reasons_for_lockout(session: Session, settings: Settings, keys: set[str]) -> list[str]:
    """Say why a user who is logged in now would not be let in again; an empty list when nothing speaks against it.

    settings: those that would be in force for this user and address
    keys:     types of the keys that the user has in the files of ``key_files``

    What cannot be known here, such as which of the keys the client holds, only a new connection shows.
    """

    def first(keyword: str, default: str = "no") -> str:
        return settings.get(keyword, [default])[0]

    def every(keyword: str) -> list[str]:
        return " ".join(settings.get(keyword, [])).split()

    reasons = []
    user, groups = session.user, ", ".join(session.groups)
    ports = every("port")
    if ports and str(session.port) not in ports:
        reasons.append(f"sshd would listen on port {', '.join(ports)}, and this connection came by {session.port}")
    for keyword in ("denyusers", "allowusers"):
        patterns = every(keyword)
        if patterns and _user_in(session, patterns) == (keyword == "denyusers"):
            reasons.append(f"{keyword} {' '.join(patterns)} keeps {user} out")
    for keyword in ("denygroups", "allowgroups"):
        patterns = every(keyword)
        named = any(fnmatchcase(group, pattern) for group in session.groups for pattern in patterns)
        if patterns and named == (keyword == "denygroups"):
            reasons.append(f"{keyword} {' '.join(patterns)} keeps {user} out, who is in {groups}")

    root = first("permitrootlogin") if session.uid == 0 else "yes"
    if root in ("no", "forced-commands-only"):
        reasons.append(f"PermitRootLogin is {root}: connect as another user who may become root")
    by_password = root == "yes" and "yes" in (first("passwordauthentication"), first("kbdinteractiveauthentication"))
    elsewhere = any(first(k, "none") != "none" for k in ("authorizedkeyscommand", "trustedusercakeys"))
    usable = elsewhere or any(_accepted(key, first("pubkeyacceptedalgorithms", "")) for key in keys)
    if not by_password and not (first("pubkeyauthentication") == "yes" and usable):
        where = " or ".join(key_files(session, settings)) or "any file"
        reasons.append(f"{user} has no key that is accepted in {where}, and passwords are not: add a key first")
    return reasons


def overruled(text: str, settings: Settings) -> list[str]:
    """Name the settings of a fragment that are not in force, because another file has set them first.

    Only yes, no, PermitRootLogin and lists of algorithms are compared: the rest sshd prints in another form than it reads.
    """
    wanted: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        name, value = (*line.split(None, 1), "", "")[:2]
        if name.lower() == "match":
            break
        if value and not name.startswith("#"):
            wanted.setdefault(name.lower(), (name, value.strip()))
    found = []
    for keyword, (name, value) in wanted.items():
        actual = settings.get(keyword, [value])[0].replace("without-password", "prohibit-password")
        if (value in ("yes", "no") or (keyword in _COMPARABLE and value[0] not in "+-^")) and actual != value:
            found.append(f"{name} is {actual}, not {value}")
    return found


def _user_in(session: Session, patterns: Iterable[str]) -> bool:
    """Match USER and USER@HOST, where HOST is a pattern of addresses or a network."""
    for pattern in patterns:
        user, _at, host = pattern.partition("@")
        if fnmatchcase(session.user, user) and (not host or _address_in(session.address, host)):
            return True
    return False


def _address_in(address: str, pattern: str) -> bool:
    if "/" not in pattern:
        return fnmatchcase(address, pattern)
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False


def _accepted(key: str, algorithms: str) -> bool:
    """RSA keys sign with other algorithms than their type is named for."""
    names = {"ssh-rsa": {"rsa-sha2-256", "rsa-sha2-512"}}.get(key, {key})
    return not algorithms or bool(names & set(algorithms.split(",")))
