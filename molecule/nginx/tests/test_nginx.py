"""nginx as its clients see it: a browser behind the load balancer, somebody who goes around it, and the application."""

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import testinfra

import lab

converge = partial(lab.converge, "nginx", nginx_manage_packages=False)
WEB = {"nginx-web1": "172.30.59.11", "nginx-web2": "172.30.59.12"}
APPLICATION = testinfra.get_host("docker://nginx-app")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def request(web, path="/", method="GET", body=None, **headers):
    """Ask as the load balancer does; header names are written with underscores."""
    connection = http.client.HTTPConnection(WEB[web], 8080, timeout=10)
    headers = {"Host": "www.foobar.com"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.content = response.read()
    connection.close()
    return response


def received(port):
    """Count the requests that an application server got, by method."""
    return Counter(json.loads(APPLICATION.check_output(f"curl -s http://127.0.0.1:{port}/app/received")))


def forget_failures():
    """Have nginx use an application server that failed, which it would leave alone for 5 seconds."""
    for web in WEB:
        testinfra.get_host(f"docker://{web}").check_output("systemctl reload nginx")
    time.sleep(1)


@pytest.fixture(params=WEB)
def web(request):
    return request.param


@pytest.fixture
def application():
    """Leave both application servers running, answering and in use by nginx."""
    yield APPLICATION
    APPLICATION.check_output("rm -f /run/hang-up-*; systemctl start app@8001 app@8002")
    forget_failures()


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/about", 301), ("/missing", 404), ("/app/x", 200), ("/nginx-health", 200)]
)
def test_every_response_has_the_security_headers_and_names_its_server(web, path, status):
    response = request(web, path)
    assert response.status == status
    expected = SECURITY_HEADERS | ({"Referrer-Policy": "no-referrer"} if path == "/app/x" else {})
    assert {name: response.headers.get_all(name) for name in expected} == {n: [v] for n, v in expected.items()}
    assert response.headers.get_all("X-Served-By") == [web]
    assert response.headers["Server"] == "nginx"


def test_a_redirect_does_not_lead_around_the_load_balancer(web):
    assert request(web, "/about").headers["Location"] == "/about/"


def test_hidden_files_are_not_served(web):
    assert request(web, "/.htpasswd").status == 404


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/", "no-cache"),
        ("/css/site.css", "public, max-age=3600"),
        ("/css/site.3f9c2a71.css", "public, max-age=31536000, immutable"),
        ("/css/site-20260101.css", "public, max-age=3600"),
        ("/css/missing.3f9c2a71.css", None),
        ("/app/x.css", None),
    ],
)
def test_browsers_keep_files_by_their_kind_and_only_what_exists(web, path, policy):
    assert request(web, path).headers["Cache-Control"] == policy


def test_a_file_that_the_browser_has_is_not_sent_again(web):
    tag = request(web).headers["ETag"]
    response = request(web, If_None_Match=tag)
    assert (response.status, response.content) == (304, b"")


def test_both_servers_give_a_file_the_same_tag():
    assert len({request(web).headers["ETag"] for web in WEB}) == 1


def test_files_are_compressed_but_never_a_page_with_secrets(web):
    plain = request(web, "/css/site.css").content
    response = request(web, "/css/site.css", Accept_Encoding="gzip")
    assert gzip.decompress(response.content) == plain
    assert len(response.content) < len(plain) / 2
    page = request(web, f"/app/{'x' * 2000}", Accept_Encoding="gzip")
    assert "Content-Encoding" not in page.headers


def test_another_name_is_refused_but_its_health_check_is_answered(web):
    assert request(web, Host="evil.example").status == 421
    assert request(web, "/nginx-health", Host="10.0.0.1").content == b"ok\n"


def test_connection_counts_are_for_the_server_itself(web):
    inside = testinfra.get_host(f"docker://{web}")
    assert "Active connections" in inside.check_output("curl -s http://127.0.0.1:8081/nginx-status")
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(WEB[web], 8081, timeout=10).request("GET", "/nginx-status")
    assert request(web, "/nginx-status").status == 404


def test_the_distributions_default_site_is_not_served(web):
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(WEB[web], 80, timeout=10).request("GET", "/")


def test_the_application_learns_from_the_load_balancer_who_asks(web):
    response = request(
        web,
        "/app/x?y=1",
        X_Forwarded_For="198.51.100.66, 203.0.113.7",
        X_Forwarded_Proto="https",
        X_Request_ID="trace-0123456789",
        X_Forwarded_Host="evil.example",
        Proxy="evil.example",
    )
    told = json.loads(response.content)
    assert told["path"] == "/app/x?y=1"
    assert told["headers"] | {"Accept-Encoding": ""} == {
        "Accept-Encoding": "",
        "Host": "www.foobar.com",
        # What the visitor claimed before the load balancer added an address is not passed on.
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Host": "www.foobar.com",
        "X-Forwarded-Proto": "https",
        "X-Real-IP": "203.0.113.7",
        "X-Request-ID": "trace-0123456789",
        "X-Served-By": web,
    }
    assert response.headers["X-Request-ID"] == "trace-0123456789"
    log = "grep trace-0123456789 /var/log/nginx/access.log | tail -n 1"
    entry = json.loads(lab.wait_until(lambda: testinfra.get_host(f"docker://{web}").check_output(log), seconds=5))
    assert (entry["client"], entry["proxy"], entry["request_id"]) == ("203.0.113.7", "172.30.59.1", "trace-0123456789")
    assert float(entry["upstream_seconds"]) < 10


