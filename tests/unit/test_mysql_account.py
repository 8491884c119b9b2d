"""What has to be said to a server to make an account as it is wanted."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_account import (
    complete,
    faults,
    passwords,
    probe,
    shown,
    statements,
)
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_password import sha256_crypt

SALT = b"01234567890123456789"
STORED, OLD = (b"$A$001$" + SALT + sha256_crypt(text, SALT, 1000) for text in (b"secret", b"former"))
SITE = ("", "50\\%", "*")
HAVE = {"plugin": "caching_sha2_password", "stored": STORED, "old": b"", "require_ssl": True, "privileges": {}}
BOTH = {**HAVE, "old": OLD}
BY_SOCKET = {"plugin": "auth_socket", "stored": b"", "old": b"", "require_ssl": False, "privileges": {}}
CHANGE = "ALTER USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s"
RETAIN, DISCARD = f"{CHANGE} RETAIN CURRENT PASSWORD", "ALTER USER %s@%s DISCARD OLD PASSWORD"
WHO = ("w", "%")


def account(**given):
    defaults = {"name": "w", "plugin": "caching_sha2_password", "require_ssl": True, "state": "present"}
    return complete({**defaults, "password": "secret", "old_password": "retain", **given})


@pytest.mark.parametrize(
    ("wanted", "have", "expected"),
    [
        (
            account(),
            None,
            [("CREATE USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s REQUIRE SSL", (*WHO, "secret"))],
        ),
        (account(), HAVE, []),
        (account(password=None), HAVE, []),
        # The one before stays valid, until it is said that nobody uses it any more.
        (account(password="new"), HAVE, [(RETAIN, (*WHO, "new"))]),
        (account(password="new", require_ssl=False), HAVE, [(f"{RETAIN} REQUIRE NONE", (*WHO, "new"))]),
        (account(), BOTH, []),
        (account(old_password="discard"), BOTH, [(DISCARD, WHO)]),
        (account(old_password="discard"), HAVE, []),
        (account(old_password="discard", password=None), BOTH, [(DISCARD, WHO)]),
        # Back to the one before: both stay valid.
        (account(password="former"), BOTH, [(RETAIN, (*WHO, "former"))]),
        (account(password="new", old_password="discard"), HAVE, [(CHANGE, (*WHO, "new"))]),
        (account(password="new", old_password="discard"), BOTH, [(CHANGE, (*WHO, "new")), (DISCARD, WHO)]),
        (account(require_ssl=False), HAVE, [("ALTER USER %s@%s REQUIRE NONE", WHO)]),
        (account(), {**HAVE, "require_ssl": False}, [("ALTER USER %s@%s REQUIRE SSL", WHO)]),
        (
            account(host="localhost"),
            BY_SOCKET,
            [
                (
                    "ALTER USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s REQUIRE SSL",
                    ("w", "localhost", "secret"),
                )
            ],
        ),
        (
            account(plugin="auth_socket", password=None),
            None,
            [("CREATE USER %s@%s IDENTIFIED WITH auth_socket", ("w", "localhost"))],
        ),
        (account(plugin="auth_socket", password=None), BY_SOCKET, []),
        (
            account(plugin="auth_socket", password=None),
            HAVE,
            [("ALTER USER %s@%s IDENTIFIED WITH auth_socket REQUIRE NONE", ("w", "localhost"))],
        ),
        (account(state="absent"), HAVE, [("DROP USER %s@%s", WHO)]),
        (account(state="absent", password=None), None, []),
    ],
)
def test_only_what_differs_is_said(wanted, have, expected):
    assert statements(wanted, have, {}) == expected


def test_a_third_password_is_refused_because_clients_may_use_either_of_the_two():
    with pytest.raises(ValueError, match=r"w@%: the server knows two passwords"):
        statements(account(password="third"), BOTH, {})


@pytest.mark.parametrize(
    ("wanted", "have", "expected"),
    [
        (account(), None, ["ALTER USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s"]),
        (
            account(password="new", require_ssl=False),
            HAVE,
            ["CREATE USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s"],
        ),
        (account(old_password="discard"), BOTH, []),
        (account(plugin="auth_socket", password=None), None, []),
        (account(state="absent"), HAVE, []),
    ],
)
def test_a_password_is_tried_where_it_cannot_be_set(wanted, have, expected):
    asked = probe(statements(wanted, have, {SITE: frozenset({"SELECT"})} if wanted["state"] == "present" else {}))
    assert [statement for statement, _arguments in asked] == expected
    assert all(arguments == (*WHO, wanted["password"]) for _statement, arguments in asked)


@pytest.mark.parametrize(
    ("wanted", "have", "before", "after"),
    [
        (account(), None, {}, {}),
        (account(password="new"), HAVE, {}, {"password": "changed", "old_password": "valid"}),
        (account(password="new", old_password="discard"), HAVE, {}, {"password": "changed"}),
        (account(old_password="discard"), BOTH, {"old_password": "valid"}, {}),
        (account(require_ssl=False), BOTH, {"old_password": "valid"}, {"old_password": "valid"}),
    ],
)
def test_a_diff_tells_that_a_password_changes_and_whether_the_old_one_stays(wanted, have, before, after):
    assert passwords(statements(wanted, have, {}), have) == (before, after)


def test_percent_signs_in_names_survive_the_formatting_of_arguments():
    ((statement, arguments),) = statements(account(), HAVE, {SITE: frozenset({"SELECT"})})
    assert statement % tuple(repr(argument) for argument in arguments) == r"GRANT SELECT ON `50\%`.* TO 'w'@'%'"
    assert shown(statement, "w@%") == r"GRANT SELECT ON `50\%`.* TO w@%"


@pytest.mark.parametrize("have", [None, BY_SOCKET])
def test_an_account_without_a_password_is_not_made(have):
    with pytest.raises(ValueError, match="w@%: a password is needed"):
        statements(account(password=None), have, {})


@pytest.mark.parametrize(
    ("accounts", "reason"),
    [
        ([account(), account()], "w@% stands twice"),
        ([account(name="")], "1 to 32 characters"),
        ([account(name="w" * 33)], "1 to 32 characters"),
        ([account(host="h" * 256)], "at most 255"),
        ([account(plugin="auth_socket", password=None, host="%")], "only host localhost"),
        ([account(plugin="auth_socket")], "takes no password"),
        ([account(password="")], "the password is empty"),
    ],
)
def test_a_fault_in_the_input_is_said(accounts, reason):
    (fault,) = faults(accounts)
    assert reason in fault


def test_all_faults_are_said_at_once():
    assert len(faults([account(password=""), account(name="x", host="h" * 256)])) == 2
    assert faults([account(), account(host="localhost")]) == []
