"""A person with a browser: real Chromium on this machine, over TLS, through the virtual IP."""

import shutil
import uuid

import pytest
from playwright.sync_api import expect, sync_playwright

from lab import CHECKOUT, SITE, VIRTUAL_IP, run, wait_until


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser page that knows where the site is and trusts the private authority alone for it, by its key's fingerprint."""
    certificate = CHECKOUT / "inventory" / "lab.secrets" / "tls" / f"{SITE}.crt"
    key = run("openssl", "x509", "-in", certificate, "-noout", "-pubkey").stdout
    der = tmp_path_factory.mktemp("key") / "key.der"
    run("openssl", "pkey", "-pubin", "-outform", "der", "-out", der, input=key)
    pin = run("sh", "-c", f"openssl dgst -sha256 -binary {der} | base64").stdout.strip()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=shutil.which("chromium"),
            viewport={"width": 1280, "height": 900},
            args=[
                "--no-sandbox",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--host-resolver-rules=MAP {SITE} {VIRTUAL_IP}",
                f"--ignore-certificate-errors-spki-list={pin}",
            ],
        )
        page = browser.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        yield page
        browser.close()


def screenshot(page, name):
    directory = CHECKOUT / "tests" / "output"
    directory.mkdir(exist_ok=True)
    page.screenshot(path=directory / f"{name}.png", full_page=True)


def test_the_front_page_leads_to_the_guestbook(page):
    page.goto(f"http://{SITE}/")
    assert page.url == f"https://{SITE}/"
    screenshot(page, "front")
    page.get_by_role("link", name="guestbook").first.click()
    expect(page).to_have_url(f"https://{SITE}/guestbook/")
    assert page.problems == [], "the content security policy stops something of our own"


def test_a_visitor_signs_the_book_and_sees_the_entry_at_once_as_text(page):
    message = f"<script>alert('{uuid.uuid4()}')</script> & greetings"
    page.goto(f"https://{SITE}/guestbook/")
    page.get_by_label("name").fill("Grace")
    page.get_by_label("message").fill(message)
    page.get_by_role("button").click()
    expect(page.get_by_text(message)).to_be_visible()
    screenshot(page, "guestbook")
    assert page.problems == []

    def everybody_sees_it():
        page.goto(f"https://{SITE}/guestbook/")
        return page.get_by_text(message).is_visible()

    wait_until(everybody_sees_it, seconds=10)


def test_the_page_says_who_served_it(page):
    page.goto(f"https://{SITE}/guestbook/")
    text = page.inner_text("body")
    assert "server4" in text
    assert "server2" in text or "server3" in text
