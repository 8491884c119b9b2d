"""Every point of dev-sec's baselines that BASELINE.md calls met, checked on both releases."""

import re
import subprocess

import pytest
from conftest import ADDRESSES

from lab import CHECKOUT

TABLE = dict(
    re.findall(
        r"^\| ([a-z]+-\d+\w?)[^|]* \| (met|choice|elsewhere|declined|n/a) \|",
        (CHECKOUT / "roles/hardening/BASELINE.md").read_text(),
        re.M,
    )
)


# OpenSSH 10.6 prints some values in another form.
SSHD = "sshd -T | sed 's/ false$/ no/; s/ true$/ yes/; s/ prohibit-password$/ without-password/'"


def sshd(**settings):
    """What sshd says of itself."""
    return " && ".join(f"{SSHD} | grep -qix '{name} {value}'" for name, value in settings.items())


def sysctl(*settings):
    """What is set at every boot; a container's kernel has its own values."""
    return " && ".join(f"/usr/lib/systemd/systemd-sysctl --cat-config | grep -qxF '{setting}'" for setting in settings)


def kernel(*settings):
    """What the kernel says."""
    return " && ".join(f"test $(cat /proc/sys/{name}) = {value}" for name, value in (s.split("=") for s in settings))


def absent(package):
    return f"! dpkg-query --show {package}"


def both(key, value):
    return f"net.ipv4.conf.all.{key} = {value}", f"net.ipv4.conf.default.{key} = {value}"


