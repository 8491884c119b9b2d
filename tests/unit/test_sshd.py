"""Whether a user who is connected over ssh could come back, by what sshd -T says."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import sshd

ALICE = sshd.Session("alice", 1000, "/home/alice", ["alice", "sudo"], "192.0.2.9", "192.0.2.1", 22)
ROOT = ALICE._replace(user="root", uid=0, home="/root", groups=["root"])
SETTINGS = """\
port 22
permitrootlogin without-password
pubkeyauthentication yes
passwordauthentication no
kbdinteractiveauthentication no
authorizedkeysfile .ssh/authorized_keys /etc/ssh/keys/%u
authorizedkeyscommand none
trustedusercakeys none
pubkeyacceptedalgorithms ssh-ed25519,rsa-sha2-512,rsa-sha2-256
"""
ED25519 = {"ssh-ed25519"}


def reasons(session=ALICE, keys=frozenset(ED25519), **changes):
    settings = sshd.parse(SETTINGS) | {
        name: value if isinstance(value, list) else [value] for name, value in changes.items()
    }
    return sshd.reasons_for_lockout(session, settings, set(keys))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"session": ROOT},
        {"keys": {"ssh-rsa"}},
        {"keys": set(), "passwordauthentication": "yes"},
        {"keys": set(), "kbdinteractiveauthentication": "yes"},
        {"keys": set(), "trustedusercakeys": "/etc/ssh/ca.pub"},
        {"keys": set(), "authorizedkeyscommand": "/usr/bin/keys"},
        {"allowgroups": ["admins", "sudo"]},
        {"allowgroups": "su*"},
        {"allowusers": "alice@192.0.2.0/24"},
        {"allowusers": ["bob", "al?ce@192.0.2.*"]},
        {"denyusers": "alice@198.51.100.0/24"},
        {"denygroups": "guests"},
        {"port": ["2222", "22"]},
    ],
)
def test_who_can_come_back_is_not_stopped(arguments):
    assert reasons(**arguments) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            {"keys": set()},
            "alice has no key that is accepted in /home/alice/.ssh/authorized_keys or /etc/ssh/keys/alice",
        ),
        ({"keys": {"ecdsa-sha2-nistp256"}}, "alice has no key that is accepted"),
        ({"keys": set(), "session": ROOT, "passwordauthentication": "yes"}, "root has no key that is accepted"),
        ({"pubkeyauthentication": "no"}, "alice has no key that is accepted"),
        ({"session": ROOT, "permitrootlogin": "no"}, "PermitRootLogin is no: connect as another user"),
        ({"session": ROOT, "permitrootlogin": "forced-commands-only"}, "PermitRootLogin is forced-commands-only"),
        ({"allowgroups": "admins"}, "allowgroups admins keeps alice out, who is in alice, sudo"),
        ({"allowusers": "bob"}, "allowusers bob keeps alice out"),
        ({"allowusers": "alice@198.51.100.0/24"}, "allowusers alice@198.51.100.0/24 keeps alice out"),
        ({"denyusers": "a*"}, "denyusers a* keeps alice out"),
        ({"denygroups": "sudo"}, "denygroups sudo keeps alice out"),
        ({"port": "2222"}, "sshd would listen on port 2222, and this connection came by 22"),
    ],
)
def test_who_cannot_come_back_is_told_why(arguments, reason):
    found = reasons(**arguments)
    assert len(found) == 1
    assert reason in found[0]


def test_keys_are_found_behind_options_and_not_in_comments():
    text = '# ssh-dss AAAAB3\nssh-ed25519 AAAAC3 a\nfrom="192.0.2.*",no-pty ssh-rsa AAAAB3 b\nsk-ssh-ed25519@openssh.com AAAAG c\n'
    assert sshd.key_types(text) == {"ssh-ed25519", "ssh-rsa", "sk-ssh-ed25519@openssh.com"}


def test_the_paths_of_keys_are_expanded():
    settings = {"authorizedkeysfile": ["%h/a%%b /keys/%u/%U .ssh/x"]}
    assert sshd.key_files(ALICE, settings) == ["/home/alice/a%b", "/keys/alice/1000", "/home/alice/.ssh/x"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("PasswordAuthentication no\n", []),
        ("passwordauthentication yes\n", ["passwordauthentication is no, not yes"]),
        ("# PasswordAuthentication yes\n", []),
        ("PasswordAuthentication no\nPasswordAuthentication yes\n", []),
        ("Match User bob\nPasswordAuthentication yes\n", []),
        ("Ciphers aes128-ctr\n", ["Ciphers is aes256-ctr, not aes128-ctr"]),
        ("Ciphers +aes128-cbc\n", []),
        ("PermitRootLogin no\n", ["PermitRootLogin is prohibit-password, not no"]),
        ("PermitRootLogin prohibit-password\n", []),
        ("LoginGraceTime 30s\n", []),
        ("Unknown yes\n", []),
    ],
)
def test_a_setting_that_another_file_overrules_is_named(text, found):
    settings = sshd.parse(SETTINGS) | {"ciphers": ["aes256-ctr"], "logingracetime": ["120"]}
    assert sshd.overruled(text, settings) == found
