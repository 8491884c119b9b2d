"""What the role leaves on the control node, read with openssl and by running it again."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "tls"
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])


def run_role(*arguments):
    """Converge once more and return the finished process."""
    command = ["ansible-playbook", "-i", SCENARIO / "inventory", SCENARIO / "converge.yml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("name", ["www.foobar.com", "server4"])
def test_the_authority_vouches_for_each_certificate(name):
    result = openssl("verify", "-purpose", "sslserver", "-CAfile", DIRECTORY / "ca.crt", DIRECTORY / f"{name}.crt")
    assert result.returncode == 0, result.stderr


def test_a_certificate_holds_names_and_addresses():
    text = openssl("x509", "-in", DIRECTORY / "server4.crt", "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:server4, IP Address:192.0.2.14" in text


def test_keys_are_readable_by_the_owner_alone():
    assert stat.S_IMODE(DIRECTORY.stat().st_mode) == 0o700
    keys = list(DIRECTORY.glob("*.key"))
    assert len(keys) == 3
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}


def test_a_certificate_that_expires_soon_is_issued_again_by_the_same_authority():
    before = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.*")}
    assert run_role("-e", '{"tls_renew_days": 400}').returncode == 0
    after = {path.name: path.read_bytes() for path in DIRECTORY.glob("*.*")}
    assert {name for name in after if after[name] != before[name]} == {"www.foobar.com.crt", "server4.crt"}


def test_a_lost_authority_is_replaced_and_every_certificate_with_it():
    (DIRECTORY / "ca.crt").unlink()
    (DIRECTORY / "ca.key").unlink()
    assert run_role().returncode == 0
    test_the_authority_vouches_for_each_certificate("server4")


def test_a_name_that_no_certificate_can_hold_is_refused():
    result = run_role("-e", '{"tls_certificates": [{"name": "x", "subject_alt_names": ["192.0.2.1"]}]}')
    assert result.returncode != 0
    assert "192.0.2.1" in result.stdout
    assert not (DIRECTORY / "x.crt").exists()