PAGE = "curl --silent --show-error --include http://127.0.0.1:8080/"
CHECKS = {
    "os-01": "test ! -e /etc/hosts.equiv",
    "os-02": "test $(stat -c %U:%G:%a /etc/shadow) = root:shadow:640",
    "os-03": "test $(stat -c %U:%G:%a /etc/passwd) = root:root:644",
    "os-03b": "! cut -d: -f2 /etc/passwd | grep -v '^[x*]$'",
    "os-04": "! echo $PATH | tr : '\\n' | grep -x '\\.\\|'",
    "os-07": "! (cut -d: -f3 /etc/passwd | sort | uniq -d | grep . || cut -d: -f3 /etc/group | sort | uniq -d | grep .)",
    "os-09": "! find / -maxdepth 3 \\( -iname .rhosts -o -iname .netrc \\) -print 2>/dev/null | grep .",
    "os-10": 'for m in cramfs freevxfs jffs2 hfs hfsplus; do grep -qx "install $m /bin/false" /etc/modprobe.d/*.conf || exit 1; done',
    "os-11": "test $(stat -c %U:%G /var/log) = root:root",
    "os-13": "test $(stat -c %a /etc/crontab) = 600 && ! stat -c %a /etc/cron.* | grep -v 700",
    "package-01": absent("inetd") + " && " + absent("xinetd"),
    "package-02": absent("telnetd"),
    "package-03": absent("rsh-server"),
    "package-05": absent("ypserv"),
    "package-06": absent("tftp-server"),
    "package-09": absent("prelink"),
    "sysctl-01": "! /usr/lib/systemd/systemd-sysctl --cat-config | grep -E 'ip_forward|[.]forwarding *= *1'",
    "sysctl-02": sysctl(*both("rp_filter", 1)),
    "sysctl-03": sysctl("net.ipv4.icmp_ignore_bogus_error_responses = 1"),
    "sysctl-04": sysctl("net.ipv4.icmp_echo_ignore_broadcasts = 1"),
    "sysctl-08": sysctl("net.ipv4.conf.all.arp_ignore = 1"),
    "sysctl-09": sysctl("net.ipv4.conf.all.arp_announce = 2"),
    "sysctl-10": sysctl("net.ipv4.tcp_rfc1337 = 1"),
    "sysctl-11": sysctl("net.ipv4.tcp_syncookies = 1"),
    "sysctl-12": kernel("net/ipv4/conf/all/shared_media=1", "net/ipv4/conf/default/shared_media=1"),
    "sysctl-13": sysctl(*both("accept_source_route", 0), "net.ipv6.conf.*.accept_source_route = 0"),
    "sysctl-14": sysctl(*both("accept_redirects", 0)),
    "sysctl-15": sysctl(*both("secure_redirects", 0)),
    "sysctl-16": sysctl(*both("send_redirects", 0)),
    "sysctl-17": sysctl(*both("log_martians", 1)),
    "sysctl-19": kernel("net/ipv6/conf/all/forwarding=0"),
    "sysctl-20": sysctl("net.ipv6.conf.*.accept_redirects = 0"),
    "sysctl-29": "! grep -q 1 /proc/sys/kernel/modules_disabled",
    "sysctl-30": sysctl("kernel.sysrq = 0"),
    "sysctl-31a": sysctl("fs.suid_dumpable = 0"),
    "sysctl-32": sysctl("kernel.randomize_va_space = 2"),
    "sysctl-34": sysctl(
        "fs.protected_fifos = 2", "fs.protected_hardlinks = 1", "fs.protected_regular = 2", "fs.protected_symlinks = 1"
    ),
    "sshd-01": sshd(
        ciphers="chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr"
    ),
    "sshd-02": "! sshd -T | grep -i ^kexalgorithms | tr ' ,' '\\n\\n' | grep -vi 'kexalgorithms\\|^mlkem\\|^sntrup761\\|^curve25519'",
    "sshd-03": "! sshd -T | grep -i ^macs | tr ' ,' '\\n\\n' | grep -vi 'macs\\|-etm@openssh.com$'",
    "sshd-04": "test $(stat -c %U:%G:%a /etc/ssh) = root:root:755",
    "sshd-05": "test $(stat -c %U:%G:%a /etc/ssh/sshd_config) = root:root:600",
    "sshd-06": sshd(permitrootlogin="without-password"),
    "sshd-07": sshd(port=22),
    "sshd-08": sshd(addressfamily="any"),
    "sshd-11": sshd(strictmodes="yes"),
    "sshd-12": sshd(syslogfacility="AUTH"),
    "sshd-13": sshd(loglevel="VERBOSE"),
    "sshd-14": "for k in rsa ecdsa ed25519; do sshd -T | grep -qix hostkey./etc/ssh/ssh_host_${k}_key || exit 1; done",
    "sshd-17": sshd(permituserenvironment="no"),
    "sshd-18": sshd(logingracetime=30),
    "sshd-20": sshd(maxsessions=10),
    "sshd-21": sshd(maxstartups="10:30:100"),
    "sshd-22": sshd(pubkeyauthentication="yes"),
    "sshd-23": sshd(ignorerhosts="yes"),
    "sshd-24": sshd(ignoreuserknownhosts="yes"),
    "sshd-25": sshd(hostbasedauthentication="no"),
    "sshd-27": sshd(passwordauthentication="no"),
    "sshd-28": sshd(permitemptypasswords="no"),
    "sshd-29": sshd(kbdinteractiveauthentication="no"),
    "sshd-30": "! sshd -T | grep -i 'kerberosauthentication yes'",
    "sshd-33": "! sshd -T | grep -i 'gssapiauthentication yes'",
    "sshd-35": sshd(tcpkeepalive="no"),
    "sshd-36": sshd(clientaliveinterval=300),
    "sshd-37": sshd(clientalivecountmax=2),
    "sshd-38": sshd(permittunnel="no"),
    "sshd-39": sshd(allowtcpforwarding="no"),
    "sshd-40": sshd(allowagentforwarding="no"),
    "sshd-41": sshd(gatewayports="no"),
    "sshd-42": sshd(x11forwarding="no"),
    "sshd-43": sshd(x11uselocalhost="yes"),
    "sshd-44": sshd(printmotd="no"),
    "sshd-46": sshd(banner="/etc/issue.net"),  # the scenario has one
    "sshd-47": "bash -c 'exec 3<>/dev/tcp/127.0.0.1/22; read -r said <&3; echo \"$said\"' | grep '^SSH-2.0-OpenSSH' | grep -qvi debian",
    "sshd-49": "! ps -o args= -C sshd | grep -E 'oCiphers|oKexAlgorithms|oHostKeyAlgorithms'",
    "ssh-01": "test ! -e /etc/ssh/ssh_config || test $(stat -c %U:%G:%a /etc/ssh/ssh_config) = root:root:644",  # sid has none
    "nginx-01": "ps -o user= -o args= -C nginx | grep 'worker process' | grep -q ^www-data",
    "nginx-03": "! nginx -T 2>/dev/null | grep -E 'include.*sites-enabled|conf.d'",
    "nginx-04": "test $(ps -o args= -C nginx | grep -c 'master process') = 1",
    "nginx-05": PAGE + " | grep -qix 'server: nginx.'",
    "nginx-08": PAGE + " | grep -qi '^x-frame-options: DENY'",
    "nginx-10": PAGE + " | grep -qi '^x-content-type-options: nosniff'",
    "nginx-15": PAGE + " | grep -qi '^content-security-policy: default-src'",
    "nginx-17": "nginx -T 2>/dev/null | grep -q 'client_header_timeout 10s;' && nginx -T 2>/dev/null | grep -q 'client_body_timeout 10s;'",
}


def test_every_point_that_is_called_met_is_checked():
    assert {point for point, answer in TABLE.items() if answer == "met"} == set(CHECKS)
    assert len(TABLE) > 120


@pytest.fixture(scope="module")
def answers():
    """What each check ended with and said, on each host, all in one go."""
    script = "\n".join(
        f"said=$( ( {check} ) 2>&1 </dev/null | tr '\\n' ' '; exit ${{PIPESTATUS[0]}} ); echo \"{point} $? $said\""
        for point, check in CHECKS.items()
    )
    done = {
        host: subprocess.run(["docker", "exec", host, "bash", "-c", script], capture_output=True, text=True, check=True)
        for host in ADDRESSES
    }
    return {
        host: {line.split()[0]: line.split(None, 2)[1:] for line in done[host].stdout.splitlines()}
        for host in ADDRESSES
    }


@pytest.mark.parametrize("host", ADDRESSES)
@pytest.mark.parametrize("point", CHECKS)
def test_the_point_is_met(answers, host, point):
    code, *said = answers[host][point]
    assert code == "0", f"{CHECKS[point]}: {said}"
