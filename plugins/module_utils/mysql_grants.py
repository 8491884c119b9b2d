# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""Privileges as data: what SHOW GRANTS says, what is wanted, and the statements in between. It talks to no server.

Privileges are a dictionary from level to a set of names. A level is ``(kind, database, object)``: kind is "" for
tables, else PROCEDURE, FUNCTION or LIBRARY; database and object are written as the server stores them, with "*" for
all. A name is in capitals; one on a column is ``SELECT (`column`)``. ALL PRIVILEGES is kept as the list of what it
stands for at its level, so that a list that happens to be complete is equal to it.
"""

from __future__ import annotations

import re

GLOBAL = ("", "*", "*")
NOT_IN_ALL = frozenset({"USAGE", "PROXY", "GRANT OPTION"})
TABLE = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES", "TRIGGER"}
    | {"CREATE VIEW", "SHOW VIEW"}
)
DATABASE = TABLE | {"CREATE ROUTINE", "ALTER ROUTINE", "EXECUTE", "EVENT", "CREATE TEMPORARY TABLES", "LOCK TABLES"}
ROUTINE = frozenset({"EXECUTE", "ALTER ROUTINE"})
COLUMN = frozenset({"SELECT", "INSERT", "UPDATE", "REFERENCES"})

_QUOTED = r"`(?:[^`]|``)+`"
_GRANT = re.compile(
    rf"GRANT (?P<privileges>(?:[^`]|{_QUOTED})+?) ON (?:(?P<kind>TABLE|PROCEDURE|FUNCTION|LIBRARY) )?"
    rf"(?P<database>\*|{_QUOTED})\.(?P<object>\*|{_QUOTED}) TO .*?(?P<option> WITH GRANT OPTION)?",
    re.DOTALL,
)
_PRIVILEGE = re.compile(rf"\s*(?P<name>[A-Za-z_ ]+?)\s*(?:\((?P<columns>(?:[^`)]|{_QUOTED})+)\))?\s*(?:,|$)")
_COLUMN = re.compile(rf"\s*({_QUOTED}|[^`,\s]+)\s*(?:,|$)")
_NAME = rf"\*|(?!`\*`){_QUOTED}|[^`.*\s]+"
_LEVEL = re.compile(
    rf"(?:(?P<kind>PROCEDURE|FUNCTION|LIBRARY)\s+)?(?P<database>{_NAME})\.(?P<object>{_NAME})", re.IGNORECASE
)


def _unquote(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _quote(name: str) -> str:
    return name if name == "*" else "`" + name.replace("`", "``") + "`"


def level_name(level: tuple) -> str:
    """The level as it stands in a GRANT statement, and in a diff."""
    kind, database, thing = level
    return f"{kind} {_quote(database)}.{_quote(thing)}".lstrip()


def _all_of(level: tuple, known: frozenset) -> frozenset:
    kind, _database, thing = level
    if kind:
        return ROUTINE if kind != "LIBRARY" else frozenset({"EXECUTE"})
    if level == GLOBAL:
        return known - NOT_IN_ALL
    return DATABASE if thing == "*" else TABLE


def _privileges(text: str, level: tuple, known: frozenset, strict: bool) -> frozenset:
    """The names in one list of GRANT. If ``strict``, ValueError quotes what cannot be granted at this level."""
    allowed = _all_of(level, known)
    found = set()
    position = 0
    while position < len(text):
        match = _PRIVILEGE.match(text, position)
        if not match:
            raise ValueError(f"{text[position:]!r} is not a privilege")
        position = match.end()
        name = " ".join(match["name"].upper().split())
        if match["columns"]:
            if strict and (name not in COLUMN or level[0] or level[2] == "*"):
                raise ValueError(f"{name!r} cannot be limited to columns at {level_name(level)}")
            found.update(f"{name} ({_quote(_unquote(column))})" for column in _COLUMN.findall(match["columns"]))
        elif name in ("ALL", "ALL PRIVILEGES"):
            found |= allowed
        elif name == "USAGE":
            continue
        elif name in allowed or name == "GRANT OPTION" or not strict:
            found.add(name)
        else:
            takes = "see SHOW PRIVILEGES" if level == GLOBAL else f"it takes {', '.join(sorted(allowed))}"
            where = "is not a privilege of this server" if name not in known else "has no meaning at this level"
            raise ValueError(f"{name!r} {where}; {takes}")
    return frozenset(found)


def parse_grants(lines: list[str], known: frozenset) -> dict:
    """Privileges from the lines of SHOW GRANTS; ``known`` are the names that SHOW PRIVILEGES lists.

    Granted roles, PROXY and partial revokes are not this collection's business and are left out.
    """
    privileges: dict = {}
    for line in lines:
        match = _GRANT.fullmatch(line)
        if not match or match["privileges"] == "PROXY":
            continue
        kind = "" if match["kind"] in (None, "TABLE") else match["kind"]
        level = (kind, _unquote(match["database"]), _unquote(match["object"]))
        names = _privileges(match["privileges"], level, known, strict=False)
        if match["option"]:
            names |= {"GRANT OPTION"}
        if names:
            privileges[level] = privileges.get(level, frozenset()) | names
    return privileges


def wanted_privileges(wanted: dict, known: frozenset, literal: bool = False) -> dict:
    r"""Privileges from a dictionary like ``{"guestbook.*": ["SELECT"]}``. ValueError quotes key and value.

    A name means itself: GRANT takes ``_`` and ``%`` in a database's name for wildcards (MySQL manual, GRANT statement),
    so they are escaped: ``my_app.*`` becomes ``my\_app.*`` and does not open ``my2app``. ``literal`` says that
    partial_revokes is on: then the server takes no wildcards, and no escapes either. On a single table or routine it
    never does.
    """
    privileges: dict = {}
    for key, names in wanted.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key}: {names!r} is not a list of privileges")
        match = _LEVEL.fullmatch(key.strip())
        if (
            not match
            or (match["database"] == "*" and match["object"] != "*")
            or (match["kind"] and "*" in match["object"])
        ):
            raise ValueError(f"{key!r} is no level: write *.*, database.*, database.table or PROCEDURE database.name")
        database, thing = _unquote(match["database"]), _unquote(match["object"])
        if thing == "*" and database != "*" and not literal:
            database = re.sub(r"([_%])", r"\\\1", database)
        level = ((match["kind"] or "").upper(), database, thing)
        try:
            found = _privileges(",".join(names), level, known, strict=True)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        if found:
            privileges[level] = privileges.get(level, frozenset()) | found
    return privileges


def grant_statements(have: dict, want: dict) -> list[str]:
    """The GRANT and REVOKE statements that turn ``have`` into ``want``, less the account, which follows each.

    GRANT comes before REVOKE, so that an account in use never lacks a privilege that it has before and after.
    """
    statements = []
    for verb, preposition, base, goal in (("GRANT", "TO", have, want), ("REVOKE", "FROM", want, have)):
        for level in sorted(goal):
            missing = goal[level] - base.get(level, frozenset())
            # REVOKE takes every privilege together with GRANT OPTION for REVOKE ALL, which empties the other levels, too.
            apart = {"GRANT OPTION"} if verb == "REVOKE" else frozenset()
            for names in (missing - apart, missing & apart):
                if names:
                    statements.append(f"{verb} {', '.join(sorted(names))} ON {level_name(level)} {preposition}")
    # Dynamic privileges, the ones with an underscore, keep a GRANT OPTION that is revoked alone: they are given anew.
    have_global, want_global = (privileges.get(GLOBAL, frozenset()) for privileges in (have, want))
    again = ", ".join(sorted(name for name in have_global & want_global if "_" in name))
    if again and "GRANT OPTION" in have_global - want_global:
        statements.insert(0, f"REVOKE {again}, GRANT OPTION ON *.* FROM")
        statements.append(f"GRANT {again} ON *.* TO")
    return statements


def readable(privileges: dict, known: frozenset) -> dict:
    """Privileges for people: level to sorted list, with ALL PRIVILEGES for a complete one."""
    result = {}
    for level, names in sorted(privileges.items()):
        whole = _all_of(level, known)
        rest = sorted(names - whole) if names >= whole else sorted(names)
        result[level_name(level)] = ["ALL PRIVILEGES", *rest] if names >= whole else rest
    return result
