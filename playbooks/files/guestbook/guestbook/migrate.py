"""Bring the database to what this release needs: python -m guestbook.migrate

Runs once for each release, on every application server, and changes nothing where nothing is missing.
"""

import logging
import os
import time

from guestbook import entries
from guestbook.database import Database, UnavailableError

ATTEMPTS = 30


def migrate(database: Database) -> None:
    """Create the table, waiting up to ATTEMPTS seconds for a writable node: a failover may be under way."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with database.write.connection() as connection, connection.cursor() as cursor:
                cursor.execute(entries.SCHEMA)
                return
        except UnavailableError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(1)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    migrate(Database.from_environment(os.environ))
