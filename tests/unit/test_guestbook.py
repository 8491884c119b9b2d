"""The guestbook without its database: what it refuses before it asks one, and what it says when none answers.

With a real database it is tested by molecule/gunicorn and by the whole site.
"""

import datetime
import re
import socket
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import request, session
from flask_wtf.csrf import generate_csrf
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "playbooks" / "files" / "guestbook"))

from guestbook import create_app
from guestbook.views import REMEMBER_SECONDS, EntryForm, own_writes, tidy

SETTINGS = {
    "GUESTBOOK_SECRET_KEY": "a secret key",
    "GUESTBOOK_WRITE_PASSWORD": "writer's password",
    "GUESTBOOK_READ_PASSWORD": "reader's password",
    "GUESTBOOK_DB_TLS_NAME": "mysql.www.foobar.com",
}


@pytest.fixture(scope="session")
def authority():
    """Any certificate authority: nothing here gets as far as to show it a certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1)
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="session")
def settings(authority):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    urls = {
        f"GUESTBOOK_{name}_URL": f"mysql://{name.lower()}r@127.0.0.1:{port}/guestbook" for name in ("WRITE", "READ")
    }
    return SETTINGS | urls | {"GUESTBOOK_DB_CA": authority}


@pytest.fixture
def visitor(settings):
    return create_app(settings).test_client()


@pytest.mark.parametrize(
    "name", ["GUESTBOOK_SECRET_KEY", "GUESTBOOK_WRITE_PASSWORD", "GUESTBOOK_READ_URL", "GUESTBOOK_DB_CA"]
)
def test_a_missing_setting_stops_the_start_by_name(settings, name):
    with pytest.raises(KeyError, match=name):
        create_app({key: value for key, value in settings.items() if key != name})


def test_the_certificate_authority_may_be_a_file(settings, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text(settings["GUESTBOOK_DB_CA"])
    assert create_app(settings | {"GUESTBOOK_DB_CA": str(file)})


def test_it_is_alive_but_not_ready_when_no_database_answers(visitor):
    assert visitor.get("/healthz").status_code == 200
    ready = visitor.get("/readyz")
    assert ready.status_code == 503
    assert ready.json == {"write": "unreachable", "read": "unreachable"}


@pytest.mark.parametrize(
    ("key", "accepted"),
    [("old", True), ("new,old", True), ("old,new", True), ("new", False), ("new,", False), ("newer,new", False)],
)
def test_a_form_of_an_older_key_is_accepted_while_that_key_is_listed(settings, key, accepted):
    old, new = (create_app(settings | {"GUESTBOOK_SECRET_KEY": value}) for value in ("old", key))
    with old.test_request_context():
        form = {"csrf_token": generate_csrf(), "name": "Ada", "message": "hello"}
        cookie = old.session_interface.get_signing_serializer(old).dumps(dict(session))
    headers = {"Cookie": f"__Secure-guestbook={cookie}"}
    with new.test_request_context("/guestbook/", method="POST", data=form, headers=headers):
        assert EntryForm(request.form).validate() is accepted


def test_the_first_key_signs(settings):
    both, new = (create_app(settings | {"GUESTBOOK_SECRET_KEY": key}) for key in ("new,old", "new"))
    with both.test_request_context():
        form = {"csrf_token": generate_csrf(), "name": "Ada", "message": "hello"}
        cookie = both.session_interface.get_signing_serializer(both).dumps(dict(session))
    headers = {"Cookie": f"__Secure-guestbook={cookie}"}
    with new.test_request_context("/guestbook/", method="POST", data=form, headers=headers):
        assert EntryForm(request.form).validate()


@pytest.mark.parametrize("path", ["/guestbook", "//guestbook//api//entries"])
@pytest.mark.parametrize("host", ["elsewhere.example", "elsewhere.example:8000", "else where", "[::1"])
def test_a_redirect_stays_on_this_site_whatever_host_was_asked_for(visitor, path, host):
    answer = visitor.get(path, headers={"Host": host})
    assert "else" not in answer.headers.get("Location", "")
    assert answer.status_code in (308, 400, 404)


@pytest.mark.parametrize("path", ["/guestbook/", "/guestbook/?before=7", "/guestbook/api/entries"])
def test_a_page_without_a_database_says_when_to_come_back_and_nothing_of_why(visitor, path):
    page = visitor.get(path)
    assert page.status_code == 503
    assert page.headers["Retry-After"] == "5"
    for word in ("Traceback", "127.0.0.1", "password", "pymysql"):
        assert word not in page.text


@pytest.mark.parametrize("path", ["/guestbook/", "/guestbook/static/guestbook.css", "/healthz", "/nothing"])
def test_every_answer_forbids_scripts_and_frames(visitor, path):
    policy = visitor.get(path).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy


def test_the_pages_need_nothing_that_the_policy_forbids(visitor):
    assert not re.search(r"<script|<style| style=| on\w+=|https?://", visitor.get("/nothing").text)


def test_the_session_cookie_is_for_this_site_over_tls_alone(visitor):
    cookie = visitor.get("/guestbook/").headers["Set-Cookie"]
    assert cookie.startswith("__Secure-guestbook=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/guestbook/"} <= set(cookie.split("; "))


def test_a_body_that_is_too_large_is_not_read(visitor):
    assert visitor.post("/guestbook/", data={"message": "x" * 20_000}).status_code == 413


def test_what_is_not_there_gets_a_page_and_what_is_not_allowed_says_what_is(visitor):
    missing = visitor.get("/guestbook/<b>")
    assert missing.status_code == 404
    assert "Back to the guestbook" in missing.text
    assert "<b>" not in missing.text
    assert "POST" in visitor.delete("/guestbook/").headers["Allow"]


@pytest.mark.parametrize(("seconds", "remembered"), [(0, "uuid:7"), (REMEMBER_SECONDS + 1, None), (-5, "uuid:7")])
def test_what_a_visitor_wrote_is_waited_for_until_every_replica_that_serves_must_have_it(settings, seconds, remembered):
    with create_app(settings).test_request_context():
        assert own_writes() is None
        session["wrote"] = "uuid:7", int(time.time()) - seconds
        assert own_writes() == remembered


@given(st.text())
def test_tidying_twice_is_tidying_once_and_leaves_no_space_around(text):
    once = tidy(text)
    assert tidy(once) == once
    assert once == once.strip()


def test_tidying_composes_characters_and_makes_line_ends_plain():
    assert tidy(" e\u0301\r\nz\ry ") == "\u00e9\nz\ny"
