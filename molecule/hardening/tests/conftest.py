"""The hosts of the scenario: as root inside them, and over ssh from outside."""

import os
import subprocess
from pathlib import Path

import pytest

import lab

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
        return lab.inside(host, command, check=check)

    def install_key(self, host, user):
        home = {"root": "/root"}.get(user, f"/home/{user}")
        public = self.key.with_suffix(".pub").read_text().strip()
        self.run(host, f"install -d -m 700 -o {user} {home}/.ssh && echo '{public}' >{home}/.ssh/authorized_keys")

    def ssh(self, host, user, *options, command="id -un"):
        """Log in over ssh with the key and return the finished process."""
        return self._ssh(
            host, user, "-oBatchMode=yes", "-oIdentitiesOnly=yes", f"-i{self.key}", *options, command=command
        )

    def session(self, host, user):
        """A connection that stays open and gives back what it is told."""
        known = ("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null")
        return subprocess.Popen(
            ["ssh", "-Fnone", f"-i{self.key}", *known, f"{user}@{ADDRESSES[host]}", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
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
        return lab.converge("hardening", f"--limit={host}", *arguments, **variables)

    def over_ssh(self, user, **credentials):
        """The variables with which a run reaches the stable host by ssh, with the key unless other credentials are given."""
        return (credentials or {"ansible_ssh_private_key_file": str(self.key)}) | {
            "ansible_connection": "ssh",
            "ansible_host": ADDRESSES[STABLE],
            "ansible_user": user,
            "ansible_become": user != "root",
            "ansible_ssh_common_args": "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPath="
            + str(self.scratch / f"mux-{user}"),
        }


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    hosts = Hosts(tmp_path_factory.mktemp("ssh"))
    for host in ADDRESSES:
        for user in ("alice", "root"):
            hosts.install_key(host, user)
    return hosts
