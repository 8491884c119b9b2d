"""What two load balancers do for their clients and their servers, seen from outside."""

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[3]
SCENARIO = PROJECT / "molecule/haproxy"
SCRATCH = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
VARIABLES = yaml.safe_load((SCENARIO / "inventory/group_vars/loadbalancers.yml").read_text())
SITE = "www.example.com"
LBS = {"haproxy-lb1": "172.30.57.11", "haproxy-lb2": "172.30.57.12"}
LB1, LB2 = LBS
SERVERS = "haproxy-servers"
CLIENT = "172.30.57.1"
BOTH = {"web1", "web2"}


def run(host, command):
    done = subprocess.run(["docker", "exec", host, "sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} on {host}: {done.stdout}{done.stderr}"
    return done.stdout


def converge(*arguments, **variables):
    """Apply the role again with other variables."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            f"--inventory={SCENARIO}/inventory",
            f"--extra-vars={json.dumps(variables)}",
            *arguments,
            SCENARIO / "converge.yml",
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def applied(*arguments, **variables):
    done = converge(*arguments, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout


def edited(variable, name, **changes):
    """The scenario's frontends or backends, with one of them changed."""
    items = deepcopy(VARIABLES[variable])
    next(item for item in items if item["name"] == name).update(changes)
    return {variable: items}


def trust():
    context = ssl.create_default_context(cafile=SCRATCH / "cert.pem")
    context.set_alpn_protocols(["http/1.1"])
    return context


def connect(lb, scheme="https", port=None):
    """Open a connection as a browser that has looked up the site's name."""
    connection = http.client.HTTPConnection(SITE, timeout=5)
    raw = socket.create_connection((LBS[lb], port or {"http": 80, "https": 443}[scheme]), timeout=5)
    connection.sock = trust().wrap_socket(raw, server_hostname=SITE) if scheme == "https" else raw
    return connection


def send(connection, path="/", **headers):
    """Send a request; the names of headers are written with underscores."""
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
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


def wait_until(question, seconds=15):
    limit = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.1)


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


@contextmanager
def visitors(lb, url=f"https://{SITE}/"):
    """Fifty new visitors a second meanwhile; yields what tests/probe.py says of them, filled at the end."""
    result = {}
    command = [sys.executable, PROJECT / "tests/probe.py", url, "--address", LBS[lb], "--ca", SCRATCH / "cert.pem"]
    probe = subprocess.Popen([*command, "--timeout=3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    try:
        yield result
    finally:
        time.sleep(0.5)
        result.update(json.loads(probe.communicate("stop\n", timeout=60)[0]))


@pytest.fixture(params=LBS)
def lb(request):
    return request.param


@pytest.fixture(autouse=True)
def _home():
    """Begin and end each test with all load balancers sending requests to all servers."""

    def at_home():
        with suppress(OSError):
            return all(set(served_by(lb, times=4)) == BOTH for lb in LBS)

    wait_until(at_home)
    yield
    wait_until(at_home)


@pytest.fixture
def databases():
    """Switch what the databases say of themselves; at the end they say nothing."""

    def switch(number, question, on=True):
        run(SERVERS, f"{'touch' if on else 'rm -f'} /run/server-{number}/{question}")

    yield switch
    run(SERVERS, "rm -f /run/server-*/write /run/server-*/read")


@pytest.fixture
def changed():
    """Apply other variables, and the scenario's own at the end."""
    yield applied
    applied()


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
def test_a_server_that_is_not_healthy_gets_no_request_until_it_is(lb, fault, remedy):
    run(SERVERS, fault)
    try:
        wait_until(lambda: f"web1 {VARIABLES['servers_address']} 0 " in runtime(lb, "show servers state web"))
        assert served_by(lb) == {"web2": 10}
    finally:
        run(SERVERS, remedy)
    wait_until(lambda: set(served_by(lb, times=4)) == BOTH)


def test_a_client_that_does_not_finish_its_request_is_sent_away():
    """All load balancers have the same limit; one is waited for."""
    with socket.create_connection((LBS[LB1], 80), timeout=15) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {SITE}\r\n".encode())
        begun = time.monotonic()
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun > 5


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


@pytest.mark.parametrize(("path", "table"), [("/login", "login"), ("/source", "source")])
def test_a_session_that_began_at_one_load_balancer_is_known_to_its_peer_and_after_a_reload(path, table):
    for lb in LBS:
        runtime(lb, f"clear table {table}")
    # One server more is asked at the first than at the second: by turns alone, they would differ.
    first = ask(LB1, path)
    server = first.headers["X-Served-By"]
    headers = {"Cookie": first.headers["Set-Cookie"]} if path == "/login" else {}
    wait_until(lambda: "used:1" in runtime(LB2, f"show table {table}"))
    run(LB1, "systemctl reload haproxy")
    for lb in LBS:
        wait_until(lambda lb=lb: "used:1" in runtime(lb, f"show table {table}"))
        assert served_by(lb, f"{path}/again", **headers) == {server: 10}


# TCP


def test_a_tcp_port_leads_to_the_server_that_says_so_on_another_port_and_follows_it(lb, databases):
    wait_until(lambda: database(lb, 6446)[1] is None)
    databases(1, "write")
    wait_until(lambda: database(lb, 6446)[1] == "database1")
    session, _ = database(lb, 6446)
    databases(1, "write", on=False)
    databases(2, "write")
    # A session with a database that is no longer writable is closed, so that its client connects anew.
    assert session.recv(100) == b""
    wait_until(lambda: database(lb, 6446)[1] == "database2")


def test_a_tcp_port_uses_all_servers_that_offer_themselves(lb, databases):
    for number in (1, 2):
        databases(number, "read")
    wait_until(lambda: {database(lb, 6447)[1] for _ in range(4)} == {"database1", "database2"})
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


def test_a_reload_fails_no_request(lb):
    before = workers(lb)
    with visitors(lb) as result:
        for _ in range(5):
            run(lb, "systemctl reload haproxy")
            time.sleep(0.7)
    assert not workers(lb) & before
    assert set(result["statuses"]) == {"200"}
    assert result["requests"] > 150


def test_a_reload_fails_no_request_on_a_connection_that_is_kept(lb):
    connection = connect(lb)
    reconnected = 0
    for number in range(100):
        if number == 30:
            run(lb, "systemctl reload haproxy")
        response = send(connection)
        assert response.status == 200
        # The old process says that it closes the connection; until then it answers.
        if response.will_close:
            connection = connect(lb)
            reconnected += 1
        time.sleep(0.02)
    assert reconnected == 1


def test_a_reload_leaves_a_tcp_session_alone(lb, databases):
    databases(1, "write")
    wait_until(lambda: database(lb, 6446)[1] == "database1")
    session, _ = database(lb, 6446)
    run(lb, "systemctl reload haproxy")
    time.sleep(1)
    session.sendall(b"still here\n")
    assert session.recv(100) == b"still here\n"


@pytest.mark.parametrize("change", ["reload", "restart"])
def test_a_server_in_maintenance_stays_there_through_a(change, lb):
    runtime(lb, "set server web/web1 state maint")
    try:
        run(lb, f"systemctl {change} haproxy")
        assert served_by(lb) == {"web2": 10}
    finally:
        runtime(lb, "set server web/web1 state ready")


def test_after_a_crash_all_servers_start_as_they_are_configured(lb):
    runtime(lb, "set server web/web1 state maint")
    run(lb, "systemctl kill --signal KILL haproxy")
    # The fixture waits for both servers.


def test_a_changed_server_is_used_although_the_old_ones_state_is_kept(lb, changed):
    servers = [{"name": name, "address": "{{ servers_address }}", "port": 8082, "weight": 50} for name in sorted(BOTH)]
    changed(**edited("haproxy_backends", "web", servers=servers))
    assert served_by(lb) == {"web2": 10}


def test_a_changed_certificate_is_served_without_a_failed_request_or_a_word_of_its_key(lb, tmp_path, changed):
    for kind in ("key", "cert"):
        (tmp_path / f"{kind}.pem").write_text((SCRATCH / f"{kind}.pem").read_text())
    subprocess.run(
        f"openssl req -x509 -noenc -newkey rsa:2048 -keyout {tmp_path}/key.pem -out {tmp_path}/cert.pem -subj /CN={SITE}".split(),
        check=True,
        capture_output=True,
    )
    key = (tmp_path / "key.pem").read_text()
    with visitors(lb, url="http://plain.example:8080/") as result:
        output = changed(
            "--diff",
            haproxy_certificates=[
                {"name": SITE, "certificate": (tmp_path / "cert.pem").read_text(), "private_key": key}
            ],
        )
    assert result["failed"] == 0
    assert ssl.get_server_certificate((LBS[lb], 443)).strip() == (tmp_path / "cert.pem").read_text().strip()
    assert key.splitlines()[1] not in output


def test_a_process_that_cannot_take_over_is_reported_and_the_old_one_serves(changed):
    run(LB1, "systemd-run --unit=taken --quiet python3 -m http.server 8099")
    try:
        wait_until(lambda: "8099" in run(LB1, "ss --listening --tcp --numeric"))
        frontends = [
            *VARIABLES["haproxy_frontends"],
            {"name": "taken", "bind": [{"port": 8099}], "default_backend": "web"},
        ]
        refused = converge(f"--limit={LB1}", haproxy_frontends=frontends)
        assert refused.returncode == 2
        assert "Unable to reload service haproxy" in refused.stdout
        assert set(served_by(LB1)) == BOTH
    finally:
        run(LB1, "systemctl stop taken")


def test_the_configuration_gives_no_warning(lb):
    run(lb, "haproxy -dW -c -f /etc/haproxy/haproxy.cfg")


# Refusals

OTHER_KEY = subprocess.run(
    ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    capture_output=True,
    text=True,
    check=True,
).stdout


@pytest.mark.parametrize(
    ("variables", "messages"),
    [
        pytest.param({"haproxy_global_config": "no-such-keyword"}, ["unknown keyword 'no-such-keyword'"], id="global"),
        pytest.param(
            {"haproxy_defaults_config": "timeout client soon"},
            ["unexpected character 's' in 'timeout client'"],
            id="defaults",
        ),
        pytest.param(
            edited("haproxy_frontends", "www", config="use_backend nowhere if { path /x }"),
            ["unable to find required use_backend: 'nowhere'"],
            id="frontend",
        ),
        pytest.param(
            edited("haproxy_backends", "web", balance="fair"), ["balance only supports 'roundrobin'"], id="balance"
        ),
        pytest.param(
            {
                "haproxy_certificates": [
                    {
                        "name": SITE,
                        "certificate": "{{ lookup('file', scratch ~ '/cert.pem') }}",
                        "private_key": OTHER_KEY,
                    }
                ]
            },
            [f"/etc/haproxy/certs/{SITE}.pem"],
            id="the key of another certificate",
        ),
        pytest.param(
            edited("haproxy_frontends", "www", mode="udp"), ["must be one of: http, tcp, got: udp"], id="mode"
        ),
        pytest.param({"haproxy_frontends": "www"}, ["'haproxy_frontends' is of type"], id="text for a list"),
        pytest.param(
            edited("haproxy_frontends", "www", bind=[{"port": "https"}]), ["argument 'port' is of type str"], id="port"
        ),
        pytest.param(
            edited("haproxy_backends", "web", servers=[{"name": "a", "address": "192.0.2.1"}]),
            ["missing required arguments: port"],
            id="a server without port",
        ),
        pytest.param(edited("haproxy_backends", "web", colour="red"), ["colour"], id="unknown option"),
        pytest.param(
            edited("haproxy_frontends", "www", default_backend="wbe") | {"haproxy_peer_name": "lb9"},
            ["haproxy_frontends[www].default_backend is 'wbe', which is no backend", "haproxy_peer_name is 'lb9'"],
            id="two contradictions at once",
        ),
    ],
)
def test_what_cannot_work_is_refused_and_the_old_configuration_serves(variables, messages):
    before = {lb: (files(lb), workers(lb)) for lb in LBS}
    refused = converge(**variables)
    assert refused.returncode == 2
    told = " ".join(refused.stdout.split())
    assert all(message in told for message in messages), refused.stdout
    assert {lb: (files(lb), workers(lb)) for lb in LBS} == before
    assert all(set(served_by(lb)) == BOTH for lb in LBS)
