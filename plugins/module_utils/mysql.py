# Copyright: the foobar.webstack founders
# SPDX-License-Identifier: MIT
"""The local MySQL server as the modules of this collection see it: one connection by socket, rows as dictionaries."""

from __future__ import annotations

import os
import ssl
import traceback

from ansible.module_utils.basic import missing_required_lib

try:
    import pymysql
    import pymysql.cursors

    PYMYSQL_ERROR = None
except ImportError:
    pymysql = None
    PYMYSQL_ERROR = traceback.format_exc()

OLDEST = (8, 4)
CONNECT_TIMEOUT = 10  # seconds
LOCK_TIMEOUT = 60  # seconds
LOGIN = {
    "login_unix_socket": {"type": "path", "default": "/run/mysqld/mysqld.sock"},
    "login_user": {"type": "str", "default": "root"},
}


class MySQLError(Exception):
    """What the server, or the way to it, answered.

    ``number`` is the server's or the client library's error number: 0 where there is none, 2026 for every TLS fault.
    """

    def __init__(self, number: int, text: str):
        super().__init__(f"MySQL error {number}: {text}" if number else text)
        self.number = number
        self.text = text

    @classmethod
    def of(cls, error: BaseException) -> MySQLError:
        number, text = (*error.args, "", "")[:2]
        cause = getattr(error, "original_exception", None) or error.__cause__
        if isinstance(error, ssl.SSLError) or isinstance(cause, ssl.SSLError):
            return cls(2026, str(cause or error))
        return cls(number, str(text)) if isinstance(number, int) else cls(0, str(error))


class Server:
    """A connection that answers queries with lists of dictionaries and raises only MySQLError."""

    def __init__(self, **where):
        where = {"connect_timeout": CONNECT_TIMEOUT, "charset": "utf8mb4", "autocommit": True, **where}
        try:
            self._connection = pymysql.connect(cursorclass=pymysql.cursors.DictCursor, **where)
        except (pymysql.MySQLError, OSError) as error:
            raise MySQLError.of(error) from error
        # How SHOW GRANTS quotes names depends on the first two. The default of the third is a year.
        self.query(f"SET SESSION sql_mode = '', sql_quote_show_create = 1, lock_wait_timeout = {LOCK_TIMEOUT}")

    def query(self, statement: str, arguments: tuple | None = None) -> list[dict]:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, arguments)
                return list(cursor.fetchall())
        except (pymysql.MySQLError, OSError) as error:
            raise MySQLError.of(error) from error

    def row(self, statement: str, arguments: tuple | None = None) -> dict | None:
        rows = self.query(statement, arguments)
        return rows[0] if rows else None

    def value(self, statement: str, arguments: tuple | None = None):
        return next(iter(self.row(statement, arguments).values()))

    def close(self) -> None:
        self._connection.close()


def tls(ca: str | None, verify: bool) -> ssl.SSLContext:
    """A context that accepts what mysqld accepts: the chain up to ``ca`` if given, the name or address if ``verify``.

    Python 3.13 and later also want key usage extensions of a CA (RFC 5280, 4.2.1.3); mysqld does not.
    """
    context = ssl.create_default_context(cafile=ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = verify
    if not (ca or verify):
        context.verify_mode = ssl.CERT_NONE
    return context


def unsupported(version: str) -> str | None:
    """Why a server with this ``VERSION()`` is refused, or None."""
    if "mariadb" in version.lower():
        return (
            f"the server is MariaDB ({version}): its GTIDs, accounts and seeding differ from MySQL's. "
            "Install MySQL 8.4 or later from the distribution or from Oracle's repository."
        )
    try:
        number = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
    except ValueError:
        return f"the server's version {version!r} is not MySQL's"
    if number < OLDEST:
        return f"the server is MySQL {version}; MySQL 8.4 or later is needed."
    return None


def not_installed_yet(module) -> bool:
    """True in check mode on a host where an earlier task would have installed PyMySQL and started the server."""
    return module.check_mode and (pymysql is None or not os.path.exists(module.params["login_unix_socket"]))


def connect_locally(module) -> Server:
    """The server behind the module's socket, or the end of the module with what to do about it."""
    if pymysql is None:
        module.fail_json(msg=missing_required_lib("PyMySQL (Debian: python3-pymysql)"), exception=PYMYSQL_ERROR)
    socket, user = module.params["login_unix_socket"], module.params["login_user"]
    try:
        server = Server(unix_socket=socket, user=user)
        reason = unsupported(server.value("SELECT VERSION()"))
    except MySQLError as error:
        module.fail_json(msg=f"Cannot log in as {user!r} through login_unix_socket={socket!r}: {error}")
    if reason:
        module.fail_json(msg=f"Not supported: {reason}")
    return server


def literal_name(name: str) -> str:
    """A name between backquotes, safe in a statement that is formatted with arguments."""
    return "`" + name.replace("`", "``").replace("%", "%%") + "`"
