"""Passwords against what servers stored for them."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_password import password_matches, sha256_crypt
from hypothesis import example, given, settings
from hypothesis import strategies as st

# From crypt(3) of another implementation: `openssl passwd -5 -salt saltstring ...`.
CRYPT = [
    (b"Hello world!", b"saltstring", b"5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    (b"", b"saltstring", b"FdNfA4gXqvCeO6iZs7G/.wwwoywYZqo0l1pwmfWaBA7"),
    (b"a" * 100, b"saltstring", b"HE80cZIBUxLL.bS7Ud8vy2RfFEVIyvfBaoUr.RekKl3"),
]
# mysql.user.authentication_string of MySQL 9.7.4, in hexadecimal: the salts hold control characters.
STORED = [
    (
        "x",
        "2441243030412444452C3E446079285A091604435A624E072E6066485773704A35487A"
        "76324C7078384775525737703551564272694E70334B2E75386F4D78504B5A74684D36",
    ),
    (
        "a-b c'd\"%$é☃",
        "2441243030412454493958125851341C1C48453A7C485347457101437970324E387631"
        "374D502E36426B7A347A584E77554D65556A304C7742363178574C30626A4E34764942",
    ),
    (
        "p" * 70,
        "24412430304124616832492556222B7A25157A6B497D6C200F186732645033772F3870"
        "31786F7577346F6F67524776644546557778584D5861647078303653503830512F5539",
    ),
]


@pytest.mark.parametrize(("password", "salt", "digest"), CRYPT)
def test_the_digest_is_that_of_other_implementations(password, salt, digest):
    assert sha256_crypt(password, salt, 5000) == digest


@pytest.mark.parametrize(("password", "stored"), STORED)
def test_a_password_is_known_from_what_the_server_stored(password, stored):
    assert password_matches(bytes.fromhex(stored), password)
    assert not password_matches(bytes.fromhex(stored), password + "x")
    assert not password_matches(bytes.fromhex(stored), "")


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1), st.binary(min_size=20, max_size=20), st.text())
@example("secret", b"$A$005$\n\x00\x7f$$$$$$$$$$", "secret\x00")
def test_only_the_password_itself_matches_whatever_the_salt(password, salt, other):
    stored = b"$A$001$" + salt + sha256_crypt(password.encode(), salt, 1000)
    assert password_matches(stored, password)
    assert password_matches(stored, other) == (password == other)


@pytest.mark.parametrize("stored", [b"", b"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19", b"$A$005$short", b"games"])
def test_what_another_plugin_stored_matches_nothing(stored):
    assert not password_matches(stored, "games")
