"""What is wrong is refused before a server is touched, and what was running keeps running."""

import json

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


def test_all_faults_of_the_topology_are_named_and_stop_the_run_before_any_host_is_touched():
    faults = {
        "webstack_virtual_ips": ["10.9.9.9/24", "172.30.56.11/24"],
        "webstack_weight": 1000,
        "webstack_services": {"cache": {"tier": "caches", "port": 6379}, "web": {"port": "eighty"}},
    }
    done = playbook("playbooks/site.yml", "--extra-vars", json.dumps(faults), check=False)
    assert done.returncode != 0
    for named in (
        *("webstack_virtual_ips", "10.9.9.9/24", "server1", "172.30.56.11/24", "webstack_weight", "1000", "server3"),
        *("caches", "eighty", "Remedy"),
    ):
        assert named in done.stdout
    assert done.stdout.count("\nPLAY [") == 1, done.stdout


def test_what_a_program_rejects_and_a_wrong_type_never_replace_a_configuration():
    wrong = {
        # With one load balancer lost, the run goes on to the web servers.
        "haproxy_global_config": "{{ 'no-such-keyword 1' if inventory_hostname == 'server1' else '' }}",
        "nginx_listen_port": "http",
    }
    roles = ("--tags=haproxy,nginx", "--skip-tags=intrusion_detection")
    done = playbook("playbooks/site.yml", "--extra-vars", json.dumps(wrong), *roles, check=False)
    assert done.returncode != 0
    assert "no-such-keyword" in done.stdout
    assert "nginx_listen_port" in done.stdout
