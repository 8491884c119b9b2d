"""The guestbook with a real database behind it, seen as a visitor sees it."""

import http.client
import re
import secrets
import time
from urllib.parse import urlencode

import pytest
import testinfra

APP1, APP2 = "172.30.60.11", "172.30.60.12"


class Visitor:
    """A browser's worth of a visitor: it keeps cookies and knows the form's token."""

    def __init__(self, address=APP1):
        self.address, self.cookie = address, ""

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.address, 8000, timeout=20)
        try:
            connection.request(method, path, body, {"Cookie": self.cookie, "X-Served-By": "web1"} | headers)
            answer = connection.getresponse()
            answer.text = answer.read().decode()
        finally:
            connection.close()
        for cookie in answer.headers.get_all("Set-Cookie", []):
            self.cookie = cookie.split(";")[0]
        return answer

    def token(self):
        return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.ask("GET", "/guestbook/").text).group(1)

    def sign(self, name, message, token=None):
        form = urlencode({"csrf_token": token or self.token(), "name": name, "message": message})
        return self.ask("POST", "/guestbook/", form, **{"Content-Type": "application/x-www-form-urlencoded"})


@pytest.fixture
def database():
    host = testinfra.get_host("docker://gunicorn-db")
    yield host
    host.run("systemctl start mysql")
    deadline = time.monotonic() + 30
    while Visitor().ask("GET", "/readyz").status != 200 and time.monotonic() < deadline:
        time.sleep(0.2)


def test_a_line_is_kept_and_shown_on_every_application_server_as_it_was_written():
    line = f"<script>alert('{secrets.token_hex(4)}')</script> & \U0001f600 O'Brien"
    visitor = Visitor()
    answer = visitor.sign("Zoë ' OR 1=1 --", line)
    assert answer.status == 303
    page = visitor.ask("GET", answer.headers["Location"].partition("#")[0])
    assert page.status == 200
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")
    assert escaped in page.text
    assert line not in page.text
    assert escaped in Visitor(APP2).ask("GET", "/guestbook/").text


def test_the_page_says_which_servers_brought_it():
    assert Visitor().sign("Ada", "hello").status == 303
    page = Visitor().ask("GET", "/guestbook/").text
    for name in ("web1", "gunicorn-app1", "gunicorn-db"):
        assert f"</small> {name}</li>" in page


@pytest.mark.parametrize("token", ["none", "forged", "another visitor's"])
def test_a_form_without_its_own_token_writes_nothing(database, token):
    visitor = Visitor()
    visitor.token()
    wrong = {"none": " ", "forged": "forged", "another visitor's": Visitor().token()}[token]
    message = secrets.token_hex(8)
    assert visitor.sign("Mallory", message, wrong).status == 400
    assert message not in Visitor().ask("GET", "/guestbook/").text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "hello"),
        ("Ada", ""),
        ("A" * 81, "hello"),
        ("Ada", "h" * 501),
        ("A\nda", "hello"),
        ("Ada", "h\0i"),
        ("   ", "hello"),
    ],
)
def test_what_does_not_fit_is_given_back_with_a_reason(name, message):
    answer = Visitor().sign(name, message)
    assert answer.status == 422
    assert 'role="alert"' in answer.text


def test_what_just_fits_is_kept():
    name, message = "\u00e9" * 80, secrets.token_hex(8) + "\U0001f600" * 484
    visitor = Visitor()
    assert visitor.sign(name, message).status == 303
    assert message in visitor.ask("GET", "/guestbook/").text


def test_older_lines_are_a_page_away():
    visitor = Visitor()
    first = secrets.token_hex(8)
    visitor.sign("Ada", first)
    for number in range(20):
        visitor.sign("Ada", f"line {number}")
    page = visitor.ask("GET", "/guestbook/")
    assert first not in page.text
    older = re.search(r'href="(/guestbook/\?before=\d+)"', page.text).group(1)
    assert first in visitor.ask("GET", older).text


def test_without_the_database_the_page_says_so_and_afterwards_all_is_well_by_itself(database):
    visitor = Visitor()
    database.run("systemctl stop mysql")
    page = visitor.ask("GET", "/guestbook/")
    assert page.status == 503
    assert page.headers["Retry-After"]
    assert "Traceback" not in page.text
    assert "172.30.60.21" not in page.text
    assert visitor.ask("GET", "/healthz").status == 200
    ready = visitor.ask("GET", "/readyz")
    assert (ready.status, ready.text.strip()) == (503, '{"read":"unreachable","write":"unreachable"}')

    database.run("systemctl start mysql")
    assert visitor.ask("GET", "/readyz").status == 200
    assert visitor.sign("Ada", "back again").status == 303


def test_a_database_that_hangs_does_not_hang_the_page(database):
    database.run("systemctl kill --signal=STOP mysql")
    try:
        begun = time.monotonic()
        assert Visitor().ask("GET", "/guestbook/").status == 503
        assert time.monotonic() - begun < 8
        assert Visitor().ask("GET", "/healthz").status == 200
    finally:
        database.run("systemctl kill --signal=CONT mysql")


def test_a_database_with_another_name_in_its_certificate_is_not_trusted(deploy):
    done = deploy("guestbook", database_tls_name="another.example.org")
    assert done.returncode != 0
    assert (
        "doesn't match" in done.stdout.lower()
        or "not valid for" in done.stdout.lower()
        or "Hostname mismatch" in done.stdout
    )
    assert Visitor().ask("GET", "/readyz").status == 200


def test_the_passwords_are_not_in_the_log(database):
    for name in ("gunicorn-app1", "gunicorn-app2"):
        log = testinfra.get_host(f"docker://{name}").run("journalctl --boot").stdout
        assert "writes 'quoted'" not in log
