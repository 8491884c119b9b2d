"""What two load balancers do for their clients and their servers, seen from outside."""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from copy import deepcopy
from functools import partial
from itertools import islice, product
from pathlib import Path

import pytest
import yaml
from conftest import SERVERS

import lab
from lab import CHECKOUT, wait_until
from lab import inside as run

converge = partial(lab.converge, "haproxy")
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
VARIABLES = yaml.safe_load((CHECKOUT / "molecule/haproxy/inventory/group_vars/loadbalancers.yml").read_text())
SITE = "www.example.com"
LBS = {"haproxy-lb1": "172.30.57.11", "haproxy-lb2": "172.30.57.12"}
LB1, LB2 = LBS
CLIENT = "172.30.57.1"
BOTH = {"web1", "web2"}


def applied(*arguments, **variables):
    done = converge(*arguments, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout


def edited(variable, name, **changes):
    """The scenario's own frontends or backends, with one of them changed."""
    items = deepcopy(VARIABLES[variable])
    next(item for item in items if item["name"] == name).update(changes)
    return {variable: items}


def trust():
    context = ssl.create_default_context(cafile=SCRATCH / "root.crt")
    context.set_alpn_protocols(["http/1.1"])
    return context


def connect(lb, scheme="https", port=None):
    """Open a connection as a browser that has looked up the site's name."""
    connection = http.client.HTTPConnection(SITE, timeout=5)
    connection.auto_open = 0  # one that was closed is not opened again, elsewhere
    raw = socket.create_connection((LBS[lb], port or {"http": 80, "https": 443}[scheme]), timeout=5)
    connection.sock = trust().wrap_socket(raw, server_hostname=SITE) if scheme == "https" else raw
    return connection


def send(connection, path="/", method="GET", body=None, **headers):
    """Send a request; the names of headers are written with underscores."""
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    response.content = response.read()
    return response


def ask(lb, path="/", scheme="https", port=None, **headers):
    with closing(connect(lb, scheme, port)) as connection:
        return send(connection, path, **headers)


def served_by(lb, path="/", times=10, **headers):
    """Count which server answers, and every answer that is not 200."""
    answers = [ask(lb, path, **headers) for _ in range(times)]
    return Counter(a.headers["X-Served-By"] if a.status == 200 else a.status for a in answers)


def database(lb, port):
    """Open a session; return its socket and the name of the database, or None."""
    session = socket.create_connection((LBS[lb], port), timeout=5)
    try:
        return session, session.recv(100).decode().strip() or None
    except ConnectionError:
        return session, None


def runtime(lb, command):
    return run(lb, f"echo '{command}' | socat - /run/haproxy/admin.sock")


def workers(lb):
    return set(run(lb, "pgrep --parent $(systemctl show --property MainPID --value haproxy)").split())


def files(lb):
    """Name, owner, permissions and text of every file."""
    found = run(lb, "find /etc/haproxy /etc/systemd/system/haproxy.service.d -type f").split()
    names = " ".join(sorted(found))
    return run(lb, f"stat --format '%n %a %U %G' {names}; sha256sum {names}")


def visitors(lb, url=f"https://{SITE}/"):
    """Fifty new visitors a second meanwhile."""
    return lab.Visitors(url, LBS[lb], SCRATCH / "root.crt", "--timeout=3")


def at_home():
    """Whether all load balancers send requests to all servers."""

    def servers(lb):
        with closing(connect(lb)) as connection:
            return {send(connection).headers["X-Served-By"] for _ in range(4)}

    with suppress(OSError, http.client.HTTPException):
        return all(servers(lb) == BOTH for lb in LBS)


@pytest.fixture(autouse=True)
def _home():
    yield
    wait_until(at_home)


@pytest.fixture
def databases():
    """Switch what the databases say of themselves; at the end they say nothing."""

    def switch(number, question, on=True):
        run(SERVERS, f"{'touch' if on else 'rm -f'} /run/server-{number}/{question}")

    yield switch
    run(SERVERS, "rm -f /run/server-*/write /run/server-*/read")


# Requests


def test_a_browser_is_answered_over_tls_and_offered_http_2(lb):
    response = ask(lb)
    assert response.status == 200
    context = trust()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection((LBS[lb], 443)) as raw, context.wrap_socket(raw, server_hostname=SITE) as secure:
        assert secure.selected_alpn_protocol() == "h2"
        assert secure.version() == "TLSv1.3"


def test_a_plain_request_is_sent_to_https_with_its_path(lb):
    response = ask(lb, "/a/b?c=d&e=f", scheme="http", Host=f"{SITE}:80")
    assert (response.status, response.headers["Location"]) == (301, f"https://{SITE}/a/b?c=d&e=f")
    assert "Strict-Transport-Security" not in response.headers


def test_browsers_are_told_to_stay_with_https_by_errors_too(lb):
    assert ask(lb).headers["Strict-Transport-Security"] == "max-age=31536000"
    for server in BOTH:
        runtime(lb, f"set server web/{server} state maint")
    try:
        response = ask(lb)
        assert (response.status, response.headers["Strict-Transport-Security"]) == (503, "max-age=31536000")
    finally:
        for server in BOTH:
            runtime(lb, f"set server web/{server} state ready")


def test_requests_are_spread_evenly_over_the_servers(lb):
    assert served_by(lb, times=20) == {"web1": 10, "web2": 10}


def test_a_server_has_its_share_by_weight(lb):
    shares = served_by(lb, "/weighted", times=40, scheme="http", port=8080)
    assert shares.keys() == BOTH
    assert shares["web1"] in (29, 30, 31)


def test_what_a_client_says_of_itself_is_not_believed(lb):
    response = ask(
        lb,
        X_Forwarded_For="192.0.2.1",
        X_Forwarded_Proto="http",
        X_Forwarded_Host="evil.example",
        Forwarded="for=192.0.2.1",
        X_Real_IP="192.0.2.1",
        X_Request_ID="chosen",
    )
    seen = json.loads(response.content)
    assert seen["x-forwarded-for"] == [CLIENT]
    assert seen["x-forwarded-proto"] == ["https"]
    assert not {"x-forwarded-host", "forwarded", "x-real-ip"} & set(seen)
    assert len(seen["x-request-id"]) == 1
    assert seen["x-request-id"] != ["chosen"]
    assert response.headers.get_all("X-Request-ID") == seen["x-request-id"]
    assert json.loads(ask(lb, scheme="http", port=8080).content)["x-forwarded-proto"] == ["http"]


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("touch /run/server-1/sick", "rm /run/server-1/sick"),
        ("systemctl stop server@1", "systemctl start server@1"),
        ("systemctl kill --signal STOP server@1", "systemctl kill --signal CONT server@1"),
    ],
    ids=["it says that it is sick", "it stopped", "it hangs"],
)
def test_a_server_that_is_not_healthy_gets_no_request_until_it_is(fault, remedy):
    run(SERVERS, fault)
    try:
        for lb in LBS:
            wait_until(lambda lb=lb: f"web1 {VARIABLES['servers_address']} 0 " in runtime(lb, "show servers state web"))
            assert served_by(lb) == {"web2": 10}
    finally:
        run(SERVERS, remedy)
    wait_until(at_home)


