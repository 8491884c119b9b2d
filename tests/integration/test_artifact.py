"""What a user installs holds what is needed and nothing else. It runs alone, finds nothing to change in the site that was just made, and
leaves the writes at the other database, to which they have moved under visitors who sign."""

import re
import tarfile
import time

import pytest

from lab import CHECKOUT, on, playbook, wait_until
from rotation import Signers


def test_it_holds_what_a_user_needs_and_nothing_else(artifact):
    with tarfile.open(artifact) as archive:
        top = {member.name.split("/")[0] for member in archive.getmembers()}
        names = archive.getnames()
    assert top == {
        *("FILES.json", "MANIFEST.json", "LICENSE", "README.md", "CHANGELOG.md", "changelogs", "meta"),
        *("inventory", "playbooks", "plugins", "roles"),
    }
    assert not [name for name in names if re.search(r"\.secrets/|\.pyc$|inventory/lab", name)]


def rows(server):
    return on(
        server, "mysql --batch --skip-column-names --execute 'SELECT message FROM guestbook.entries'"
    ).stdout.split()


@pytest.fixture(scope="module")
def moved(installed):
    """What was seen while server3 became the primary, and a run of the site play after it. Ends with server4 as the primary again."""
    with Signers() as visitors:
        time.sleep(1)
        playbook("playbooks/switchover.yml", "--extra-vars", "primary=server3")
        before = len(visitors.signed)
        wait_until(lambda: len(visitors.signed) > before + 5)
    visitors.site = installed("site")
    visitors.held = {server: rows(server) for server in ("server3", "server4")}
    yield visitors
    playbook("playbooks/switchover.yml", "--extra-vars", "primary=server4")


def test_visitors_notice_nothing_but_the_gap(moved):
    # Two visitors, a fraction of a second in which nobody can sign.
    assert len(moved.failures) <= 6, moved.failures
    assert all("503" in failure or "502" in failure for failure in moved.failures), moved.failures


def test_what_was_signed_is_on_both_databases(moved):
    assert set(moved.signed) <= set(moved.held["server3"])
    assert set(moved.signed) <= set(moved.held["server4"])


def test_the_collection_installed_alone_runs_the_site_play_with_the_oldest_core_and_finds_nothing_to_change(moved):
    assert moved.site.returncode == 0, moved.site.stdout + moved.site.stderr
    assert "foobar.webstack.haproxy" in moved.site.stdout
    assert str(CHECKOUT / "roles") not in moved.site.stdout
    assert set(re.findall(r"changed=(\d+) .*failed=(\d+)", moved.site.stdout)) == {("0", "0")}, moved.site.stdout


def test_a_run_leaves_the_primary_where_it_is_and_says_where_the_inventory_lags_behind(moved):
    assert "server3 is the primary, the inventory has server4 in the group mysql_primary" in moved.site.stdout
