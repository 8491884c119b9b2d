"""What the role leaves on the control node, read with openssl and by running it again."""

import json
import os
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "tls"
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
NAMES = ["www.foobar.com", "server4"]


def run_role(*arguments):
    """Converge once more and return the finished process."""
    command = ["ansible-playbook", "-i", SCENARIO / "inventory", SCENARIO / "converge.yml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def rotate(step, *arguments):
    run = run_role("--extra-vars", f"tls_rotate={step}", *arguments)
    assert run.returncode == 0, run.stdout
    return run.stdout


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=30)


def trusted(name, authority=DIRECTORY / "ca.crt"):
    return openssl("verify", "-purpose", "sslserver", "-CAfile", authority, DIRECTORY / f"{name}.crt").returncode == 0


def files():
    return {path.name: path.read_bytes() for path in DIRECTORY.glob("*.*")}


def changed_since(before):
    after = files()
    return {name for name in {*before, *after} if after.get(name) != before.get(name)}


@pytest.mark.parametrize("name", NAMES)
def test_the_authority_vouches_for_each_certificate(name):
    assert trusted(name)


def test_a_certificate_holds_names_and_addresses():
    text = openssl("x509", "-in", DIRECTORY / "server4.crt", "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:server4, IP Address:192.0.2.14" in text


def test_keys_are_readable_by_the_owner_alone():
    assert stat.S_IMODE(DIRECTORY.stat().st_mode) == 0o700
    keys = list(DIRECTORY.glob("*.key"))
    assert len(keys) == 3
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


@pytest.fixture(scope="module")
def later():
    """A run that finds nothing due, and one to which both certificates end soon, and one is there whose name nobody asks for any more."""
    nothing_due = run_role("-vvv")
    assert nothing_due.returncode == 0, nothing_due.stdout
    for kind in ("crt", "key"):
        (DIRECTORY / f"former.{kind}").write_bytes((DIRECTORY / f"server4.{kind}").read_bytes())
    (DIRECTORY / "mine.crt").write_text("mine")
    before = files()
    run = run_role("-vvv", "-e", '{"tls_renew_days": 400}')
    assert run.returncode == 0, run.stdout
    yield SimpleNamespace(
        nothing_due=nothing_due.stdout + nothing_due.stderr, said=run.stdout + run.stderr, changed=changed_since(before)
    )
    (DIRECTORY / "mine.crt").unlink()


def test_a_run_that_finds_nothing_due_calls_no_module(later):
    """What judges the variables runs within Ansible itself."""
    assert "EXEC" not in later.nothing_due
    assert "EXEC" in later.said


def test_a_certificate_that_expires_soon_is_issued_again_by_the_same_authority(later):
    assert later.changed - {"former.crt", "former.key"} == {"www.foobar.com.crt", "server4.crt"}


def test_a_name_that_nobody_asks_for_any_more_is_deleted_and_the_users_own_files_are_not(later):
    assert {"former.crt", "former.key"} <= later.changed
    assert not list(DIRECTORY.glob("former.*"))
    assert (DIRECTORY / "mine.crt").read_text() == "mine"


def test_a_rotation_gives_every_certificate_another_key():
    before = files()
    rotate("certificates", "--check")
    assert not changed_since(before)
    rotate("certificates")
    assert changed_since(before) == {f"{name}.{kind}" for name in NAMES for kind in ("crt", "key")}
    assert all(map(trusted, NAMES))


def test_the_authority_is_replaced_in_three_steps_and_at_none_of_them_is_a_certificate_not_trusted(tmp_path):
    """Between two steps, some servers have the files of the step before: both must work together."""
    former = tmp_path / "former.crt"

    def step(name):
        former.write_bytes((DIRECTORY / "ca.crt").read_bytes())
        certificates = {name: (DIRECTORY / f"{name}.crt").read_bytes() for name in NAMES}
        rotate(name)
        for server in NAMES:
            assert trusted(server), "a server that has all files of this step"
            assert trusted(server, former), "a client that has the authorities of the step before"
            old = tmp_path / "old.crt"
            old.write_bytes(certificates[server])
            assert openssl("verify", "-CAfile", DIRECTORY / "ca.crt", old).returncode == 0, (
                "a server of the step before"
            )

    first = tmp_path / "first.crt"
    first.write_bytes((DIRECTORY / "ca.crt").read_bytes())
    refused = run_role("-e", "tls_rotate=sign")
    assert refused.returncode != 0
    assert "first trust a new one on every server" in " ".join(refused.stdout.split())

    before = files()
    step("trust")
    assert changed_since(before) == {"ca.crt", "ca-next.crt", "ca-next.key"}
    before = files()
    rotate("trust")
    assert not changed_since(before), "the step was taken already"
    assert run_role().returncode == 0
    assert not changed_since(before), "a run between two steps"
    refused = run_role("-e", "tls_rotate=retire")
    assert refused.returncode != 0
    assert "first let the new one sign" in " ".join(refused.stdout.split())

    step("sign")
    assert not trusted("server4", first)
    before = files()
    rotate("trust")
    rotate("sign")
    assert set(before) == set(files())
    assert before["ca.crt"] == files()["ca.crt"]

    step("retire")
    assert (DIRECTORY / "ca.crt").read_text().count("BEGIN CERTIFICATE") == 1


def test_a_lost_authority_is_replaced_and_every_certificate_with_it():
    (DIRECTORY / "ca.crt").unlink()
    (DIRECTORY / "ca.key").unlink()
    assert run_role().returncode == 0
    assert all(map(trusted, NAMES))


def test_what_no_certificate_can_be_is_refused_before_anything_is_written():
    certificates = [
        {"name": "x", "subject_alt_names": ["192.0.2.1"]},
        {"name": "ca", "subject_alt_names": ["DNS:ca"]},
        {"name": "../x", "subject_alt_names": ["DNS:x"]},
        {"name": "y", "subject_alt_names": ["DNS:y"]},
        {"name": "y", "subject_alt_names": ["DNS:z"]},
    ]
    before = files()
    result = run_role("-e", json.dumps({"tls_certificates": certificates}))
    assert result.returncode != 0
    for said in (
        "192.0.2.1 is neither DNS:<name> nor IP:<address>",
        "ca is no name for its files",
        "../x is no name for its files",
        "y stands there more than once",
    ):
        assert said in " ".join(result.stdout.split())
    assert not changed_since(before)