def test_somebody_who_goes_around_the_load_balancer_is_not_believed(web):
    told = json.loads(
        APPLICATION.check_output(
            "curl -s -H 'Host: www.foobar.com' -H 'X-Forwarded-For: 203.0.113.7' -H 'X-Forwarded-Proto: https' "
            "-H 'X-Request-ID: trace-0123456789' http://%s:8080/app/x",
            WEB[web],
        )
    )["headers"]
    assert (told["X-Forwarded-For"], told["X-Real-IP"]) == ("172.30.59.31", "172.30.59.31")
    assert told["X-Forwarded-Proto"] == "http"
    assert told["X-Request-ID"] != "trace-0123456789"


def test_a_body_over_the_limit_never_reaches_the_application(web):
    before = received(8001) + received(8002)
    assert request(web, "/app/x", "POST", b"x" * 1_100_000).status == 413
    assert received(8001) + received(8002) == before


def test_an_application_server_that_is_gone_fails_no_request(application):
    application.check_output("systemctl stop app@8001")
    for web in WEB:
        assert {request(web, "/app/x", method).status for method in ["GET", "POST"] * 5} == {200}


def test_a_request_is_repeated_only_where_that_is_safe(application):
    application.check_output("touch /run/hang-up-8001")
    # A POST that reached a server may have been acted on: it fails, and no second server gets it.
    for web in WEB:
        before = received(8001) + received(8002)
        statuses = Counter(request(web, "/app/x", "POST", b"a=1").status for _ in range(4))
        assert statuses[503] >= 1
        assert statuses[200] + statuses[503] == 4
        assert (received(8001) + received(8002) - before)["POST"] == 4
    forget_failures()
    for web in WEB:
        failed = received(8001)["GET"]
        assert {request(web, "/app/x").status for _ in range(4)} == {200}
        assert received(8001)["GET"] > failed


