"""Who gets in over ssh, and that no change of the role locks the administrator out."""

from contextlib import ExitStack

import pytest
from conftest import ADDRESSES, PASSWORD, SID, STABLE

import lab
from lab import wait_until

DROP_IN = "/etc/ssh/sshd_config.d/00-webstack.conf"
both = pytest.mark.parametrize("host", ADDRESSES)


@pytest.fixture
def unhardened(hosts):
    """sshd as it was before the role came: it takes passwords."""
    hosts.run(STABLE, f"mv {DROP_IN} /root/ && systemctl reload ssh")
    wait_until(lambda: hosts.ssh_password(STABLE, "bob").returncode == 0)
    yield
    hosts.run(STABLE, f"cp -p /root/00-webstack.conf {DROP_IN} && systemctl reload ssh")
    wait_until(lambda: "Permission denied (publickey)." in hosts.ssh_password(STABLE, "bob").stderr)


@pytest.fixture
def mended(hosts):
    """Whatever a test changes is as it was after it."""
    before = hosts.run(STABLE, f"cp -p {DROP_IN} /root/ && cat {DROP_IN}")
    yield before
    hosts.run(STABLE, f"cp -p /root/00-webstack.conf {DROP_IN} && systemctl reload ssh")


@both
@pytest.mark.parametrize("user", ["alice", "root"])
def test_a_key_opens(hosts, host, user):
    done = hosts.ssh(host, user)
    assert done.stdout == f"{user}\n", done.stderr


@both
@pytest.mark.parametrize("user", ["alice", "bob", "root"])
def test_the_right_password_does_not_open(hosts, host, user):
    done = hosts.ssh_password(host, user)
    assert done.returncode == 255
    assert "Permission denied (publickey)." in done.stderr


@both
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["-oCiphers=aes128-cbc"], "cipher"),
        (["-oCiphers=aes256-cbc"], "cipher"),
        (["-oKexAlgorithms=diffie-hellman-group14-sha1"], "key exchange method"),
        (["-oKexAlgorithms=diffie-hellman-group14-sha256"], "key exchange method"),
        (["-oKexAlgorithms=ecdh-sha2-nistp256"], "key exchange method"),
        (["-oCiphers=aes128-ctr", "-oMACs=hmac-sha1"], "MAC"),
        (["-oCiphers=aes128-ctr", "-oMACs=hmac-sha2-256"], "MAC"),
        (["-oHostKeyAlgorithms=ssh-rsa"], "host key type"),
    ],
)
def test_an_old_algorithm_is_refused(hosts, host, options, what):
    done = hosts.ssh(host, "alice", *options)
    assert done.returncode == 255
    assert f"no matching {what} found" in done.stderr


@both
def test_the_key_exchange_resists_quantum_computers(hosts, host):
    said = hosts.run(
        SID, f"ssh -v -oBatchMode=yes -oStrictHostKeyChecking=no alice@{ADDRESSES[host]} true 2>&1", check=False
    )
    assert "kex: algorithm: mlkem768x25519-sha256" in said


@both
def test_the_banner_is_shown_and_no_port_is_forwarded(hosts, host):
    done = hosts.ssh(host, "alice", "-oLogLevel=INFO", "-W127.0.0.1:22")
    assert "Authorized users alone." in done.stderr
    assert "administratively prohibited" in done.stderr


def refused(done, message):
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in " ".join(done.stdout.split()), done.stdout


def test_whoever_came_with_a_password_that_opened_before_is_not_locked_out(hosts, unhardened):
    for user in ("bob", "root"):
        assert hosts.ssh_password(STABLE, user).stdout == f"{user}\n"
    assert hosts.ssh(STABLE, "alice", "-oCiphers=aes128-cbc").returncode == 0
    done = hosts.converge(**hosts.over_ssh("bob", ansible_password=PASSWORD))
    refused(done, "bob, who is connected from 172.30.67.1, could not come back, nothing was changed")
    refused(done, "bob has no key that is accepted in /home/bob/.ssh/authorized_keys")
    hosts.run(STABLE, f"test ! -e {DROP_IN}")
    assert hosts.ssh_password(STABLE, "bob").stdout == "bob\n"


