"""What is wrong is refused before a server is touched, and what was running keeps running."""

import pytest

from lab import get, on, playbook


def fingerprint():
    """Configuration and start time of every service: what must not change."""
    command = (
        "sha256sum /etc/haproxy/haproxy.cfg /etc/keepalived/keepalived.conf /etc/nginx/nginx.conf /etc/mysql/mysql.conf.d/*.cnf; "
        "systemctl show --property=ActiveEnterTimestampMonotonic,MainPID haproxy keepalived nginx mysql"
    )
    return {
        server: on(server, command + " 2>/dev/null", check=False).stdout
        for server in ("server1", "server2", "server3", "server4")
    }


@pytest.fixture(autouse=True)
def nothing_changes():
    before = fingerprint()
    yield
    assert fingerprint() == before
    assert get("/").status == 200


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ('{"webstack_virtual_ips": ["10.9.9.9/24"]}', ["webstack_virtual_ips", "10.9.9.9/24", "Remedy"]),
        ('{"webstack_virtual_ips": ["172.30.56.11/24"]}', ["server1", "172.30.56.11/24"]),
        ('{"webstack_weight": 1000}', ["webstack_weight", "1000", "server3"]),
        ('{"webstack_services": {"cache": {"tier": "caches", "port": 6379}}}', ["caches"]),
        ('{"webstack_services": {"web": {"port": "eighty"}}, "webstack_weight": 0}', ["eighty", "webstack_weight"]),
    ],
)
def test_a_fault_of_the_topology_stops_the_run_before_any_host_is_touched(variables, named):
    done = playbook("playbooks/site.yml", "--extra-vars", variables, check=False)
    assert done.returncode != 0
    for word in named:
        assert word in done.stdout
    assert "Gathering Facts" not in done.stdout


def test_a_snippet_that_haproxy_rejects_never_replaces_the_configuration():
    done = playbook("playbooks/site.yml", "--extra-vars", '{"haproxy_global_config": "no-such-keyword 1"}', check=False)
    assert done.returncode != 0
    assert "no-such-keyword" in done.stdout


@pytest.mark.parametrize(
    "variables",
    ['{"haproxy_maxconn": "many"}', '{"keepalived_advert_interval": "often"}', '{"nginx_listen_port": "http"}'],
)
def test_a_wrong_type_is_named(variables):
    done = playbook("playbooks/site.yml", "--extra-vars", variables, check=False)
    assert done.returncode != 0
    assert variables.split('"')[1] in done.stdout