def test_without_an_application_the_files_stay_and_the_visitor_is_asked_for_patience(application):
    application.check_output("systemctl stop app@8001 app@8002")
    for web in WEB:
        response = request(web, "/app/x")
        assert response.status == 503
        assert b"<h1>Back in a moment</h1>" in response.content
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Retry-After"] == "5"
        assert response.headers["Cache-Control"] is None
        assert {name: response.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert request(web).status == 200


def certificate(directory, name="web", days=30):
    """A certificate that signs itself, and its key."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt", "-days", str(days)),
            *("-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:web.www.foobar.com"),
        ],
        check=True,
        capture_output=True,
    )
    return {
        "certificate": (directory / f"{name}.crt").read_text(),
        "private_key": (directory / f"{name}.key").read_text(),
    }


def test_what_cannot_work_is_refused_and_what_was_served_stays(tmp_path):
    tls = certificate(tmp_path) | {"private_key": certificate(tmp_path, "other")["private_key"]}
    refused = [
        ({"nginx_server_config": "no_such_directive on;"}, "no_such_directive"),
        ({"nginx_listen_port": 8081}, "give the status another port"),
        ({"nginx_listen_port": 70000}, "nginx_listen_port is 70000: a TCP port is 1 to 65535"),
        ({"nginx_listen_port": "http"}, "nginx_listen_port"),
        ({"nginx_application_paths": ["app"]}, "app is not the beginning of a path: write it as /api"),
        (
            {"nginx_application_servers": [{"name": "one", "address": "172.30.59.31"}]},
            "missing required arguments: port",
        ),
        (
            {"nginx_application_servers": [{"name": n, "address": "172.30.59.31", "port": 8001} for n in "ab"]},
            "a and b have the same address and port",
        ),
        ({"nginx_static_keep_releases": 0}, "at least 1"),
        ({"nginx_static_source": "/nowhere"}, "no directory or archive '/nowhere'"),
        ({"nginx_tls": tls}, "nginx_tls: the private key does not belong to the certificate"),
    ]
    lab.assert_refused("nginx", refused, '--extra-vars={"nginx_manage_packages": false}')
    for web in WEB:
        assert request(web).status == 200
        testinfra.get_host(f"docker://{web}").check_output("nginx -t -q && systemctl reload nginx")
        assert request(web).status == 200


def test_a_configuration_that_cannot_be_used_is_put_back_and_what_was_served_stays():
    """Another program has a port, which nginx -t does not see."""
    inside = [testinfra.get_host(f"docker://{web}") for web in WEB]
    state = "sha256sum /etc/nginx/nginx.conf; pgrep --parent $(cat /run/nginx.pid)"
    for host in inside:
        host.check_output("systemd-run --unit=taken --quiet python3 -m http.server 8099")
    try:
        for host in inside:
            lab.wait_until(lambda host=host: ":8099 " in host.check_output("ss --listening --tcp --numeric"))
        before = [host.check_output(state) for host in inside]
        with ExitStack() as stack:
            seen = [stack.enter_context(lab.asking(lambda web=web: request(web).status)) for web in WEB]
            run = converge(nginx_server_config="listen 8099;")
        assert run.stdout.count("failed=1 ") == len(WEB)
        assert "nginx could not be reloaded with the files, all are as they were" in run.stdout
        assert "bind() to 0.0.0.0:8099 failed (98: Address already in use)" in run.stdout
        assert [host.check_output(state) for host in inside] == before
        assert [set(answers) for answers in seen] == [{200}, {200}]
    finally:
        for host in inside:
            host.check_output("systemctl stop taken")


def test_a_new_release_is_switched_to_without_a_failed_request_and_old_ones_go(tmp_path):
    def browse(web):
        response = request(web)
        return response.status, response.content

    first = request("nginx-web1").content
    # An archive is as good as a directory.
    second, third, archive = tmp_path / "second", tmp_path / "third", tmp_path / "third.tar.gz"
    for directory, kept_by_browsers in [(second, "app.3f9c2a71.css"), (third, "app.5d0e8b42.css")]:
        directory.mkdir()
        (directory / "index.html").write_text(directory.name)
        (directory / kept_by_browsers).write_text(directory.name)
    # It is sent as it is, whatever it holds.
    (third / "app.5d0e8b42.css.gz").write_bytes(gzip.compress(b"third, compressed beforehand"))
    subprocess.run(["tar", "-czf", archive, "-C", third, "."], check=True)
    with ExitStack() as stack:
        seen = {web: stack.enter_context(lab.asking(partial(browse, web))) for web in WEB}
        for source in (second, archive):
            run = converge(nginx_static_source=str(source), nginx_gzip_static=True)
            assert run.returncode == 0, run.stdout
            time.sleep(0.2)
    for web, answers in seen.items():
        assert set(answers) == {(200, first), (200, b"second"), (200, b"third")}
        assert request(web, "/css/site.css").status == 404
        assert request(web, "/app.5d0e8b42.css").content == b"third"
        compressed = request(web, "/app.5d0e8b42.css", Accept_Encoding="gzip").content
        assert gzip.decompress(compressed) == b"third, compressed beforehand"
        assert request(web, "/app.3f9c2a71.css").content == b"second", "somebody may still look at the page before"
        assert request(web, "/app.0f3a9c5d.css").status == 404
        releases = testinfra.get_host(f"docker://{web}").check_output("ls /var/www/site/releases").split()
        assert len(releases) == 2


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Give the servers a certificate, whose file this is, and all paths to the application."""
    directory = tmp_path_factory.mktemp("tls")
    made = certificate(directory)
    run = converge(nginx_tls=made, nginx_application_paths=["/"])
    assert run.returncode == 0, run.stdout
    assert made["private_key"].splitlines()[1] not in run.stdout
    return directory / "web.crt"


@contextmanager
def encrypted(web, certificate, newest=ssl.TLSVersion.TLSv1_3):
    """A connection by TLS to a server that has this certificate."""
    context = ssl.create_default_context(cafile=certificate)
    context.maximum_version = newest
    with (
        socket.create_connection((WEB[web], 8080), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="web.www.foobar.com") as connection,
    ):
        yield connection


def ask_encrypted(web, certificate, path):
    with encrypted(web, certificate) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: www.foobar.com\r\nX-Forwarded-For: 203.0.113.7\r\n"
            "X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n".encode()
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.content = answer.read()
        return answer


def test_load_balancers_can_be_served_over_the_newest_tls_alone_and_are_believed_as_before(web, tls):
    with encrypted(web, tls) as connection:
        assert connection.version() == "TLSv1.3"
    told = json.loads(ask_encrypted(web, tls, "/app/x").content)["headers"]
    assert (told["X-Real-IP"], told["X-Forwarded-Proto"]) == ("203.0.113.7", "https")
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"), encrypted(web, tls, ssl.TLSVersion.TLSv1_2):
        pass
    assert request(web).status == 400, "no plain http any more"
    mode = testinfra.get_host(f"docker://{web}").check_output("stat -c '%U %a' /etc/nginx/tls/server.key")
    assert mode == "root 600"


def test_with_the_root_as_its_path_the_application_gets_what_no_file_answers(web, tls):
    assert b"the first release" in ask_encrypted(web, tls, "/").content, "a release that was removed is served again"
    assert json.loads(ask_encrypted(web, tls, "/anything?x=1").content)["path"] == "/anything?x=1"
    assert ask_encrypted(web, tls, "/.htpasswd").status == 404


def test_what_is_not_configured_is_not_there():
    """Without names, an application, trusted proxies or a certificate: a plain server of files, whatever it is called."""
    run = converge(nginx_server_names=[], nginx_application_servers=[], nginx_trusted_proxies=[])
    assert run.returncode == 0, run.stdout
    for web in WEB:
        assert request(web, Host="10.0.0.1").status == 200
        assert request(web, "/app/x").status == 404