def test_only_a_server_with_the_right_certificate_gets_requests_over_tls(lb):
    wait_until(lambda: served_by(lb, "/secure") == {"web1": 10})
    assert "Layer6 invalid response" in run(lb, "journalctl --unit haproxy --grep 'Server secure/web2 is DOWN'")


def test_a_challenge_is_answered_by_whoever_knows_it_and_is_not_redirected(lb):
    path = "/.well-known/acme-challenge/token"
    assert ask(lb, path, scheme="http").status == 404
    run(SERVERS, "touch /run/server-2/token")
    try:
        assert {ask(lb, path, scheme="http").status for _ in range(6)} == {200}
        # Over https it is a page of the site.
        assert "x-forwarded-for" in json.loads(ask(lb, path).content)
    finally:
        run(SERVERS, "rm /run/server-2/token")


# TLS


def test_testssl_finds_nothing_above_low_and_rates_a_plus():
    # All that finds faults, or counts for the grade: not which client would get which cipher.
    checks = "--protocols --std --fs --server-preference --server-defaults --headers --vulnerable"
    output = "--warnings off --color 0 --quiet --jsonfile /tmp/testssl.json"
    command = f"{checks} {output} --nodns none --add-ca /root/root.crt --ip {LBS[LB1]} {SITE}:443"
    run(SERVERS, f"rm -f /tmp/testssl.json; testssl {command} >/tmp/testssl.txt 2>&1 || true")
    found = json.loads(run(SERVERS, "cat /tmp/testssl.json"))
    above_low = ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
    assert {item["id"]: item["finding"] for item in found if item["severity"] in above_low} == {}
    assert {item["finding"] for item in found if item["id"] == "overall_grade"} == {"A+"}


