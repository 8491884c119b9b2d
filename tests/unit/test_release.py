"""A release is named by its content and packed as it is named."""

import os
import tarfile

import pytest
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible_collections.foobar.webstack.plugins.module_utils.release import release_archive, release_name
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
        archive.extractall(tmp_path / "unpacked", filter="data")
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
