"""The guestbook of the demonstration over a real primary and its replica: whoever has signed sees it at once, wherever reads go."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from test_mysql_replica import follow

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "playbooks" / "files" / "guestbook"))

from guestbook import create_app, database
from guestbook.database import CATCH_UP_SECONDS
from guestbook.migrate import migrate

PRIMARY, REPLICA = "mysql-replica-primary", "mysql-replica-replica"
AUTHORITY = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ".")) / "tls" / "ca.crt"


@pytest.fixture(scope="module")
def replica(secondary):
    assert follow(secondary, allow_destroy=True)["state_after"] == "running"
    return secondary


@pytest.fixture(scope="module")
def guestbook(primary, replica):
    """The application itself, which writes to the primary and reads from its replica."""
    users = [f"guestbook_{name} IDENTIFIED BY '{name}' REQUIRE SSL" for name in ("writer", "reader")]
    primary.sql(
        "CREATE DATABASE guestbook",
        f"CREATE USER {', '.join(user.replace(' REQUIRE SSL', '') for user in users)} REQUIRE SSL",
        "GRANT SELECT, INSERT, CREATE ON guestbook.* TO guestbook_writer",
        "GRANT SELECT ON guestbook.* TO guestbook_reader",
    )
    app = create_app(
        {
            "GUESTBOOK_SECRET_KEY": "of the test",
            "GUESTBOOK_WRITE_URL": f"mysql://guestbook_writer@{primary.address}:3306/guestbook",
            "GUESTBOOK_READ_URL": f"mysql://guestbook_reader@{replica.address}:3306/guestbook",
            "GUESTBOOK_WRITE_PASSWORD": "writer",
            "GUESTBOOK_READ_PASSWORD": "reader",
            # Both servers of the scenario have the same certificate, which carries both addresses.
            "GUESTBOOK_DB_TLS_NAME": primary.address,
            "GUESTBOOK_DB_CA": str(AUTHORITY),
        }
    )
    migrate(app.config["DATABASE"])
    yield app
    primary.sql("DROP DATABASE guestbook", "DROP USER guestbook_writer, guestbook_reader")


class Visitor:
    def __init__(self, app):
        self.client = app.test_client()

    def page(self) -> str:
        answer = self.client.get("/guestbook/", base_url="https://www.foobar.com")
        assert answer.status_code == 200
        return answer.text

    def sign(self, message: str) -> None:
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.page())[1]
        form = {"csrf_token": token, "name": "Ada", "message": message}
        assert self.client.post("/guestbook/", base_url="https://www.foobar.com", data=form).status_code == 303


def served_by(page: str) -> str:
    return re.search(r"read from database</small> ([\w-]+)</li>", page)[1]


@pytest.fixture
def behind(replica):
    """Lets the replica apply nothing, or everything a few seconds late."""

    def fall_behind(*statements):
        replica.sql("STOP REPLICA SQL_THREAD", *statements)

    yield fall_behind
    replica.sql("STOP REPLICA SQL_THREAD", "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 0", "START REPLICA SQL_THREAD")


def test_a_replica_that_keeps_up_serves_what_the_visitor_has_just_written(guestbook, replica):
    visitor = Visitor(guestbook)
    for number in range(5):
        visitor.sign(f"at once {number}")
        page = visitor.page()
        assert f"at once {number}" in page
        assert served_by(page) == REPLICA


@pytest.mark.parametrize(
    "statements",
    [(), ("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 5", "START REPLICA SQL_THREAD")],
    ids=["stopped", "delayed"],
)
def test_behind_a_replica_that_lacks_it_the_visitor_sees_it_on_every_page_and_others_still_read_there(
    guestbook, behind, statements
):
    visitor, stranger, message = Visitor(guestbook), Visitor(guestbook), f"signed behind {len(statements)} statements"
    behind(*statements)
    visitor.sign(message)
    for _reload in range(2):
        begun = time.monotonic()
        page = visitor.page()
        assert time.monotonic() - begun < CATCH_UP_SECONDS + 1
        assert message in page
        assert served_by(page) == PRIMARY
    page = stranger.page()
    assert message not in page, "the replica was not behind"
    assert served_by(page) == REPLICA


def test_a_replica_that_catches_up_within_the_wait_serves_it(guestbook, behind, monkeypatch):
    visitor = Visitor(guestbook)
    monkeypatch.setattr(database, "CATCH_UP_SECONDS", 4)
    behind("CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 1", "START REPLICA SQL_THREAD")
    visitor.sign("within the wait")
    page = visitor.page()
    assert "within the wait" in page
    assert served_by(page) == REPLICA
