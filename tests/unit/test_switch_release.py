"""Releases are switched as a whole, and the way back leads along what was in service."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


class Directory:
    """A directory of releases, and the module over it."""

    def __init__(self, path):
        self.path = path
        self.installed = 0

    def install(self, *names):
        for name in names:
            release = self.path / "releases" / name
            release.mkdir(parents=True)
            (release / "file").write_text(name)
            self.installed += 1
            os.utime(release, (self.installed, self.installed))

    def __call__(self, release=None, **options):
        given = {"directory": str(self.path), "_ansible_remote_tmp": str(self.path)} | options
        given |= {"release": release} if release else {}
        done = subprocess.run(
            [sys.executable, "-m", "ansible_collections.foobar.webstack.plugins.modules.switch_release"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
            env=os.environ | {"PYTHONPATH": str(CHECKOUT / ".ansible" / "collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(done.stdout)

    def deploy(self, *names, **options):
        for name in names:
            self.install(name)
            done = self(name, **options)
            assert done["changed"], done
        return done

    @property
    def served(self):
        return (self.path / "current" / "file").read_text()


@pytest.fixture
def directory(tmp_path):
    return Directory(tmp_path / "site")


def test_a_release_goes_into_service_once(directory):
    directory.install("a")
    first = directory("a")
    assert (first["changed"], first["old"], first["current"], first["previous"]) == (True, "", "a", "")
    assert directory.served == "a"
    assert not directory("a")["changed"]
    assert sorted(entry.name for entry in directory.path.iterdir()) == ["current", "history", "releases"]


def test_the_link_leads_somewhere_at_every_moment(directory):
    directory.deploy("a", "b")
    link = directory.path / "current"
    assert os.readlink(link) == "releases/b"
    before = link.lstat().st_ino
    directory("a")
    assert link.lstat().st_ino != before, "a new link was renamed over the old one"


def test_the_way_back_leads_along_what_was_in_service_and_never_forward_again(directory):
    directory.deploy("a", "bad", "worse")
    assert directory()["previous"] == "bad"
    assert directory("bad", back=True)["previous"] == "a"
    directory("a", back=True)
    assert directory()["previous"] == ""
    assert directory.deploy("good")["previous"] == "a", "and not one that was given up"
    assert directory("worse")["previous"] == "good", "what was given up can be had by its name"


def test_content_that_is_deployed_again_is_new(directory):
    directory.deploy("a", "b")
    done = directory("a")
    assert (done["old"], done["current"], done["previous"]) == ("b", "a", "b")


def test_what_the_way_back_leads_to_is_kept_longest(directory):
    directory.deploy("a", "bad")
    directory("a", back=True)
    done = directory.deploy("good", keep=1)
    assert done["removed"] == ["bad"]
    assert (done["previous"], done["releases"]) == ("a", ["good", "a"])
    done = directory("good", keep=0)
    assert (done["changed"], done["removed"], done["previous"]) == (True, ["a"], "")
    assert directory.served == "good"


@pytest.mark.parametrize("left", ["a\nb\nc\n", "a\n"], ids=["on the way forward", "on the way back"])
def test_a_history_that_an_interrupted_run_left_follows_the_link(directory, left):
    directory.deploy("a", "b")
    directory.install("c")
    (directory.path / "history").write_text(left)
    assert (directory()["current"], directory()["previous"]) == ("b", "a")


def test_releases_from_before_there_was_a_history_are_in_it_by_their_age(directory):
    directory.install("a", "b", "c")
    (directory.path / "current").symlink_to("releases/b")
    done = directory()
    assert (done["previous"], done["releases"]) == ("a", ["b", "a", "c"])


def test_a_dry_run_foretells_and_changes_nothing(directory):
    directory.deploy("a", "b")
    before = sorted(directory.path.rglob("*"))
    done = directory("c", keep=1, _ansible_check_mode=True)
    assert (done["changed"], done["old"], done["current"], done["removed"]) == (True, "b", "c", ["a"])
    assert done["diff"]["before"] == "b, in service\na\n"
    assert done["diff"]["after"] == "c, in service\nb\n"
    assert sorted(directory.path.rglob("*")) == before
    assert directory.served == "b"


def test_a_directory_that_is_not_there_yet_has_nothing(directory):
    done = directory()
    assert (done["changed"], done["current"], done["releases"], done["switched"]) == (False, "", [], 0)
    assert directory("a", _ansible_check_mode=True)["changed"]


@pytest.mark.parametrize(
    ("release", "said"), [("z", "z is not in {0}/releases, which has b, a"), ("../b", "no name of a directory")]
)
def test_what_is_not_there_is_refused_with_what_is(directory, release, said):
    directory.deploy("a", "b")
    done = directory(release)
    assert done["failed"]
    assert said.format(directory.path) in done["msg"]
    assert directory.served == "b"
