"""Services in their sandbox do what they did, and cannot do the rest."""

import re
import time
import urllib.request
from contextlib import ExitStack
from functools import partial

import pytest
from conftest import ADDRESSES, STABLE

from lab import asking, wait_until

VIRTUAL = {"hardening-stable": "172.30.67.111", "hardening-sid": "172.30.67.112"}
SERVICES = ("haproxy", "keepalived", "nginx")
both = pytest.mark.parametrize("host", ADDRESSES)
each = pytest.mark.parametrize("service", SERVICES)


def ask(host):
    """Ask for the page at the virtual IP: through keepalived's address, HAProxy and nginx. None when there is no answer."""
    try:
        with urllib.request.urlopen(f"http://{VIRTUAL[host]}/", timeout=2) as response:
            return response.read().decode()
    except OSError:
        return None


def all_served():
    return all(map(ask, ADDRESSES))


@both
def test_the_page_is_served_through_all_three(hosts, host):
    wait_until(lambda: ask(host))
    assert "<p>Hardened" in ask(host)


@pytest.fixture(scope="module")
def lasting(hosts):
    """The processes of each host's services, without those of health checks, which end soon."""

    def processes():
        file = "/sys/fs/cgroup/$(systemctl show {} -P ControlGroup)/cgroup.procs"
        return {
            (host, service): set(hosts.run(host, f"cat {file.format(service)}").split())
            for host in ADDRESSES
            for service in SERVICES
        }

    before = processes()
    time.sleep(2)
    return {key: pids & before[key] for key, pids in processes().items()}


@both
@each
def test_a_process_cannot_do_what_it_need_not(hosts, lasting, host, service):
    assert lasting[host, service]
    for pid in lasting[host, service]:
        said = hosts.run(
            host,
            f"cat /proc/{pid}/status; nsenter --mount --target {pid} sh -c 'touch /usr/bin/planted /etc/planted; "
            "ls /root && echo no more' 2>&1",
        )
        status = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        bounding = int(status["CapBnd"], 16)
        assert not bounding & 1 << 21, "CAP_SYS_ADMIN"
        assert not bounding & 1 << 16, "CAP_SYS_MODULE"
        assert not bounding & 1 << 19, "CAP_SYS_PTRACE"
        assert said.count("Read-only file system") == 2
        assert said.endswith("Read-only file system\nno more\n"), "its /root is empty"


@both
def test_the_exposure_that_systemd_computes_is_much_lower(hosts, host, capsys):
    before = dict(re.findall(r"^(\w+) level for \S+: ([\d.]+)", hosts.run(host, "cat /root/exposure-before.txt"), re.M))
    for service in SERVICES:
        said = hosts.run(host, f"systemd-analyze security {service}.service --no-pager")
        after = re.search(r"level for \S+: ([\d.]+)", said).group(1)
        with capsys.disabled():
            print(f"\n{host}: exposure of {service}: {before[service]} before, {after} after")
        assert float(before[service]) > 9
        assert float(after) < 3.5


def test_reloads_under_load_fail_no_request(hosts):
    wait_until(all_served)
    with ExitStack() as stack:
        answers = {host: stack.enter_context(asking(partial(ask, host))) for host in ADDRESSES}
        for service in ["haproxy", "nginx", "keepalived"] * 2:
            for host in ADDRESSES:
                hosts.run(host, f"systemctl reload {service}")
            time.sleep(0.5)
    for host in ADDRESSES:
        assert len(answers[host]) > 100
        assert answers[host].count(None) == 0
        assert "Operation not permitted" not in hosts.run(host, "journalctl --no-pager -u haproxy -u nginx")


@both
def test_haproxy_hands_the_states_of_its_servers_on_through_reload_and_restart(hosts, host):
    def weight():
        return hosts.run(host, "echo get weight web/local | socat - /run/haproxy/admin.sock").split()[0]

    hosts.run(host, "echo set server web/local weight 50 | socat - /run/haproxy/admin.sock")
    try:
        for command in ("reload", "restart"):
            hosts.run(host, f"systemctl {command} haproxy")
            assert weight() == "50"
    finally:
        hosts.run(host, "echo set server web/local weight 100 | socat - /run/haproxy/admin.sock")
        wait_until(lambda: ask(host))


@both
def test_nginx_opens_its_logs_anew(hosts, host):
    log = "/var/log/nginx/access.log"
    hosts.run(host, f"mv {log} {log}.1 && invoke-rc.d nginx rotate")
    wait_until(lambda: ask(host) and hosts.run(host, f"cat {log}", check=False))
    assert hosts.run(host, f"stat -c %U {log}") == "www-data\n"


def test_the_virtual_ip_leaves_with_haproxy_and_comes_back(hosts):
    for host in ADDRESSES:
        hosts.run(host, "systemctl stop haproxy")
    try:
        wait_until(lambda: not any(VIRTUAL[host] in hosts.run(host, "ip -brief address") for host in ADDRESSES))
    finally:
        for host in ADDRESSES:
            hosts.run(host, "systemctl start haproxy")
    wait_until(all_served)


@pytest.mark.parametrize("service", ["keepalived", "haproxy"])
def test_a_service_that_was_killed_is_started_again_in_its_sandbox(hosts, service):
    def process(host):
        return hosts.run(host, f"systemctl show {service} -P MainPID")

    killed = {host: process(host) for host in ADDRESSES}
    for host, pid in killed.items():
        hosts.run(host, f"kill -9 {pid}")
    wait_until(lambda: all(process(host) not in (pid, "0\n") for host, pid in killed.items()))
    wait_until(all_served)


def test_a_service_that_is_no_longer_listed_loses_its_sandbox_and_nothing_is_restarted_unless_asked(hosts):
    def processes():
        return hosts.run(STABLE, f"systemctl show {' '.join(SERVICES)} -P MainPID").split()

    def exposure():
        said = hosts.run(STABLE, "systemd-analyze security nginx.service --no-pager")
        return float(re.search(r"level for \S+: ([\d.]+)", said).group(1))

    before = processes()
    directory = "/etc/systemd/system/nginx.service.d"
    hosts.run(STABLE, f"printf '[Service]\nNice=1\n' >{directory}/theirs.conf")
    try:
        done = hosts.converge(hardening_services=["haproxy", "keepalived"])
        assert done.returncode == 0, done.stdout
        assert "Another sandbox, or none, from the next start on: nginx." in " ".join(done.stdout.split())
        assert processes() == before
        assert exposure() > 9
        assert hosts.run(STABLE, f"ls {directory}") == "reload.conf\ntheirs.conf\n"
    finally:
        done = hosts.converge(hardening_restart_services=True)
        hosts.run(STABLE, f"rm {directory}/theirs.conf")
    assert done.returncode == 0, done.stdout
    assert [old == new for old, new in zip(before, processes(), strict=True)] == [True, True, False]
    assert exposure() < 3.5
    wait_until(lambda: ask(STABLE))
