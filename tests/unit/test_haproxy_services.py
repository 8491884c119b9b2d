"""What a backend does for its servers and its clients: what is wrong with it, as a sentence."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.haproxy import faults


def found(frontend=None, **backend):
    frontends = [{"name": "www", "bind": [{"port": 80}], "default_backend": "web", **frontend}] if frontend else []
    backend = {"name": "web", "servers": [{"name": "web1", "address": "192.0.2.21", "port": 80}]} | backend
    return faults(frontends, [backend], [], [], [], "", {"address": "*", "port": 8404}, {})


@pytest.mark.parametrize(
    "backend",
    [
        {"balance": "uri depth 2", "hash_type": "consistent", "slow_start": "30s", "queue_timeout": "500ms"},
        {"balance": "hdr(X-User)", "compression": {}, "retry_on": ["503"], "retry_methods": ["GET", "PUT"]},
        {"balance": "random(3)", "error_pages": [{}, {"status": "502", "text": "über\n"}]},
        {"mode": "tcp", "balance": "hash src,ipmask(24)", "health_check": {"type": "tls", "host": "a.example"}},
        {"mode": "tcp", "health_check": {"type": "send_expect", "steps": [{"expect": "220"}, {"send": "QUIT\r\n"}]}},
        {"servers": [{"name": "web1", "address": "::1", "port": "80", "maxconn": "9", "weight": "1"}]},
    ],
)
def test_what_can_work_has_no_fault(backend):
    assert found(**backend) == []


STEP = 'such as {send: "PING\\r\\n", expect: "+PONG"}'


@pytest.mark.parametrize(
    ("backend", "fault"),
    [
        (
            {"balance": "fastest"},
            ".balance is 'fastest': use roundrobin, leastconn, first, source, random, hash and what is hashed, such as 'hash src', and "
            "in mode http also uri, 'url_param NAME' and 'hdr(NAME)'",
        ),
        (
            {"balance": "uri", "mode": "tcp"},
            ".balance is 'uri' in mode tcp, which sees no requests: use source or 'hash src', or mode http",
        ),
        (
            {"hash_type": "consistent"},
            ".hash_type is 'consistent', but balance 'roundrobin' hashes nothing: use source or uri, or leave it out",
        ),
        ({"slow_start": "a while"}, ".slow_start is 'a while': give a time, such as 500ms, 30s or 2m"),
        ({"queue_timeout": "2 s"}, ".queue_timeout is '2 s': give a time, such as 500ms, 30s or 2m"),
        (
            {"slow_start": "9s", "health_check": {"type": "none"}},
            ".slow_start is '9s' without a health_check, by which a server comes up: give one, or leave it out",
        ),
        (
            {"compression": {}, "mode": "tcp"},
            ".compression is {} in mode tcp, which sees no requests: leave it out, or use mode http",
        ),
        (
            {"error_pages": [], "mode": "tcp"},
            ".error_pages is [] in mode tcp, which sees no requests: leave it out, or use mode http",
        ),
        (
            {"compression": {"types": ["text"]}},
            ".compression.types has 'text': give a type of content, such as text/html",
        ),
        ({"retry_methods": ["get"]}, ".retry_methods has 'get': give a method in capital letters, such as GET"),
        ({"retry_methods": []}, ".retry_methods is []: give at least one, such as GET, or leave retry_on out"),
        (
            {"error_pages": [{"status": 418}]},
            ".error_pages[0].status is 418, of which HAProxy has no page: use one of 200, 400, 401, 403, 404, 405, 407, 408, 410, 413, 425, "
            "429, 500, 501, 502, 503, 504",
        ),
        (
            {"error_pages": [{}, {"status": 503}]},
            ".error_pages[1].status is 503, as is that of another: give each a status of its own",
        ),
        (
            {"error_pages": [{"text": "\x1b"}]},
            ".error_pages[0].text is '\\x1b': use lines of text, without control characters",
        ),
        (
            {"servers": [{"name": "web1", "address": "::1", "port": 80, "maxconn": 0}]},
            ".servers[web1].maxconn is 0: use 1 or more, or leave it out for no limit",
        ),
        (
            {"servers": [{"name": "web1", "address": "::1", "port": 80, "weight": "0"}]},
            ".servers have the weight 0, all of them, so that nobody is served: give one of them 1 or more",
        ),
        (
            {"health_check": {"type": "send_expect", "steps": [{"send": "PING"}]}},
            ".health_check.type is 'send_expect' in mode http: use 'http' (and tls of the backend, where its servers speak it), or mode tcp",
        ),
        (
            {"health_check": {"type": "send_expect"}, "mode": "tcp"},
            f".health_check.steps is None: give what to send and to expect, {STEP}",
        ),
        (
            {"health_check": {"steps": [{"send": "a"}]}},
            ".health_check.steps is [{'send': 'a'}], but type is 'tcp': use type: send_expect, or leave it out",
        ),
        (
            {"health_check": {"type": "send_expect", "steps": [{}]}, "mode": "tcp"},
            ".health_check.steps[0] is {}: give send, or one of expect and expect_regex, or both",
        ),
        (
            {"health_check": {"type": "send_expect", "steps": [{"send": "a\0"}]}, "mode": "tcp"},
            ".health_check.steps[0].send is 'a\\x00': use text, without control characters but for the ends of lines",
        ),
        (
            {"health_check": {"type": "send_expect", "steps": [{"expect_regex": "("}]}, "mode": "tcp"},
            ".health_check.steps[0].expect_regex is '(': missing ), unterminated subpattern at position 0: "
            "give a regular expression, such as ^220",
        ),
        ({"health_check": {"host": "a b"}}, ".health_check.host is 'a b': give a name, such as www.example.com"),
        (
            {"health_check": {"path": "health"}},
            ".health_check.path is 'health': give a path that begins with '/', such as /health, encoded",
        ),
    ],
)
def test_a_fault_says_variable_value_and_right_form(backend, fault):
    assert found(**backend) == [f"haproxy_backends[web]{fault}"]


def test_a_frontend_of_mode_tcp_has_no_pages():
    assert found({"mode": "tcp", "error_pages": []}, mode="tcp") == [
        "haproxy_frontends[www].error_pages is [] in mode tcp, which sees no requests: leave it out, or use mode http"
    ]