def test_the_proof_that_the_certificate_is_not_revoked_comes_with_it(lb):
    command = (
        f"openssl s_client -connect {LBS[lb]}:443 -servername {SITE} -CAfile /root/root.crt -status </dev/null 2>&1"
    )
    wait_until(lambda: "Cert Status: good" in run(SERVERS, command), seconds=30)


# Defences


def test_a_probe_is_refused_and_a_page_is_not(lb):
    expected = [
        ("GET", "/.well-known/security.txt", 200),
        ("GET", "/releases/1.0/setup.tar.gz?from=/.git", 200),
        ("OPTIONS", "/", 200),
        ("GET", "/.git/config", 403),
        ("GET", "/app/.env", 403),
        ("GET", "/%2Egit/config", 403),
        ("GET", "/app%2f%2eenv", 403),
        ("GET", "/app/../.env", 403),
        ("GET", "/.well-known/.git/config", 403),
        ("GET", "/.well-known/../.git/config", 403),
        ("POST", "/blog/WP-login.php", 403),
        ("GET", "/%zz/%2egit/config", 400),
        ("TRACE", "/", 405),
        ("PROPFIND", "/", 405),
    ]
    answers = [ask(lb, path, method=method) for method, path, _ in expected]
    found = [(method, path, answer.status) for (method, path, _), answer in zip(expected, answers, strict=True)]
    assert found == expected
    allowed = {answer.headers["Allow"] for answer in answers if answer.status == 405}
    assert allowed == {"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}


def test_a_request_has_so_much_body_and_so_many_headers_and_no_more(lb):
    assert ask(lb, method="POST", body=b"x" * 100_000).status == 200
    assert ask(lb, method="POST", Content_Length=str(10 * 2**20 + 1), Expect="100-continue").status == 413
    assert ask(lb, **{f"X_{number}": "x" for number in range(80)}).status == 200
    assert ask(lb, **{f"X_{number}": "x" for number in range(101)}).status == 400
    assert ask(lb, X="x" * 15000).status == 200
    assert ask(lb, X="x" * 16000).status in (400, 431)


def test_a_client_that_does_not_finish_its_request_is_sent_away():
    """All load balancers have the same limits; one is waited for, by two clients at once."""

    def waited(port, begin):
        with socket.create_connection((LBS[LB1], port), timeout=15) as client:
            client.sendall(begin.encode())
            begun = time.monotonic()
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
            return time.monotonic() - begun

    with ThreadPoolExecutor(2) as clients:
        headers = clients.submit(waited, 80, "GET / HTTP/1.1\r\nHost: www.example.com\r\n")
        body = clients.submit(waited, 8090, "POST / HTTP/1.1\r\nHost: www.example.com\r\nContent-Length: 9\r\n\r\nx")
    assert 9.5 < headers.result() < 13
    assert 3.5 < body.result() < 7


def test_security_headers_are_set_where_the_server_has_set_none(lb):
    wanted = {"Referrer-Policy": "strict-origin-when-cross-origin", "X-Content-Type-Options": "nosniff"}
    for path, frames in (("/", "SAMEORIGIN"), ("/framed", "DENY"), ("/.git", "SAMEORIGIN")):
        headers = ask(lb, path).headers
        assert {name: headers.get_all(name) for name in wanted} == {name: [value] for name, value in wanted.items()}
        assert headers.get_all("X-Frame-Options") == [frames]


# Limits. The frontend narrow allows 40 requests in 4 seconds and 10 connections.


@pytest.fixture
def _new_client():
    """Let the load balancers forget who has asked."""

    def forget():
        for lb in LBS:
            for table in ("narrow", "plain", "www"):
                runtime(lb, f"clear table {table}")

    forget()
    yield
    forget()


def statuses(lb, times, scheme="http", port=8090):
    """Ask over one connection."""
    with closing(connect(lb, scheme, port)) as connection:
        return [send(connection).status for _ in range(times)]


@pytest.mark.usefixtures("_new_client")
def test_a_client_over_its_limit_is_told_to_wait_by_both_load_balancers_and_no_other_client_is():
    assert Counter(statuses(LB1, 60)) == {200: 40, 429: 20}
    wait_until(lambda: re.search(r"http_req_rate\(4000\)=[456]\d", runtime(LB2, "show table narrow")), seconds=2)
    for lb in LBS:
        response = ask(lb, scheme="http", port=8090)
        assert (response.status, response.headers["Retry-After"]) == (429, "4")
    assert (
        run(SERVERS, f"curl --silent --output /dev/null --write-out '%{{http_code}}' http://{LBS[LB1]}:8090/") == "200"
    )
    wait_until(lambda: statuses(LB1, 1) == [200])


@pytest.mark.usefixtures("_new_client")
def test_a_client_with_too_many_connections_is_told_so_and_then_not_heard():
    def answer_beside(count):
        """What a client is told that holds so many idle connections: each attempt opens its own, as idle ones time out."""
        with ExitStack() as idle:
            for _ in range(count):
                idle.enter_context(closing(connect(LB1, "http", 8090)))
            try:
                response = ask(LB1, scheme="http", port=8090)
            except ConnectionError:
                return "not heard"
            return response.status, response.headers["Retry-After"]

    for count, answer in ((9, (200, None)), (10, (429, "4")), (19, (429, "4")), (20, "not heard"), (0, (200, None))):
        wait_until(lambda count=count, answer=answer: answer_beside(count) == answer, seconds=15)


def test_ipv6_clients_are_counted_by_their_network():
    """The lab's network has no IPv6: the configuration runs once more, in a network that is all of its own."""
    server, first, neighbour, other, exempt = "::8090", ":0:1::1", ":0:1::2", ":0:2::1", ":0:9::1"
    visits = [(first, 41), (neighbour, 1), (other, 1), (exempt, 60)]
    script = [
        "ip link set lo up",
        f"ip address add {LBS[LB1]}/32 dev lo",
        *(
            f"ip address add 2001:db8{address}/128 dev lo nodad"
            for address in (server, *(client for client, _ in visits))
        ),
        "sed s,/run/haproxy/admin.sock,/run/other.sock, /etc/haproxy/haproxy.cfg >/run/other.cfg",
        "haproxy -D -f /run/other.cfg -p /run/other.pid",
        *(
            "curl --silent --output /dev/null --write-out '%{http_code} ' "
            f"--interface 2001:db8{client} http://[2001:db8{server}]:8090/.git?[1-{times}]; echo"
            for client, times in visits
        ),
        "kill $(cat /run/other.pid); rm /run/other.*",
    ]
    done = lab.run("docker", "exec", "--interactive", LB1, "unshare", "--net", "sh", "-e", input="\n".join(script))
    answers = [Counter(line.split()) for line in done.stdout.splitlines()]
    assert answers == [{"403": 40, "429": 1}, {"429": 1}, {"403": 1}, {"403": 60}]


@pytest.mark.usefixtures("_new_client")
def test_an_exempt_client_has_no_limit():
    command = f"curl --silent --output /dev/null --write-out '%{{http_code}} ' http://{LBS[LB1]}:8090/?[1-60]"
    assert Counter(run(LB2, command).split()) == {"200": 60}


@pytest.mark.usefixtures("_new_client")
def test_a_page_with_its_dozens_of_parts_is_far_below_the_default_limits_which_hold_nevertheless(lb):
    with ThreadPoolExecutor(6) as browser:
        answers = list(browser.map(lambda _: statuses(lb, 30, "https", 443), range(6)))
    assert sum(map(Counter, answers), Counter()) == {200: 180}
    runtime(lb, "clear table www")
    # As fast as it goes: without waiting for an answer, and for what needs no server.
    with socket.create_connection((LBS[lb], 80), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n" * 2001)
        lines = (line for line in client.makefile("rb") if line.startswith(b"HTTP/1.1 "))
        assert Counter(line[9:12] for line in islice(lines, 2001)) == {b"301": 2000, b"429": 1}


# Log


def test_the_journal_has_who_asked_for_what_and_no_secret(lb):
    ask(lb, "/journal/.env?token=hunter2", Cookie="session=hunter2", Authorization="Bearer hunter2")
    lines = "journalctl --identifier haproxy --unit haproxy --since -1min --output cat"
    wait_until(lambda: "/journal/.env" in run(lb, lines), seconds=5)
    (line,) = (line for line in run(lb, lines).splitlines() if "/journal/" in line)
    assert line.startswith(f"{CLIENT}:")
    assert " 403 " in line
    assert '"GET /journal/.env HTTP/1.1"' in line
    assert "hunter2" not in run(lb, lines)


# Sessions


def test_a_client_with_the_cookie_stays_at_its_server_through_either_load_balancer():
    first = ask(LB1, "/cookie")
    cookie, *attributes = first.headers["Set-Cookie"].split("; ")
    server = first.headers["X-Served-By"]
    assert cookie == f"SERVER={server}"
    assert {"HttpOnly", "Secure", "SameSite=Lax"} <= set(attributes)
    for lb in LBS:
        assert served_by(lb, "/cookie", Cookie=cookie) == {server: 10}
    # It is a matter between the client and the load balancers.
    assert "cookie" not in json.loads(ask(LB1, "/cookie", Cookie=cookie).content)


def test_a_client_whose_server_is_gone_is_taken_over_by_another(lb):
    runtime(lb, "set server cookie/web1 state maint")
    try:
        response = ask(lb, "/cookie", Cookie="SERVER=web1")
        assert response.headers["X-Served-By"] == "web2"
        assert response.headers["Set-Cookie"].startswith("SERVER=web2")
    finally:
        runtime(lb, "set server cookie/web1 state ready")


def began(table, number):
    """A client's first request, at the first load balancer: what all its later ones bring along, and its server.

    The cookies and headers of two clients differ after the first 200 characters alone, as tokens of one issuer do.
    """
    headers = {"Authorization": f"Bearer {'x' * 200}{number}"} if table == "header" else {}
    answer = ask(LB1, f"/{table}", **headers)
    if table == "login":
        headers = {"Cookie": answer.headers["Set-Cookie"]}
    return headers, answer.headers["X-Served-By"]


def test_a_session_that_began_at_one_load_balancer_is_known_to_its_peer_and_after_a_reload():
    def known(lb, table, clients):
        return f"used:{clients}" in runtime(lb, f"show table {table}")

    counts = {"login": 2, "header": 2, "source": 1}
    sessions = {}
    for table, clients in counts.items():
        for lb in LBS:
            runtime(lb, f"clear table {table}")
        # By turns alone, requests would be answered by both servers.
        sessions[table] = [began(table, number) for number in range(clients)]
        assert len({server for _, server in sessions[table]}) == clients
        wait_until(partial(known, LB2, table, clients))
    for change in ("none", "reload"):
        if change == "reload":
            run(LB1, "systemctl reload haproxy")
        for lb, table in product(LBS, counts):
            wait_until(partial(known, lb, table, counts[table]))
            for headers, server in sessions[table]:
                assert served_by(lb, f"/{table}/again", **headers) == {server: 10}, (change, lb, table)


# TCP


def test_a_tcp_port_leads_to_the_server_that_says_so_on_another_port_and_follows_it(databases):
    for lb in LBS:
        wait_until(lambda lb=lb: database(lb, 6446)[1] is None)
    databases(1, "write")
    for lb in LBS:
        wait_until(lambda lb=lb: database(lb, 6446)[1] == "database1")
    sessions = [database(lb, 6446)[0] for lb in LBS]
    databases(1, "write", on=False)
    databases(2, "write")
    # A session with a database that is no longer writable is closed, so that its client connects anew.
    assert [session.recv(100) for session in sessions] == [b""] * 2
    for lb in LBS:
        wait_until(lambda lb=lb: database(lb, 6446)[1] == "database2")


def test_a_tcp_port_uses_all_servers_that_offer_themselves(databases):
    for number in (1, 2):
        databases(number, "read")
    for lb in LBS:
        wait_until(lambda lb=lb: {database(lb, 6447)[1] for _ in range(4)} == {"database1", "database2"})
        # leastconn: as many sessions to each
        sessions = [database(lb, 6447) for _ in range(6)]
        assert Counter(name for _, name in sessions) == {"database1": 3, "database2": 3}


# Addresses


def test_a_virtual_ip_is_answered_as_soon_as_the_host_holds_it(lb):
    address = VARIABLES["virtual_ip"]
    url = (
        f"curl --insecure --silent --max-time 3 --output /dev/null --write-out '%{{http_code}}' https://{address}:8443/"
    )
    assert "8443" in run(lb, "ss --listening --tcp --numeric")
    run(lb, f"ip address add {address}/24 dev eth0")
    try:
        run(SERVERS, "ip neighbour flush all")
        assert run(SERVERS, url) == "200"
    finally:
        run(lb, f"ip address del {address}/24 dev eth0")


def test_metrics_and_health_are_told_at_a_port_of_their_own(lb):
    assert ask(lb, "/healthz", scheme="http", port=8404).status == 200
    assert ask(lb, "/", scheme="http", port=8404).status == 404
    metrics = ask(lb, "/metrics", scheme="http", port=8404).content.decode()
    assert 'haproxy_server_check_status{proxy="web",server="web1",state="L7OK"} 1' in metrics


# Changes


def test_a_reload_fails_no_request_and_leaves_a_tcp_session_alone(lb, databases):
    databases(1, "write")
    wait_until(lambda: database(lb, 6446)[1] == "database1")
    session, _ = database(lb, 6446)
    before = workers(lb)
    with visitors(lb) as seen:
        for _ in range(5):
            run(lb, "systemctl reload haproxy")
            time.sleep(0.3)
    assert set(seen.result["statuses"]) == {"200"}
    assert seen.result["requests"] > 100
    with session:
        session.sendall(b"still here\n")
        assert session.recv(100) == b"still here\n"
    wait_until(lambda: not workers(lb) & before)


def test_a_reload_fails_no_request_on_a_connection_that_is_kept(lb):
    connection = connect(lb)
    reconnected = 0
    for number in range(40):
        if number == 10:
            run(lb, "systemctl reload haproxy")
        response = send(connection)
        assert response.status == 200
        # The old process says that it closes the connection; until then it answers.
        if response.will_close:
            connection = connect(lb)
            reconnected += 1
        time.sleep(0.02)
    assert reconnected == 1


def test_a_server_in_maintenance_stays_there_through_a_reload_and_a_restart(lb):
    runtime(lb, "set server web/web1 state maint")
    try:
        for change in ("reload", "restart"):
            run(lb, f"systemctl {change} haproxy")
            assert served_by(lb) == {"web2": 10}, change
    finally:
        runtime(lb, "set server web/web1 state ready")


def test_after_a_crash_all_servers_start_as_they_are_configured(lb):
    runtime(lb, "set server web/web1 state maint")
    run(lb, "systemctl kill --signal KILL haproxy")
    # The fixture waits for both servers.


def self_signed(tmp_path, name=SITE):
    """Another certificate for the site: its text and that of its key."""
    command = "openssl req -x509 -noenc -newkey ec -pkeyopt ec_paramgen_curve:P-256 -keyout key -out crt -days 9"
    subprocess.run([*command.split(), "-subj", f"/CN={name}"], cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "crt").read_text(), (tmp_path / "key").read_text()


def served_certificate(lb):
    return ssl.get_server_certificate((LBS[lb], 443)).strip()


def test_a_certificate_that_another_program_keeps_wins_and_the_listed_one_answers_without_it(lb, tmp_path):
    listed = served_certificate(lb)
    certificate, key = self_signed(tmp_path)
    run(lb, f"umask 077; echo '{certificate}{key}' >/etc/haproxy/acme/site.pem; systemctl reload haproxy")
    assert served_certificate(lb) == certificate.strip()
    run(lb, "rm /etc/haproxy/acme/site.pem; systemctl reload haproxy")
    assert served_certificate(lb) == listed


def test_the_configuration_gives_no_warning(lb):
    run(lb, "haproxy -dW -c -f /etc/haproxy/haproxy.cfg")


def test_a_bind_is_refused_where_haproxy_itself_could_not_have_it(lb):
    """In a network that is all of its own, where others listen."""
    listeners = {
        "TCP4-LISTEN:9001,bind=127.0.0.1": {":9001": True, "127.0.0.2:9001": False, "[::]:9001 v6only": False},
        "TCP6-LISTEN:9002,ipv6only=0": {"*:9002": True},
        "TCP6-LISTEN:9003,ipv6only=1": {"*:9003": False},
        "TCP6-LISTEN:9004,ipv6only=0,bind=[::ffff:127.0.0.1]": {"127.0.0.1:9004": True},
        "TCP6-LISTEN:9005,bind=[::1]": {":::9005": True, "ipv4@*:9005": False},
        "TCP4-LISTEN:9012": {"127.0.0.1:9010-9013": True},
        "UDP4-RECV:9013": {"*:9014": False, "/run/own.sock": False},
    }
    binds = {bind: taken for binds in listeners.values() for bind, taken in binds.items()}
    lines = ["log-forward logs", "dgram-bind :9013", "frontend ports", *(f"bind {bind}" for bind in binds)]
    script = [
        "ip link set lo up",
        *(f"socat -u {listener} /dev/null &" for listener in listeners),
        f"until [ $(ss --no-header --listening --tcp --udp | wc -l) = {len(listeners)} ]; do sleep 0.1; done",
        "cat >/run/own.cfg <<END",
        *lines,
        "END",
        "mount --bind /run/own.cfg /etc/haproxy/haproxy.cfg",
        "! /usr/bin/python3 -I /usr/local/libexec/haproxy_check.py 2>&1",
        "! haproxy -db -f /etc/haproxy/haproxy.cfg 2>&1",
        "kill $(jobs -p); rm -f /run/own.*",
    ]
    command = ["docker", "exec", "--interactive", lb, "timeout", "20", "unshare", "--net", "--mount", "bash", "-e"]
    output = lab.run(*command, input="\n".join(script)).stdout
    expected = {f"bind {bind}" for bind, taken in binds.items() if taken} | {"dgram-bind :9013"}
    found = {lines[int(number) - 1] for number in re.findall(r"haproxy.cfg:(\d+)\] .*Address already in use", output)}
    assert found == expected
    assert (
        set(
            re.findall(
                r"^(?:log-forward logs|frontend ports): (.+): socat \(pid \d+\) listens on", output, re.MULTILINE
            )
        )
        == expected
    )
