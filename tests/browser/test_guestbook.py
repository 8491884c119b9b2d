"""A person with a browser: real Chromium on this machine, over TLS, through the virtual IP."""

import shutil
import uuid

import pytest
from playwright.sync_api import expect, sync_playwright

from lab import CHECKOUT, SECRETS, SITE, VIRTUAL_IP, run, wait_until


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser page that knows where the site is and trusts the private authority alone for it, by its key's fingerprint."""
    certificate = SECRETS / "tls" / f"{SITE}.crt"
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


MARK = "document.documentElement.dataset.ran = 1"


@pytest.fixture
def nothing_runs(page):
    """Whatever the test writes into the page, no dialog opens and no script of it runs."""
    dialogs = []

    def close(dialog):
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", close)
    yield
    assert not page.evaluate("document.documentElement.dataset.ran"), "a script ran"
    page.remove_listener("dialog", close)
    assert dialogs == []


def test_a_stored_script_is_shown_and_never_runs(page, nothing_runs):
    lines = [
        f"<script>{MARK}; alert(1)</script>",
        f'"><img src=x onerror="{MARK}; alert(2)">',
        f"</p><svg onload='{MARK}; alert(3)'>",
        f"<a href='javascript:{MARK}'>here</a>",
        f"<iframe srcdoc='<script>parent.{MARK}</script>'></iframe>",
    ]
    page.problems.clear()
    for line in lines:
        page.goto(f"https://{SITE}/guestbook/")
        page.get_by_label("name").fill(line[:80])
        page.get_by_label("message").fill(line)
        page.get_by_role("button").click()
        expect(page.locator("p.message", has_text=line).first).to_be_visible()
    assert page.locator("article :is(script, img, svg, iframe, a)").count() == 0
    assert page.problems == []


def test_even_unescaped_a_script_would_not_run(page, nothing_runs):
    page.goto(f"https://{SITE}/guestbook/")
    page.problems.clear()
    page.evaluate(
        """mark => {
            document.querySelector("main").insertAdjacentHTML("beforeend", `<img src=x onerror="${mark}"><svg onload="${mark}"></svg>`);
            const script = document.createElement("script");
            script.textContent = mark;
            document.querySelector("main").append(script);
        }""",
        MARK,
    )
    wait_until(lambda: sum("Content Security Policy" in problem for problem in page.problems) >= 2, seconds=5)
    page.problems.clear()


def test_the_page_says_who_served_it(page):
    page.goto(f"https://{SITE}/guestbook/")
    text = page.inner_text("body")
    assert "server4" in text
    assert "server2" in text or "server3" in text
