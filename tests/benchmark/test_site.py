"""The time of site.yml on four fresh servers, beside what cannot be avoided, in one run.

The first run stands beside a plain shell script that installs the same packages on the four servers in parallel, and the application's Python
packages on one of them. The second run, which changes nothing, stands beside `ansible all -m setup`. Both are measured twice: without what
guards the stack (the roles firewall, hardening and intrusion_detection, and their packages) and with it. Replaces the lab, and leaves it up.
"""

import json
import re
import subprocess
import time

import pytest

import lab

EVERYWHERE = "nftables unattended-upgrades"
STACK = {
    "webstack-server1": f"{EVERYWHERE} haproxy socat keepalived",
    "webstack-server2": f"{EVERYWHERE} haproxy socat keepalived nginx",
    "webstack-server3": f"{EVERYWHERE} nginx mysql-server python3-pymysql zstd",
    "webstack-server4": f"{EVERYWHERE} haproxy socat python3-pip mysql-server python3-pymysql zstd",
}
HOST = "systemd-timesyncd aide auditd"
EDGE = f"{HOST} suricata logrotate fail2ban python3-systemd"
GUARDS = {"webstack-server1": EDGE, "webstack-server2": EDGE, "webstack-server3": HOST, "webstack-server4": HOST}
WITHOUT_GUARDS = {
    "hardening_time": False,
    **{f"intrusion_detection_{part}": False for part in ("aide", "auditd", "fail2ban", "suricata")},
}
UNGUARDED = (
    "--tags=haproxy,keepalived,nginx,gunicorn,mysql_server,mysql_primary,mysql_replica",
    f"--extra-vars={json.dumps(WITHOUT_GUARDS)}",
)
INSTALL = """
export DEBIAN_FRONTEND=noninteractive PIP_CERT=/etc/ssl/certs/ca-certificates.crt
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages}
"""
# What the lab's image has to be quick: recent lists of packages, and what keeps Ansible's modules compiled.
AS_INSTALLED = "touch --date=@0 /var/lib/apt/lists; rm /usr/lib/python3/dist-packages/webstack_lab.pth"
APPLICATION = "python3 -m venv --without-pip /srv/baseline && pip --python /srv/baseline install --quiet {packages}"


def seconds(function, *arguments, **options):
    begin = time.monotonic()
    result = function(*arguments, **options)
    return time.monotonic() - begin, result


def fresh_lab():
    lab.playbook("molecule/default/destroy.yml")
    lab.playbook("molecule/default/create.yml")
    for name in STACK:
        lab.inside(name, AS_INSTALLED)


def install_with_a_shell_script(guarded):
    pins = (lab.CHECKOUT / "playbooks/files/guestbook/requirements.txt").read_text()
    application = APPLICATION.format(packages=" ".join(["gunicorn", *re.findall(r"^[\w-]+==\S+", pins, re.MULTILINE)]))
    jobs = [
        subprocess.Popen(
            [
                "docker",
                "exec",
                name,
                "sh",
                "-ec",
                INSTALL.format(packages=f"{packages} {GUARDS[name] if guarded else ''}")
                + (application if "pip" in packages else ""),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, packages in STACK.items()
    ]
    assert [job.wait(timeout=600) for job in jobs] == [0] * len(jobs)


def count(output):
    """Say how many tasks were named, and how often one ran on a host."""
    tasks = len(re.findall("^TASK ", output, re.MULTILINE))
    executions = sum(map(int, re.findall(r"\bok=(\d+)", output)))
    return f"{tasks} tasks, {executions} on a host"


@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
def test_site(capsys, guarded):
    site = ("playbooks/site.yml", *(() if guarded else UNGUARDED))
    fresh_lab()
    script, _ = seconds(install_with_a_shell_script, guarded)
    fresh_lab()
    first, begun = seconds(lab.playbook, *site)
    facts, _ = seconds(lab.run, "ansible", "--inventory", lab.INVENTORY, "all", "--module-name", "setup", timeout=300)
    second, repeated = seconds(lab.playbook, *site)
    assert set(re.findall(r"changed=(\d+)", repeated.stdout)) == {"0"}, repeated.stdout
    with capsys.disabled():
        print("\nthe whole stack" if guarded else "\nwithout the roles firewall, hardening and intrusion_detection")
        print(
            f"first run   {first:5.1f} s ({count(begun.stdout)})   shell script {script:5.1f} s   ratio {first / script:4.2f} (aim 2.0)"
        )
        print(
            f"second run  {second:5.1f} s ({count(repeated.stdout)})   facts        {facts:5.1f} s   ratio {second / facts:4.2f} (aim 6.0)"
        )
