"""Several files as one change: all of them are written, or none is."""

import json
import os
import pwd
import stat

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.foobar.webstack.plugins.modules import config_files

USER = pwd.getpwuid(os.getuid()).pw_name
OWNER = {"owner": USER, "group": str(os.getgid())}


@pytest.fixture
def run(capsys):
    def run(files, directories=(), **arguments):
        files, directories = ([{**OWNER, **path} for path in paths] for paths in (files, directories))
        arguments = {"files": files, "directories": directories, "_ansible_diff": True, **arguments}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            config_files.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_a_second_run_changes_nothing(run, tmp_path):
    files = [
        {"path": str(tmp_path / "new/dir/a.conf"), "content": "a\n"},
        {"path": str(tmp_path / "b.key"), "secret": "b\n", "mode": "0640"},
    ]
    assert run(files)["changed_files"] == [file["path"] for file in files]
    assert (tmp_path / "new/dir/a.conf").read_text() == "a\n"
    assert stat.S_IMODE((tmp_path / "b.key").stat().st_mode) == 0o640
    assert not run(files)["changed"]


def test_only_what_differs_is_named(run, tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").chmod(0o644)
    (tmp_path / "b").chmod(0o600)
    files = [{"path": str(tmp_path / "a"), "content": "a"}, {"path": str(tmp_path / "b"), "content": "b"}]
    assert run(files)["changed_files"] == [str(tmp_path / "b")]
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644


def test_the_command_sees_all_files_in_their_place(run, tmp_path):
    files = [{"path": str(tmp_path / name), "content": name} for name in "ab"]
    result = run(files, validate=f"grep -q b {tmp_path}/b")
    assert result["changed"]
    assert "failed" not in result


def test_refused_files_are_put_back_as_they_were(run, tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o604)
    files = [{"path": str(tmp_path / name), "content": "worse"} for name in ("old", "new")]
    result = run(files, validate=f"cat {tmp_path}/missing")
    assert result["failed"]
    assert "No such file" in result["msg"]
    assert (tmp_path / "old").read_text() == "old"
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o604
    assert not (tmp_path / "new").exists()


def test_an_unknown_group_changes_nothing(run, tmp_path):
    (tmp_path / "a").write_text("old")
    files = [
        {"path": str(tmp_path / "a"), "content": "worse"},
        {"path": str(tmp_path / "b"), "content": "b", "group": "no-such-group"},
    ]
    assert run(files)["failed"]
    assert (tmp_path / "a").read_text() == "old"
    assert not (tmp_path / "b").exists()


def test_check_mode_predicts_and_writes_nothing(run, tmp_path):
    files = [{"path": str(tmp_path / "a"), "content": "a", "group": "no-such-group"}]
    result = run(files, validate="false", _ansible_check_mode=True)
    assert result["changed"]
    assert result["diff"][0]["after"] == "a"
    assert not (tmp_path / "a").exists()


def test_a_secret_is_shown_nowhere(run, tmp_path):
    (tmp_path / "key").write_text("the old secret")
    result = run([{"path": str(tmp_path / "key"), "secret": "the new secret"}])
    assert result["changed"]
    assert "old secret" not in json.dumps(result)
    assert "new secret" not in json.dumps(result)


def test_text_is_required(run, tmp_path):
    assert "content, secret" in run([{"path": str(tmp_path / "a")}])["msg"]


MARK = "# Ansible managed: keys"


@pytest.fixture
def keys(tmp_path):
    """A directory with two files of ours, one of the administrator's, and a directory below it."""
    directory = tmp_path / "keys"
    (directory / "below").mkdir(parents=True)
    for name, text in {"kept": f"{MARK}\na\n", "stale": f"{MARK}\nthe old secret\n", "theirs": f"x\n{MARK}\n"}.items():
        (directory / name).write_text(text)
    (directory / "below/ours").write_text(MARK)
    return directory


def pruned(keys):
    return {
        "files": [{"path": str(keys / "kept"), "secret": f"{MARK}\na\n"}],
        "directories": [{"path": str(keys), "mode": "0700", "prune": MARK}],
    }


def test_a_file_of_ours_that_is_no_longer_named_is_removed_and_no_other(run, keys):
    result = run(**pruned(keys))
    assert result["changed_files"] == [str(keys), str(keys / "stale")]
    assert "the old secret" not in json.dumps(result)
    assert sorted(path.name for path in keys.rglob("*")) == ["below", "kept", "ours", "theirs"]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert not run(**pruned(keys))["changed"]


@pytest.mark.parametrize("arguments", [{"validate": "false"}, {"_ansible_check_mode": True}])
def test_a_removed_file_comes_back_when_the_others_are_refused_and_stays_in_check_mode(run, keys, arguments):
    (keys / "stale").chmod(0o640)
    keys.chmod(0o755)
    run(**pruned(keys), **arguments)
    assert (keys / "stale").read_text() == f"{MARK}\nthe old secret\n"
    assert stat.S_IMODE((keys / "stale").stat().st_mode) == 0o640
    assert stat.S_IMODE(keys.stat().st_mode) == 0o755


def test_a_directory_can_be_pruned_without_being_made(run, keys, tmp_path):
    missing = {"path": str(tmp_path / "new"), "create": False, "prune": MARK}
    result = run([], [missing, {"path": str(keys), "create": False, "prune": MARK}])
    assert result["changed_files"] == [str(keys / "kept"), str(keys / "stale")]
    assert not (tmp_path / "new").exists()
    assert not run([], [missing])["changed"]


@pytest.mark.parametrize(("command", "stays"), [("true", True), ("false", False)])
def test_a_directory_is_made_unless_the_files_are_refused(run, tmp_path, command, stays):
    directory = tmp_path / "new/empty"
    assert run([], [{"path": str(directory), "mode": "0750"}], validate=command)["failed" if not stays else "changed"]
    assert directory.exists() == stays
    if stays:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o750
        assert not run([], [{"path": str(directory), "mode": "0750"}])["changed"]
