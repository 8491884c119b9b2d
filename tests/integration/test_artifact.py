"""What a user installs: it holds what is needed and nothing else, and runs the site play from an empty path with the oldest ansible-core."""

import os
import re
import sys
import tarfile
import venv

import pytest

from lab import CHECKOUT, INVENTORY, run

OLDEST_CORE = "ansible-core~=2.18.0"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("artifact")
    run("ansible-galaxy", "collection", "build", "--output-path", directory)
    (path,) = directory.glob("foobar-webstack-*.tar.gz")
    return path


def test_it_holds_what_a_user_needs_and_nothing_else(artifact):
    with tarfile.open(artifact) as archive:
        top = {member.name.split("/")[0] for member in archive.getmembers()}
        names = archive.getnames()
    assert top == {
        *("FILES.json", "MANIFEST.json", "LICENSE", "README.md", "CHANGELOG.md", "changelogs", "meta"),
        *("inventory", "playbooks", "plugins", "roles"),
    }
    assert not [name for name in names if re.search(r"\.secrets/|\.pyc$|inventory/lab", name)]


def test_installed_alone_it_runs_the_site_play_and_finds_nothing_to_change(artifact, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", OLDEST_CORE, "cryptography", "requests", timeout=300)
    run(
        *("ansible-galaxy", "collection", "install", "--force", "--no-deps"),
        *("--collections-path", tmp_path / "collections", artifact),
    )
    # The collections it depends on come from the `ansible` package of the tests' own environment.
    packaged = next(path for path in sys.path if path.endswith("site-packages"))
    work = tmp_path / "work"
    work.mkdir()
    done = run(
        *(python.with_name("ansible-playbook"), "--inventory", INVENTORY, "foobar.webstack.site"),
        cwd=work,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": f"{tmp_path / 'collections'}:{packaged}",
            "ANSIBLE_PIPELINING": "true",
        },
        timeout=600,
    )
    assert "foobar.webstack.haproxy" in done.stdout
    assert str(CHECKOUT / "roles") not in done.stdout
    recap = re.findall(r"changed=(\d+) .*failed=(\d+)", done.stdout)
    assert set(recap) == {("0", "0")}, done.stdout
