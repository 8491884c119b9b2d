"""What a visitor gets, and where it comes from."""

import json
import re

import pytest

from lab import ADDRESSES, SITE, VIRTUAL_IP, get, on, playbook, run


def test_plain_http_is_sent_on_to_https():
    answer = get("/guestbook?page=2", scheme="http")
    assert answer.status in (301, 302, 307, 308)
    assert answer.headers["location"] == f"https://{SITE}/guestbook?page=2"


def test_static_pages_come_from_both_web_servers():
    answers = [get("/") for _ in range(8)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["x-served-by"] for answer in answers} == {"server2", "server3"}
    assert len({answer.body for answer in answers}) == 1


def test_the_certificate_is_verified_by_the_private_authority_and_by_nothing_else():
    with_system_store = run(
        *(
            "docker",
            "exec",
            "webstack-client",
            "curl",
            "--silent",
            "--resolve",
            f"{SITE}:443:{VIRTUAL_IP}",
            f"https://{SITE}/",
        ),
        check=False,
    )
    assert with_system_store.returncode == 60
    assert get("/").status == 200


def test_a_row_is_written_to_the_primary_and_read_from_the_replica():
    jar = ("--cookie", "/root/jar", "--cookie-jar", "/root/jar")
    form = get("/guestbook/", *jar)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form.body).group(1)
    sent = get(
        *("/guestbook/", *jar, "--header", f"Referer: https://{SITE}/guestbook/"),
        *(
            "--data-urlencode",
            f"csrf_token={token}",
            "--data-urlencode",
            "name=Ada",
            "--data-urlencode",
            "message=<b>proof</b>",
        ),
    )
    assert sent.status == 303, sent.body
    page = get("/guestbook/")
    assert "&lt;b&gt;proof&lt;/b&gt;" in page.body
    for server in ("server4", "server3"):
        rows = on(server, "mysql --batch --skip-column-names --execute 'SELECT message FROM guestbook.entries'").stdout
        assert "<b>proof</b>" in rows, f"not on {server}"
    assert "server3" in page.body, "the page does not say that the replica was read"


def test_a_form_without_its_token_is_refused():
    assert get("/guestbook/", "--data", "name=Mallory&message=hello").status in (400, 403)


def test_the_replica_refuses_writes():
    done = on("server3", "mysql --execute 'DELETE FROM guestbook.entries'", check=False)
    assert "1290" in done.stderr


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_application_server_says_that_it_is_well(path):
    done = on(
        "server2",
        f"curl --silent --output /dev/null --write-out '%{{http_code}}' http://{ADDRESSES['server4']}:8000{path}",
    )
    assert done.stdout == "200"


def test_the_status_play_shows_each_tier():
    text = playbook("playbooks/status.yml").stdout
    for word in (f"https://{SITE}/", VIRTUAL_IP, *ADDRESSES):
        assert word in text


def test_every_load_balancer_counts_its_traffic_for_prometheus():
    for server in ("server1", "server2"):
        done = on("server1", f"curl --silent http://{ADDRESSES[server]}:8404/metrics")
        assert "haproxy_frontend_http_requests_total" in done.stdout


def test_the_databases_tell_their_state():
    states = {
        server: json.loads(on("server4", f"curl --silent http://{ADDRESSES[server]}:9201/").stdout)
        for server in ("server3", "server4")
    }
    assert states["server4"]["writable"] is True
    assert states["server3"]["writable"] is False
