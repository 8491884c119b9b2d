"""The hosts of the scenario: as root inside them, and over ssh from outside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
SCENARIO = PROJECT / "molecule/hardening"
STABLE, SID, BARE = "hardening-stable", "hardening-sid", "hardening-bare"
ADDRESSES = {STABLE: "172.30.67.11", SID: "172.30.67.12"}
PASSWORD = "correct-horse"


class Hosts:
    """What a test does to the hosts."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.key = scratch / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        self.askpass = scratch / "askpass"
        self.askpass.write_text(f"#!/bin/sh\necho {PASSWORD}\n")
        self.askpass.chmod(0o700)

    def run(self, host, command, check=True):
        done = subprocess.run(
            ["docker", "exec", host, "sh", "-c", command], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{command} on {host}: {done.stdout}{done.stderr}"
        return done.stdout

    def install_key(self, host, user):
        home = {"root": "/root"}.get(user, f"/home/{user}")
        public = self.key.with_suffix(".pub").read_text().strip()
        self.run(host, f"install -d -m 700 -o {user} {home}/.ssh && echo '{public}' >{home}/.ssh/authorized_keys")

    def ssh(self, host, user, *options, command="id -un"):
        """Log in over ssh with the key and return the finished process."""
        return self._ssh(
            host, user, "-oBatchMode=yes", "-oIdentitiesOnly=yes", f"-i{self.key}", *options, command=command
        )

    def ssh_password(self, host, user, command="id -un"):
        """Log in over ssh with the right password."""
        methods = "-oPreferredAuthentications=keyboard-interactive,password"
        environment = {"SSH_ASKPASS": str(self.askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        return self._ssh(host, user, methods, "-oNumberOfPasswordPrompts=1", command=command, environment=environment)

    def _ssh(self, host, user, *options, command, environment=None):
        known = ("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oConnectTimeout=5", "-Fnone")
        return subprocess.run(
            ["ssh", *known, *options, f"{user}@{ADDRESSES[host]}", command],
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def converge(self, *arguments, host=STABLE, **variables):
        """Apply the role again with other variables; its packages are there."""
        variables = {"hardening_manage_packages": False} | variables
        return subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                f"--inventory={SCENARIO}/inventory",
                f"--limit={host}",
                f"--extra-vars={json.dumps(variables)}",
                *arguments,
                SCENARIO / "harden.yml",
            ],
            cwd=PROJECT,
            env=os.environ | {"ANSIBLE_FORCE_COLOR": "false"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def converge_over_ssh(self, user, *arguments, host=STABLE, **variables):
        connection = {
            "ansible_connection": "ssh",
            "ansible_host": ADDRESSES[host],
            "ansible_user": user,
            "ansible_become": user != "root",
            "ansible_ssh_common_args": "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPath="
            + str(self.scratch / f"mux-{user}"),
        }
        return self.converge(*arguments, host=host, **connection, **variables)


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    hosts = Hosts(tmp_path_factory.mktemp("ssh"))
    for host in ADDRESSES:
        for user in ("alice", "root"):
            hosts.install_key(host, user)
    return hosts
