"""What the rest of the system does after the role, asked of the programs themselves; and an independent auditor's word."""

import re

import pytest
from conftest import ADDRESSES, BARE, SID, STABLE

import lab

both = pytest.mark.parametrize("host", ADDRESSES)
# Warnings of lynis that no role can mend: in a container, or of a machine that has just been made.
ELSEWHERE = {
    "FIRE-4512",  # an empty firewall is the firewall role's
    "FIRE-4590",  # no firewall at all
    "NETW-2705",  # fewer than two name servers answer: the engine's one
    "KRNL-5830",  # a reboot is due: it compares the host's kernel with the packages
    "PKGS-7392",  # updates wait: the images are older than the archive
}


def test_lynis_rates_the_host_higher_and_warns_of_nothing_that_could_be_mended(hosts, capsys):
    hosts.run(STABLE, "lynis audit system --quick --no-colors >/root/lynis-after.txt 2>&1; true")
    scores = {}
    for when, path in {"before": "/root/lynis-before.dat", "after": "/var/log/lynis-report.dat"}.items():
        report = hosts.run(STABLE, f"cat {path}")
        scores[when] = int(re.search(r"^hardening_index=(\d+)", report, re.M).group(1))
        warnings = set(re.findall(r"^warning\[\]=([^|]+)\|", report, re.M))
        suggestions = len(re.findall(r"^suggestion\[\]=", report, re.M))
        with capsys.disabled():
            print(
                f"\n{STABLE}: lynis {when}: {scores[when]}, {suggestions} suggestions, warnings: {sorted(warnings) or 'none'}"
            )
    assert scores["after"] >= scores["before"] + 8
    assert not warnings - ELSEWHERE


def test_security_updates_alone_are_installed_and_not_of_the_database(hosts):
    said = hosts.run(STABLE, "unattended-upgrade --dry-run --verbose 2>&1")
    assert "Allowed origins are: origin=Debian,codename=trixie-security,label=Debian-Security" in said
    assert "Initial blacklist: mysql- mariadb-" in said


@both
def test_updates_come_at_the_time_that_was_given(hosts, host):
    said = hosts.run(host, "systemctl show apt-daily-upgrade.timer")
    assert "OnCalendar=*-*-* 03:30:00" in said
    assert said.count("OnCalendar=") == 1
    assert "ActiveState=active" in said
    assert 'APT::Periodic::Unattended-Upgrade "1";' in hosts.run(host, "apt-config dump")


@both
def test_the_journal_outlives_a_boot_and_has_a_limit(hosts, host):
    said = hosts.run(host, "journalctl --no-pager --unit systemd-journald")
    assert re.search(r"System Journal \(/var/log/journal/\w+\) is .*, max 1G,", said)


@both
def test_no_core_is_dumped(hosts, host):
    assert hosts.run(host, "systemd-run --quiet --pipe --wait sh -c 'ulimit -Hc'") == "0\n"
    assert hosts.ssh(host, "alice", command="ulimit -Hc").stdout == "0\n"


@both
def test_a_blocked_module_is_not_loaded(hosts, host):
    assert "install /bin/false" in hosts.run(host, "modprobe --dry-run --verbose tipc 2>&1; true")


@both
def test_the_clock_is_kept_where_it_can_be(hosts, host):
    assert hosts.run(host, "systemctl is-enabled systemd-timesyncd") == "enabled\n"
    assert hosts.run(host, "systemctl show systemd-timesyncd -P ActiveState") == "inactive\n", (
        "a container has its host's clock"
    )
    assert hosts.run(host, "systemctl show systemd-timesyncd -P Result") == "success\n"


@both
def test_the_kernel_parameters_are_set_at_every_boot(hosts, host):
    said = hosts.run(host, "/usr/lib/systemd/systemd-sysctl --cat-config")
    for line in ("net.ipv4.conf.all.rp_filter = 1", "net.ipv6.conf.*.accept_redirects = 0", "no.such.parameter = 1"):
        assert line in said.splitlines()
    assert "perf_event_paranoid" not in said


def test_what_a_host_lacks_or_does_not_allow_is_said_and_fails_nothing(hosts):
    done = hosts.converge("-v", host=BARE, hardening_kernel_parameters={"no.such.parameter": 1})
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout
    assert "sshd is not installed" in said
    assert re.search(r"does not let the host set \d+ parameters \(kernel.kptr_restrict, ", said)
    assert "- no.such.parameter" in said
    hosts.run(BARE, "test ! -e /etc/ssh/sshd_config.d/00-webstack.conf")


def test_bad_input_is_refused_before_anything_changes(hosts):
    refused = [
        ({"hardening_sshd_permit_root_login": "yes"}, "hardening_sshd_permit_root_login"),
        ({"hardening_sshd_config": "X11Forwarding no\n  Match User bob"}, "put it into a file of its own"),
        (
            {"hardening_sshd_revert_after": 3},
            "hardening_sshd_revert_after is 3: a new connection needs at least 10 seconds",
        ),
        ({"hardening_updates_time": "25:00"}, "hardening_updates_time is 25:00: write a time of day as 04:00"),
        ({"hardening_updates_blacklist": ['a"; b']}, "hardening_updates_blacklist"),
        (
            {"hardening_kernel_parameters": {"sysrq": 1}},
            "hardening_kernel_parameters: sysrq is not the name of a parameter",
        ),
        (
            {"hardening_blocked_modules": ["tipc; rm"]},
            "hardening_blocked_modules: tipc; rm is not the name of a kernel module",
        ),
        ({"hardening_services": ["apache2"]}, "hardening_services"),
        ({"hardening_journal_max_use": "much"}, "hardening_journal_max_use is much"),
    ]
    files = "find /etc -newer /etc/hostname -type f | sort | xargs md5sum"
    before = hosts.run(SID, files)
    lab.assert_refused("hardening", refused, f"--limit={SID}")
    assert hosts.run(SID, files) == before
