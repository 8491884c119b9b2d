"""What the README's example of TCP services does with connections."""

import csv
import json
import socket
from contextlib import suppress

import pytest
from conftest import SERVERS
from test_haproxy import CLIENT, LBS, ask, database, run, runtime, trust

from lab import wait_until


@pytest.fixture
def mute():
    """Let a server say nothing to a PING; at the end all answer."""
    yield lambda number: run(SERVERS, f"touch /run/server-{number}/mute")
    run(SERVERS, "rm -f /run/server-*/mute")
    wait_until(lambda: all(states(lb, "redis")["redis1"][0] == "UP" for lb in LBS))


def states(lb, backend):
    """What HAProxy thinks of each server, and by which result of its check."""
    rows = csv.DictReader(runtime(lb, f"show stat {backend} 4 -1").removeprefix("# ").splitlines())
    return {
        row["svname"]: (row["status"].split()[0], row["check_status"].removeprefix("* "))
        for row in rows
        if row["svname"]
    }


def common_name(lb, name):
    """Whose certificate a client gets that asks for this name, or for none."""
    context = trust()
    context.check_hostname = False
    with (
        socket.create_connection((LBS[lb], 8110), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        return dict(field for (field,) in tls.getpeercert()["subject"])["commonName"]


def test_tls_is_passed_on_to_the_server_of_the_name(lb):
    expected = {
        "git.example.com": "servers",
        "GIT.example.com": "servers",
        "a.git.example.com": "servers",
        "legit.example.com": "stranger",
        None: "stranger",
    }
    assert {name: common_name(lb, name) for name in expected} == expected


def test_a_server_that_accepts_connections_but_speaks_no_tls_is_not_healthy(lb):
    wait_until(lambda: states(lb, "handshake") == {"secure": ("UP", "L6OK"), "plain": ("DOWN", "L6RSP")})


def test_a_server_that_says_what_it_should_is_used_and_told_the_client_in_a_line_of_text(lb):
    wait_until(lambda: states(lb, "announced") == {"first": ("UP", "L7OK"), "second": ("DOWN", "L7TOUT")})
    with socket.create_connection((LBS[lb], 8113), timeout=20) as session, session.makefile() as lines:
        assert next(lines) == "database1\n"
        # It says what it hears.
        assert next(lines).startswith(f"PROXY TCP4 {CLIENT} {LBS[lb]} ")


def test_a_client_of_another_network_is_sent_away(lb):
    session, name = database(lb, 6379)
    with session:
        assert name == "database1"
    connection = f"socket.create_connection(('{LBS[lb]}', 6379), 20)"
    heard = run(SERVERS, f'python3 -c "import socket; print({connection}.recv(100))" 2>&1 || true')
    assert heard == "b''\n" or "ConnectionResetError" in heard


def test_a_server_that_does_not_answer_as_it_should_takes_no_connection(mute):
    mute(1)
    for lb in LBS:
        wait_until(lambda lb=lb: states(lb, "redis")["redis1"] == ("DOWN", "L7TOUT"))
        session, name = database(lb, 6379)
        with session:
            assert name == "database2"


def test_a_client_is_known_behind_a_proxy_that_is_trusted_and_nobody_else_is(lb):
    response = ask(lb, scheme="http", port=8111)
    assert json.loads(response.content)["x-forwarded-for"] == [CLIENT]
    # Neither with a header of its own making
    for opening in (b"", b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 80\r\n"):
        with suppress(ConnectionError), socket.create_connection((LBS[lb], 8112), timeout=20) as session:
            session.sendall(opening + b"GET / HTTP/1.0\r\n\r\n")
            assert session.recv(100) == b""
