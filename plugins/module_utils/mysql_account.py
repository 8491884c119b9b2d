# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""What it takes to make an account as it is wanted. Nothing here talks to a server.

An account is a dictionary as in the option ``accounts`` of mysql_account. What the server has is None, or
``{"plugin", "stored" (bytes), "require_ssl" (bool), "privileges" (see mysql_grants)}``.
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


def statements(account: dict, have: dict | None, want: dict) -> list[tuple]:
    """``(statement, arguments)`` in order. ValueError where an account that has to be made lacks its password.

    The password is an argument and in no text; the server writes only its hash to the binary log.
    """
    who = (account["name"], account["host"])
    if account["state"] == "absent":
        return [("DROP USER %s@%s", who)] if have else []
    plugin, password = account["plugin"], account.get("password")
    parts, secret = "", ()
    same_plugin = have is not None and have["plugin"] == plugin
    if plugin == SOCKET:
        parts += "" if same_plugin else f" IDENTIFIED WITH {plugin}"
    elif password is not None and not (same_plugin and password_matches(have["stored"], password)):
        parts += f" IDENTIFIED WITH {plugin} BY %s"
        secret = (password,)
    elif password is None and not same_plugin:
        raise ValueError(f"{label(account)}: a password is needed to create it with {plugin}.")
    if (have is not None and have["require_ssl"]) != account["require_ssl"]:
        parts += " REQUIRE " + ("SSL" if account["require_ssl"] else "NONE")
    result = []
    if parts:
        result.append((("ALTER" if have else "CREATE") + " USER %s@%s" + parts, (*who, *secret)))
    for statement in grant_statements(have["privileges"] if have else {}, want):
        result.append((statement.replace("%", "%%") + " %s@%s", who))
    return result


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
