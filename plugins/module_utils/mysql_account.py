# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What it takes to make an account as it is wanted. Nothing here talks to a server.

An account is a dictionary as in the option ``accounts`` of mysql_account. What the server has is None, or
``{"plugin", "stored" (bytes), "old" (bytes), "require_ssl" (bool), "privileges" (see mysql_grants)}``. ``old`` is what is stored of
the password that was there before and is still valid; empty where there is none (MySQL manual, "Password Management", dual passwords).
"""

from __future__ import annotations

from ansible_collections.foobar.webstack.plugins.module_utils.mysql_grants import grant_statements, readable
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_password import password_matches

NAME_LENGTH, HOST_LENGTH = 32, 255  # MySQL manual, "CREATE USER Statement"
SOCKET, SHA2 = "auth_socket", "caching_sha2_password"


def complete(account: dict) -> dict:
    """The account with the defaults that depend on its plugin: auth_socket is for this host and has no TLS."""
    by_socket = account["plugin"] == SOCKET
    host = account.get("host") or ("localhost" if by_socket else "%")
    return {**account, "host": host, "require_ssl": account["require_ssl"] and not by_socket}


def label(account: dict) -> str:
    return f"{account['name']}@{account['host']}"


def faults(accounts: list[dict]) -> list[str]:
    """Everything that is wrong with the input as such, one sentence each."""
    found, seen = [], set()
    for account in accounts:
        who, by_socket, password = label(account), account["plugin"] == SOCKET, account.get("password")
        if who in seen:
            found.append(f"{who} stands twice in accounts.")
        seen.add(who)
        if not 0 < len(account["name"]) <= NAME_LENGTH or len(account["host"]) > HOST_LENGTH:
            found.append(f"{who}: a name has 1 to {NAME_LENGTH} characters, a host at most {HOST_LENGTH}.")
        if by_socket and account["host"] != "localhost":
            found.append(f"{who}: {SOCKET} serves only host localhost.")
        if by_socket and password is not None:
            found.append(f"{who}: {SOCKET} takes no password.")
        if password == "":
            found.append(f"{who}: the password is empty.")
    return found


def password_statements(account: dict, have: dict | None) -> tuple[str, tuple, bool]:
    """``(clause of CREATE or ALTER USER, its arguments, whether the old password is to be discarded after it)``.

    A server knows two passwords of an account at most. With a third one, whoever uses the older one would be shut out: ValueError.
    """
    plugin, password, retain = account["plugin"], account.get("password"), account["old_password"] == "retain"  # noqa: S105
    same_plugin = have is not None and have["plugin"] == plugin
    if plugin == SOCKET:
        return "" if same_plugin else f" IDENTIFIED WITH {plugin}", (), False
    if password is None and not same_plugin:
        raise ValueError(f"{label(account)}: a password is needed to create it with {plugin}.")
    old = have["old"] if same_plugin else b""
    discard = bool(old) and not retain
    if password is None or (same_plugin and password_matches(have["stored"], password)):
        return "", (), discard
    if old and retain and not password_matches(old, password):
        raise ValueError(
            f"{label(account)}: the server knows two passwords of it, and the given one is neither: clients may use either. "
            "Give the present password and old_password=discard once all clients use it (rotate_secrets.yml does that)."
        )
    clause = f" IDENTIFIED WITH {plugin} BY %s"
    return clause + (" RETAIN CURRENT PASSWORD" if same_plugin and retain else ""), (password,), discard


def statements(account: dict, have: dict | None, want: dict) -> list[tuple]:
    """``(statement, arguments)`` in order. ValueError where an account that has to be made lacks its password.

    The password is an argument and in no text; the server writes only its hash to the binary log.
    """
    who = (account["name"], account["host"])
    if account["state"] == "absent":
        return [("DROP USER %s@%s", who)] if have else []
    parts, secret, discard = password_statements(account, have)
    if (have is not None and have["require_ssl"]) != account["require_ssl"]:
        parts += " REQUIRE " + ("SSL" if account["require_ssl"] else "NONE")
    result = []
    if parts:
        result.append((("ALTER" if have else "CREATE") + " USER %s@%s" + parts, (*who, *secret)))
    if discard:
        result.append(("ALTER USER %s@%s DISCARD OLD PASSWORD", who))
    for statement in grant_statements(have["privileges"] if have else {}, want):
        result.append((statement.replace("%", "%%") + " %s@%s", who))
    return result


def probe(steps: list[tuple]) -> list[tuple]:
    """``(statement, arguments)`` that asks the server whether it takes the password that is to be set, and changes nothing.

    It creates the account that is there, or alters the one that is not: which the server refuses, with error 1819 where its policy
    rejects the password, which it looks at first. SELECT VALIDATE_PASSWORD_STRENGTH() would leave the password readable in
    performance_schema and in the general log.
    """
    return [
        (
            f"{'ALTER' if statement.startswith('CREATE') else 'CREATE'} USER %s@%s IDENTIFIED WITH {SHA2} BY %s",
            arguments,
        )
        for statement, arguments in steps
        if " BY %s" in statement
    ]


def passwords(steps: list[tuple], have: dict | None) -> tuple[dict, dict]:
    """What a diff shows of an account's passwords, before and after: that they change, never themselves."""
    said = " ".join(statement for statement, _arguments in steps)
    before = {"old_password": "valid"} if have and have["old"] else {}
    after = {} if "DISCARD OLD" in said else dict(before)
    if have and " BY %s" in said:
        after["password"] = "changed"  # noqa: S105
        if "RETAIN" in said:
            after["old_password"] = "valid"  # noqa: S105
    return before, after


def view(have: dict | None, known: frozenset) -> dict | None:
    """An account as a diff shows it: everything but the secret."""
    if have is None:
        return None
    return {
        "plugin": have["plugin"],
        "require_ssl": have["require_ssl"],
        "privileges": readable(have["privileges"], known),
    }


def shown(statement: str, who: str) -> str:
    """A statement as the result shows it."""
    return statement.replace("%s@%s", who).replace(" BY %s", " BY '...'").replace("%%", "%")
