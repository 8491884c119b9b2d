"""What the edge refuses, by its defaults, and what it lets through."""

from collections import Counter

import pytest

from lab import CA, SITE, VIRTUAL_IP, get, on

CURL = (
    f"curl --silent --cacert {CA} --resolve {SITE}:443:{VIRTUAL_IP} --output /dev/null --write-out '%{{http_code}}\\n'"
)
LOAD_BALANCERS = ("server1", "server2")


def table(server, command):
    return on(server, f"echo '{command} table site' | socat - /run/haproxy/admin.sock").stdout


@pytest.mark.parametrize(
    ("status", "path", "options"),
    [
        (403, "/.git/config", ()),
        (403, "/wp-login.php", ()),
        (405, "/", ("--request", "TRACE")),
        (405, "/guestbook/", ("--request", "DELETE")),
        (413, "/guestbook/", ("--header", "Content-Length: 99999999", "--request", "POST")),
        (400, "/", ("--header", f"X-Long: {'x' * 16000}")),
        (404, "/.well-known/security.txt", ()),
    ],
)
def test_a_probe_is_refused(status, path, options):
    assert get(path, *options).status == status


@pytest.mark.parametrize("path", ["/", "/guestbook/", "/.git/config"])
def test_every_answer_has_each_security_header_once(path):
    head = get(path).head.lower()
    for name in ("strict-transport-security", "x-content-type-options", "x-frame-options", "referrer-policy"):
        assert head.count(f"\n{name}: ") == 1, head


def test_a_client_has_its_limit_known_to_both_load_balancers_and_far_above_a_page():
    try:
        for server in LOAD_BALANCERS:
            table(server, "clear")
        page = on("client", f"{CURL} --parallel --parallel-max 60 'https://{SITE}/?[1-180]'").stdout
        assert Counter(page.split()) == {"200": 180}
        flood = on("client", f"{CURL} --parallel --parallel-max 20 'https://{SITE}/?[1-3000]'", timeout=120).stdout
        assert set(flood.split()) == {"200", "429"}
        rates = [line.split("http_req_rate(10000)=") for line in table("server2", "show").splitlines()]
        assert any(int(after[0]) > 2000 for _, *after in rates if after)
    finally:
        for server in LOAD_BALANCERS:
            table(server, "clear")
