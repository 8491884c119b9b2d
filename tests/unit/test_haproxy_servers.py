"""The servers of HAProxy, from what its runtime API says."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils import haproxy_servers

STAT = """# pxname,svname,qcur,qmax,scur,smax,status,
web,web1,0,0,3,9,UP,
web,web2,2,4,1,9,UP 1/3,
web,BACKEND,0,0,4,9,UP,
api,web1,0,0,0,1,DRAIN,
mail,mx,,,0,1,no check,
"""
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 web 1 web1 192.0.2.1 2 0 100
3 web 2 web2 192.0.2.2 2 0 100
4 api 1 web1 192.0.2.1 2 8 100
5 mail 1 mx 192.0.2.9 2 {mail} 100
"""


def servers(mail=0):
    return haproxy_servers.read(STAT, STATE.format(mail=mail))


def test_servers_are_read_and_backends_are_none():
    assert servers() == [
        {"backend": "web", "name": "web1", "state": "ready", "status": "UP", "sessions": 3, "healthy": True},
        {"backend": "web", "name": "web2", "state": "ready", "status": "UP 1/3", "sessions": 3, "healthy": False},
        {"backend": "api", "name": "web1", "state": "drain", "status": "DRAIN", "sessions": 0, "healthy": True},
        {"backend": "mail", "name": "mx", "state": "ready", "status": "no check", "sessions": 0, "healthy": True},
    ]


@pytest.mark.parametrize(
    ("bits", "state"),
    [(0, "ready"), (1, "maint"), (2, "maint"), (4, "maint"), (32, "maint"), (8, "drain"), (16, "drain"), (9, "maint")],
)
def test_a_server_is_in_the_state_that_was_set(bits, state):
    assert servers(mail=bits)[-1]["state"] == state


def test_a_backend_whose_last_server_leaves_is_named():
    every = servers()
    assert list(haproxy_servers.alone(every, every[:1])) == []
    assert list(haproxy_servers.alone(every, every[:2])) == ["web", "web"]
    assert list(haproxy_servers.alone(every, every[-1:])) == ["mail"]
    # It has left already.
    assert list(haproxy_servers.alone(every, every[2:3])) == []
