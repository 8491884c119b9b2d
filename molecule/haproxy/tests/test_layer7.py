"""What the README's example of routes does with requests. Its frontend store is on port 8100, shop is web1 and beta web2."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import SERVERS
from test_haproxy import CLIENT, LBS, ask, run, runtime

from lab import wait_until

SHOP, BETA = "web1", "web2"


def visit(lb, path="/", **options):
    return ask(lb, path, scheme="http", port=8100, **options)


@contextmanager
def maintained(lb, *servers):
    for server in servers:
        runtime(lb, f"set server {server} state maint")
    try:
        yield
    finally:
        for server in servers:
            runtime(lb, f"set server {server} state ready")


@pytest.fixture(autouse=True)
def _usable(lb):
    wait_until(
        lambda: visit(lb).headers["X-Served-By"] == SHOP and visit(lb, X_Beta="1").headers["X-Served-By"] == BETA
    )


def test_a_request_comes_to_the_backend_of_its_first_route(lb):
    expected = [
        (SHOP, "/", {}),
        (SHOP, "/admin", {}),
        (SHOP, "/admin/users", {}),
        (BETA, "/", {"X_Beta": "yes"}),
        (SHOP, "/", {"X_Beta": "yes, please"}),
        (SHOP, "/", {"X_Beta": "yes", "method": "OPTIONS"}),
        (BETA, "/?a=b&version=beta+2", {"Cookie": "a=b; tester="}),
        (BETA, "/?version=beta%202", {"Cookie": "tester=x"}),
        (SHOP, "/?version=beta", {"Cookie": "tester=x"}),
        (SHOP, "/?version=beta+2", {"Cookie": "contester=x"}),
    ]
    answers = [(visit(lb, path, **options), path, options) for _, path, options in expected]
    assert [(answer.headers["X-Served-By"], path, options) for answer, path, options in answers] == expected
    assert {answer.status for answer, *_ in answers} == {200}


def test_a_path_is_for_some_networks_alone_however_it_is_written(lb):
    urls = [
        f"http://{LBS[lb]}:8100{path}" for path in ("/admin", "//admin/x", "/%61dmin", "/admin%2fx", "/administrate")
    ]
    transfers = " ".join(f"--output /dev/null {url}" for url in urls)
    codes = run(SERVERS, f"curl --silent --path-as-is --write-out '%{{http_code}} ' {transfers}")
    assert codes.split() == ["403"] * 4 + ["200"]
    assert run(SERVERS, f"curl --silent {urls[0]}") == "For our office alone.\n"


def test_who_asks_for_a_former_name_or_page_is_sent_to_the_new_one(lb):
    for host in ("old.example.com", "OLD.example.com:8100", "www.old.example.com"):
        response = visit(lb, "/a?b=c%20d", Host=host)
        assert (response.status, response.headers["Location"]) == (301, "https://www.example.com/a?b=c%20d")
    assert visit(lb, "/manual?x").headers["Location"] == "/pages/manual?from=store"
    assert visit(lb, Host="veryold.example.com").status == 200
    response = ask(lb, "/account?a=b%20c", scheme="http", port=8080)
    assert (response.status, response.headers["Location"]) == (308, "https://www.example.com/account?a=b%20c")


def test_headers_and_path_are_changed_on_their_way(lb):
    response = visit(lb, "/api/users/7?a=%2F", X_Debug="1", X_Version="1")
    seen = json.loads(response.content)
    assert response.headers["X-Served-Path"] == "/v2/users/7?a=%2F"
    assert seen["x-version"] == ["2"]
    assert "x-debug" not in seen
    assert response.headers.get_all("X-Store") == ["100% open"]
    assert "Server" not in response.headers
    # On HAProxy's own answers, too.
    assert visit(lb, "/manual").headers["X-Store"] == "100% open"
    assert visit(lb, "/apis").headers["X-Served-Path"] == "/apis"
    assert "x-version" not in json.loads(visit(lb, "/apis").content)
    # A path is rewritten however it is written.
    rewritten = {"/%61p%49": "/%61p%49", "/%61p%69": "/v2", "//%61pi/users%2F7?a=%2f": "/v2/users%2F7?a=%2f"}
    assert {path: visit(lb, path).headers["X-Served-Path"] for path in rewritten} == rewritten
    # One that is added stands beside those of the client and of the server.
    response = ask(lb, scheme="http", port=8080, X_Team="own")
    assert json.loads(response.content)["x-team"] == ["own", "edge"]
    assert response.headers.get_all("X-Served-Path") == ["/", "by the edge"]


def test_new_clients_are_split_by_weight_and_come_back_to_where_they_were(lb):
    with ThreadPoolExecutor(8) as clients:
        first = list(clients.map(lambda _: visit(lb, "/new"), range(80)))
    servers = [response.headers["X-Served-By"] for response in first]
    assert 3 <= servers.count(BETA) < servers.count(SHOP)
    for server, variant in ((SHOP, "shop"), (BETA, "beta")):
        cookie, *attributes = first[servers.index(server)].headers["Set-Cookie"].split("; ")
        assert cookie == f"design={variant}"
        assert attributes == ["Path=/", "Max-Age=2592000", "HttpOnly", "SameSite=Lax"]
        again = [visit(lb, "/new/page", Cookie=cookie) for _ in range(10)]
        assert {response.headers["X-Served-By"] for response in again} == {server}
        assert {response.headers["Set-Cookie"] for response in again} == {None}
    assert visit(lb, "/new", Cookie="design=orders").headers["Set-Cookie"].startswith("design=")
    assert "Set-Cookie" not in visit(lb, "/").headers


def test_a_backend_without_a_usable_server_is_replaced_and_without_any_other_there_is_a_page(lb):
    with maintained(lb, "shop/web1"):
        assert visit(lb).headers["X-Served-By"] == BETA
        assert visit(lb, "/new", Cookie="design=shop").headers["X-Served-By"] == BETA
        with maintained(lb, "beta/web2"):
            response = visit(lb)
            assert (response.status, response.content) == (503, b"<h1>We are back soon.</h1>\n")
            assert response.headers["Content-Type"] == "text/html"


def test_a_server_that_has_come_up_begins_slowly(lb):
    with maintained(lb, "beta/web2"):
        pass
    fields, *rows = (row.split(",") for row in runtime(lb, "show stat beta 4 -1").splitlines() if row)
    (throttle,) = (row[fields.index("throttle")] for row in rows)
    assert 0 < int(throttle) < 100


def test_a_request_with_an_effect_is_sent_to_one_server_alone(lb):
    run(SERVERS, "touch /run/server-2/7")
    try:
        assert {visit(lb, "/orders/7").status for _ in range(6)} == {200}
        posts = [visit(lb, "/orders/7", method="POST", body=b"1") for _ in range(6)]
        assert {(post.headers["X-Served-By"], post.status) for post in posts} == {("web1", 503), ("web2", 200)}
    finally:
        run(SERVERS, "rm /run/server-2/7")


def test_a_request_does_not_wait_long_for_a_full_server(lb):
    with ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(lambda _: visit(lb, "/slow.pdf"), range(2)))
    assert sorted((answer.status, answer.content[:3]) for answer in answers) == [(200, b'{"h'), (503, b"Too")]


def test_a_path_keeps_its_server_where_paths_are_hashed(lb):
    servers = {
        path: {visit(lb, path).headers["X-Served-By"] for _ in range(3)} for path in (f"/{n}.pdf" for n in range(20))
    }
    assert sorted(map(len, servers.values())) == [1] * 20
    assert set.union(*servers.values()) == {"web1", "web2"}


def test_text_is_compressed_for_who_asks_for_it_where_that_is_wanted(lb):
    response = visit(lb, Accept_Encoding="gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(response.content))["x-forwarded-for"] == [CLIENT]
    assert "Content-Encoding" not in visit(lb).headers
    assert "Content-Encoding" not in visit(lb, X_Beta="1", Accept_Encoding="gzip").headers
