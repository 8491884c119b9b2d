"""What the guestbook holds: one table, which only ever grows."""

from dataclasses import dataclass
from datetime import datetime

import pymysql

PAGE = 20
NAME_CHARACTERS = 80
MESSAGE_CHARACTERS = 500

# Every node tells its own name: `written_by` travels with the row, so a replica shows who wrote what it serves.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entries (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR({NAME_CHARACTERS}) NOT NULL,
    message VARCHAR({MESSAGE_CHARACTERS}) NOT NULL,
    written_at DATETIME NOT NULL COMMENT 'UTC',
    written_by VARCHAR(255) NOT NULL COMMENT 'the database node'
) CHARACTER SET utf8mb4
"""


@dataclass(frozen=True)
class Entry:
    """One visitor's line."""

    id: int
    name: str
    message: str
    written_at: datetime
    written_by: str


def add(connection: pymysql.Connection, name: str, message: str) -> tuple[int, str]:
    """Write an entry; give its id and the transactions (a GTID set) after which it can be read elsewhere.

    They are what this node has committed meanwhile: the entry's own, and at worst a stranger's that does no harm. The server would
    name the entry's alone (session_track_gtids), but PyMySQL does not pass that on.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@global.gtid_executed")
        (before,) = cursor.fetchone()
        cursor.execute(
            "INSERT INTO entries (name, message, written_at, written_by) VALUES (%s, %s, UTC_TIMESTAMP(), @@hostname)",
            (name, message),
        )
        entry_id = cursor.lastrowid
        connection.commit()
        cursor.execute("SELECT GTID_SUBTRACT(@@global.gtid_executed, %s)", (before,))
        (transactions,) = cursor.fetchone()
    return entry_id, transactions


def latest(connection: pymysql.Connection, before: int | None = None) -> list[Entry]:
    """Give the newest entries, at most PAGE, all older than the entry `before` if that is given."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, name, message, written_at, written_by FROM entries"
            " WHERE %s IS NULL OR id < %s ORDER BY id DESC LIMIT %s",
            (before, before, PAGE),
        )
        return [Entry(*row) for row in cursor.fetchall()]


def node(connection: pymysql.Connection) -> str:
    """Name the node that answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@hostname")
        return cursor.fetchone()[0]
