"""A release is named by its content and packed as it is named."""

import os
import shutil
import tarfile

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible_collections.foobar.webstack.plugins.module_utils.release import (
    release_archive,
    release_name,
    way_back,
)
from hypothesis import given
from hypothesis import strategies as st


def write(directory, files):
    for name, content in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return directory


@pytest.fixture
def site(tmp_path):
    return write(tmp_path / "site", {"index.html": b"hello", "css/site.css": b"body {}", ".git/HEAD": b"ref"})


def lookup(term, **options):
    return lookup_loader.get("foobar.webstack.release", loader=DataLoader()).run([str(term)], {}, **options)[0]


def test_the_same_content_has_the_same_name_wherever_and_whenever_it_was_written(site, tmp_path):
    other = write(tmp_path / "other", {"css/site.css": b"body {}", "index.html": b"hello"})
    (other / "index.html").chmod(0o600)
    os.utime(other / "index.html", (0, 0))
    assert release_name(site, [".git"]) == release_name(other)


@pytest.mark.parametrize(
    "change",
    [
        {"index.html": b"hello!"},
        {"new.html": b""},
        {"css/index.html": b"hello"},
    ],
)
def test_other_content_has_another_name(site, change):
    before = release_name(site)
    assert release_name(write(site, change)) != before


def test_a_file_that_moved_makes_another_release(site):
    before = release_name(site)
    (site / "index.html").rename(site / "css/index.html")
    assert release_name(site) != before


@given(st.dictionaries(st.sampled_from(["a", "b", "ab", "a/b", "b/a"]), st.binary(max_size=3), max_size=3), st.data())
def test_a_name_stands_for_one_content_only(tmp_path_factory, files, data):
    files = {name: content for name, content in files.items() if not any(n.startswith(f"{name}/") for n in files)}
    name = data.draw(st.sampled_from([*files, "c"]))
    changed = files | {name: data.draw(st.binary(max_size=3))}
    one, two = (write(tmp_path_factory.mktemp("release"), content) for content in (files, changed))
    assert (release_name(one) == release_name(two)) == (files == changed)


def test_an_archive_holds_what_was_named_readable_to_all_and_owned_by_root(site, tmp_path):
    (site / "index.html").chmod(0o600)
    (site / "run").write_text("#!/bin/sh")
    (site / "run").chmod(0o700)
    release_archive(site, tmp_path / "site.tar.gz", [".git"])
    with tarfile.open(tmp_path / "site.tar.gz") as archive:
        entries = {entry.name: (oct(entry.mode), entry.uid, entry.uname) for entry in archive}
    shutil.unpack_archive(tmp_path / "site.tar.gz", tmp_path / "unpacked")
    assert entries == {
        "css/site.css": ("0o644", 0, "root"),
        "index.html": ("0o644", 0, "root"),
        "run": ("0o755", 0, "root"),
    }
    assert release_name(tmp_path / "unpacked") == release_name(site, [".git"])


def test_a_link_to_a_file_counts_as_the_file_and_one_to_a_directory_is_refused(site, tmp_path):
    before = release_name(site)
    (site / "index.html").rename(tmp_path / "elsewhere")
    (site / "index.html").symlink_to(tmp_path / "elsewhere")
    assert release_name(site) == before
    (site / "circle").symlink_to(site)
    with pytest.raises(AnsibleLookupError, match=r"circle is a link to a directory"):
        lookup(site)


def test_an_archive_of_the_users_is_named_by_its_bytes_and_sent_as_it_is(site, tmp_path):
    archive = tmp_path / "site.tar.gz"
    release_archive(site, archive)
    assert lookup(archive) == release_name(archive)
    assert lookup(archive, archive=True) == str(archive)


def test_a_directory_is_packed_for_the_run(site):
    packed = lookup(site, archive=True)
    assert tarfile.is_tarfile(packed)
    assert lookup(site) in packed


def test_what_is_not_there_is_named():
    with pytest.raises(AnsibleLookupError, match=r"no directory or archive '/nowhere' on the control node"):
        lookup("/nowhere")


def host(*releases, current=None, switched=1.0):
    """What switch_release says of a host, the releases along the way back."""
    return {
        "current": releases[0] if current is None else current,
        "previous": releases[1] if len(releases) > 1 else "",
        "releases": list(releases),
        "switched": switched,
    }


def test_each_tier_goes_back_to_what_was_before():
    way = way_back({"application": {"app1": host("b", "a"), "app2": host("b", "a")}, "pages": {"web1": host("z", "y")}})
    assert way == {
        "targets": {"application": "a", "pages": "y"},
        "lines": ["app1: application b → a", "app2: application b → a", "web1: pages z → y"],
        "faults": [],
    }


def test_servers_that_a_deployment_did_not_reach_stay_as_they_are():
    way = way_back({"application": {"app2": host("b", "a", switched=1.0), "app1": host("c", "b", "a", switched=2.0)}})
    assert way["targets"] == {"application": "b"}
    assert way["lines"] == ["app2: application b stays", "app1: application c → b"]
    assert way["faults"] == []


def test_a_tier_that_was_switched_long_before_is_left_alone_unless_it_is_asked_for():
    tiers = {
        "application": {"app1": host("b", "a", switched=9000.0)},
        "pages": {"web1": host("z", "y", switched=5000.0)},
    }
    way = way_back(tiers)
    assert (way["targets"], way["faults"]) == ({"application": "a", "pages": ""}, [])
    assert (
        way["lines"][1]
        == "web1: pages z stays: it was switched over an hour before the other tier, so it is no part of this"
    )
    assert way_back({"pages": tiers["pages"]})["targets"] == {"pages": "y"}
    assert way_back(tiers, "y")["targets"] == {"application": "", "pages": "y"}


def test_a_tier_that_has_nothing_before_stays_when_another_goes_back():
    way = way_back({"application": {"app1": host("b", "a")}, "pages": {"web1": host("z")}})
    assert (way["targets"], way["faults"]) == ({"application": "a", "pages": ""}, [])
    assert way["lines"][1] == "web1: pages z stays"


def test_a_release_of_ones_choice_is_found_in_its_tier():
    tiers = {"application": {"app1": host("c", "b", "a")}, "pages": {"web1": host("z", "y")}}
    way = way_back(tiers, "a")
    assert (way["targets"], way["faults"]) == ({"application": "a", "pages": ""}, [])


@pytest.mark.parametrize(
    ("tiers", "wanted", "said"),
    [
        ({"pages": {"web1": host("z")}}, "", "no release to go back to\nweb1 has of pages: z (in service)"),
        ({"pages": {"web1": host("z", "y")}}, "x", "x is kept by no server\nweb1 has of pages: z (in service), y"),
        ({"pages": {"web1": host(current="")}}, "x", "web1 has of pages: none"),
        (
            {"pages": {"web1": host("z", "y"), "web2": host("z")}},
            "",
            "pages: web2 does not have y, but z (in service): deploy it there, or leave web2 out with --limit",
        ),
        ({}, "x", "x is kept by no server"),
    ],
)
def test_a_way_that_cannot_be_gone_is_refused_with_what_there_is(tiers, wanted, said):
    assert said in "\n".join(way_back(tiers, wanted)["faults"])
