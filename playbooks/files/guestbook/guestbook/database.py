"""The two ways to the database: one for writing, one for reading.

Each way is an address behind which a proxy finds a node that can serve, so a connection is opened for one request and closed
after it: a failover needs no cleaning up, and costs one failed request at most. Every connection is encrypted, and the
node's certificate is verified against the name of the service, because the proxy's address says nothing about the node.
"""

import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pymysql

CONNECT_SECONDS = 2
ANSWER_SECONDS = 5
CATCH_UP_SECONDS = 1

log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """No node answers, or the one that does cannot serve."""


@dataclass(frozen=True)
class Port:
    """One way to the database."""

    name: str
    host: str
    port: int
    user: str
    password: str
    database: str
    tls: ssl.SSLContext
    tls_name: str

    @contextmanager
    def connection(self) -> Iterator[pymysql.Connection]:
        """Give a connection in a transaction, which is committed at the end.

        :raises UnavailableError: no node answered, was the one it should be, or could do its work
        """
        try:
            # PyMySQL verifies the certificate against `host`; the socket says where the node is really reached.
            with pymysql.connect(
                host=self.tls_name,
                user=self.user,
                password=self.password,
                database=self.database,
                ssl=self.tls,
                charset="utf8mb4",
                read_timeout=ANSWER_SECONDS,
                write_timeout=ANSWER_SECONDS,
                defer_connect=True,
            ) as connection:
                connection.connect(socket.create_connection((self.host, self.port), CONNECT_SECONDS))
                yield connection
                connection.commit()
        except (OSError, pymysql.err.OperationalError, pymysql.err.InterfaceError) as error:
            log.error("the %s port %s:%s: %s", self.name, self.host, self.port, error)
            raise UnavailableError(self.name) from error


@dataclass(frozen=True)
class Database:
    """Both ways to the database."""

    write: Port
    read: Port

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Database":
        """Take the addresses, accounts and certificate authority from GUESTBOOK_* variables."""
        authority = environment["GUESTBOOK_DB_CA"]
        tls = ssl.create_default_context(
            **{"cadata" if authority.startswith("-----BEGIN") else "cafile": authority},
        )

        def port(name: str) -> Port:
            url = urlsplit(environment[f"GUESTBOOK_{name.upper()}_URL"])
            return Port(
                name=name,
                host=url.hostname or "127.0.0.1",
                port=url.port or 3306,
                user=url.username or "guestbook",
                password=environment[f"GUESTBOOK_{name.upper()}_PASSWORD"],
                database=url.path.lstrip("/") or "guestbook",
                tls=tls,
                tls_name=environment["GUESTBOOK_DB_TLS_NAME"],
            )

        return cls(write=port("write"), read=port("read"))

    @contextmanager
    def reading(self, after: str | None = None) -> Iterator[pymysql.Connection]:
        """Give a connection for reading that has seen the transactions `after` (a GTID set).

        A replica may be a moment behind. It is given CATCH_UP_SECONDS to see what the visitor has written; then the write
        port, which has seen everything, is asked instead.
        """
        with ExitStack() as stack:
            connection = stack.enter_context(self.read.connection())
            if after and not self._has_seen(connection, after):
                connection = stack.enter_context(self.write.connection())
            yield connection

    @staticmethod
    def _has_seen(connection: pymysql.Connection, transactions: str) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (transactions, CATCH_UP_SECONDS))
            return cursor.fetchone() == (0,)

    def faults(self) -> dict[str, str]:
        """Try both ways; give those that fail, by name."""
        faults = {}
        for port in (self.write, self.read):
            try:
                with port.connection() as connection:
                    connection.ping(reconnect=False)
            except UnavailableError:
                faults[port.name] = "unreachable"
        return faults
