"""The whole site, deployed and taken back through the virtual IP, while visitors read its pages and sign."""

import json
import shutil

import pytest

from lab import CHECKOUT, asking, playbook
from rotation import Signers

FILES = CHECKOUT / "playbooks" / "files"
MARK = "<!-- of the new release -->"


@pytest.fixture
def new_release(tmp_path):
    """Both sources with a mark that visitors can see: the pages' first page, and every page of the application."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    for page in (tmp_path / "www" / "index.html", tmp_path / "guestbook" / "guestbook" / "templates" / "base.html"):
        page.write_text(page.read_text().replace("</body>", f"{MARK}</body>"))
    return {"gunicorn_source": str(tmp_path / "guestbook"), "nginx_static_source": str(tmp_path / "www")}


def marked():
    """Which of the two show the new release to a reader."""
    reader, seen = Signers(), {}
    for path in ("/", "/guestbook/"):
        status, _, page = reader.ask("GET", path=path)
        assert status == 200, (path, status, page)
        seen[path] = MARK in page
    return seen


def test_a_release_is_deployed_and_taken_back_while_visitors_read_and_sign(new_release):
    assert not any(marked().values())
    with Signers() as signers, asking(marked, pause=0.5) as seen:
        playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(new_release))
        assert all(marked().values())
        deployed = len(signers.signed)
        playbook("playbooks/rollback.yml")
        assert not any(marked().values())
    assert signers.failures == []
    assert len(signers.signed) > deployed > 3
    for path in ("/", "/guestbook/"):
        assert {pages[path] for pages in seen} == {True, False}