LOCKING_OUT = [
    ("alice", {"hardening_sshd_allow_groups": ["admins"]}, "allowgroups admins keeps alice out, who is in alice"),
    ("alice", {"hardening_sshd_config": "DenyUsers al*"}, "denyusers al* keeps alice out"),
    (
        "alice",
        {"hardening_sshd_config": "Port 2222"},
        "sshd would listen on port 2222, and this connection came by 22",
    ),
    ("alice", {"hardening_sshd_config": "PubkeyAuthentication no"}, "alice has no key that is accepted"),
    (
        "alice",
        {"hardening_sshd_config": "AuthorizedKeysFile /etc/ssh/keys/%u"},
        "no key that is accepted in /etc/ssh/keys/alice",
    ),
    ("root", {"hardening_sshd_permit_root_login": "no"}, "PermitRootLogin is no: connect as another user"),
    ("alice", {"hardening_sshd_config": "NoSuchOption yes"}, "Bad configuration option: NoSuchOption"),
]


def test_a_change_that_would_lock_the_administrator_out_or_break_sshd_is_refused_and_the_connections_kept(hosts):
    state = f"cat {DROP_IN}; systemctl show ssh --property MainPID --property ExecReload"
    before = hosts.run(STABLE, state)
    with ExitStack() as stack:
        sessions = [stack.enter_context(hosts.session(STABLE, user)) for user in ("alice", "root")]
        cases = [(hosts.over_ssh(user) | change, said) for user, change, said in LOCKING_OUT]
        limits = (f"--limit={STABLE}", '--extra-vars={"hardening_manage_packages": false}')
        lab.assert_refused("hardening", cases, *limits)
        for session in sessions:
            assert session.communicate("still here", timeout=10)[0] == "still here"
    assert hosts.run(STABLE, state) == before
    hosts.run(STABLE, "sshd -t")
    for user in ("alice", "root"):
        assert hosts.ssh(STABLE, user).stdout == f"{user}\n"


def test_a_change_is_confirmed_over_a_new_connection(hosts, mended):
    done = hosts.converge(**hosts.over_ssh("alice"), hardening_sshd_config="ClientAliveInterval 200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Keep the new configuration of sshd" in done.stdout
    assert "ClientAliveInterval 200" in hosts.run(STABLE, f"cat {DROP_IN}")
    assert hosts.run(STABLE, "systemctl list-timers --all --no-legend 'webstack*'") == "", "nothing will put it back"


def test_what_only_a_new_connection_shows_is_put_back(hosts, mended):
    # A second method, which alice does not have. What sshd says of itself is fine.
    done = hosts.converge(
        **hosts.over_ssh("alice"),
        hardening_sshd_config="AuthenticationMethods publickey,hostbased\nHostbasedAuthentication yes",
        hardening_sshd_revert_after=10,
    )
    refused(done, "alice could not connect within 10 seconds, and the former one is back")
    assert hosts.run(STABLE, f"cat {DROP_IN}") == mended
    assert hosts.ssh(STABLE, "alice").stdout == "alice\n"


def test_files_that_would_leave_the_role_without_effect_are_named_by_a_dry_run_too(hosts):
    """One host's sshd_config overrules the role, the other's does not read the role's directory."""
    changes = {STABLE: "1i PasswordAuthentication yes", SID: "/^Include/d"}
    for host, change in changes.items():
        hosts.run(host, f"cp -p /etc/ssh/sshd_config /root/ && sed -i '{change}' /etc/ssh/sshd_config")
    try:
        done = hosts.converge("--check", host=",".join(changes))
        refused(done, "would be overruled by /etc/ssh/sshd_config")
        refused(done, "PasswordAuthentication is yes, not no")
        refused(done, "/etc/ssh/sshd_config does not include /etc/ssh/sshd_config.d/*.conf")
        assert done.stdout.count("failed=1") == 2
    finally:
        for host in changes:
            hosts.run(host, "cp -p /root/sshd_config /etc/ssh/sshd_config")
