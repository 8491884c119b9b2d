"""What the site loses while it is worked on, under a constant load of visitors and sessions."""

import re
import shutil
import time
from contextlib import contextmanager

import pytest
import yaml
from conftest import BALANCERS, CLIENT, FIFTH, FIFTH_ADDRESS, INVENTORY, PRIMARY, VIRTUAL_IPS, Load

from lab import CHECKOUT, SITE, run, wait_until

FIRST, SECOND = BALANCERS
# Without what guards the site, as molecule.yml has it, and without the packages of that.
UNGUARDED = "--skip-tags=hardening,intrusion_detection,mysql_backup"
# What a host that joins or leaves concerns.
TIERS = "--tags=firewall,haproxy,gunicorn,nginx,mysql_server,mysql_primary,mysql_replica"
ENTRIES = "SELECT message FROM guestbook.entries"
FOLLOWERS = "SELECT HOST FROM performance_schema.processlist WHERE COMMAND LIKE 'Binlog Dump%'"
# Gives a host a newer version of a package that it has, from a repository of its own: the same content.
NEWER = """
set -e
mkdir -p /srv/newer && cd /srv/newer && rm -rf tree *
apt-get download -qq {package}=$(apt-cache madison {package} | grep -v newer | head -n 1 | cut -d '|' -f 2 | tr -d ' ') >/dev/null
dpkg-deb -R {package}_*.deb tree && rm {package}_*.deb
sed -i 's/^Version: .*/&+newer/' tree/DEBIAN/control
{change}
dpkg-deb -Zgzip -z1 -b tree {package}.deb >/dev/null
{{ dpkg-deb -f {package}.deb; echo "Filename: ./{package}.deb"; echo "Size: $(stat -c %s {package}.deb)"
  echo "SHA256: $(sha256sum {package}.deb | cut -d ' ' -f 1)"; }} >Packages
echo 'deb [trusted=yes] file:/srv/newer ./' >/etc/apt/sources.list.d/newer.list
"""


def newer(site, host, package, change="true"):
    site.on(host, NEWER.format(package=package, change=change), timeout=120)


def version(site, host, package):
    return site.on(host, f"dpkg-query --show --showformat='${{db:Status-Abbrev}} ${{Version}}' {package}").stdout


def begun(site, host, *services):
    """What changes for each service whenever it begins anew."""
    ask = "systemctl show --property InvocationID --value"
    return {service: site.on(host, f"{ask} {service}").stdout.strip() for service in services}


@pytest.mark.parametrize("balancer", BALANCERS)
def test_http3_comes_through_the_firewall_to_each_virtual_ip(site, balancer):
    target = f"--resolve {SITE}:443:{VIRTUAL_IPS[balancer]} https://{SITE}/"
    head = site.on(CLIENT, f"curl -sS -I --max-time 5 --http3-only --cacert /root/ca.crt {target}").stdout
    assert head.startswith("HTTP/3 200"), head


@pytest.mark.parametrize("balancer", BALANCERS)
def test_frontends_and_backends_of_the_inventory_stand_beside_the_sites_own(site, balancer):
    """See webstack_frontends and webstack_backends in the inventory."""
    address = VIRTUAL_IPS[balancer]
    route = f"--resolve {SITE}:443:{address} --cacert /root/ca.crt https://{SITE}/old/page"
    head = site.on(CLIENT, f"curl -sS -I --max-time 5 {route}").stdout
    assert "301" in head.splitlines()[0]
    assert "location: /new/old/page" in head
    ask = f"curl -sS -o /dev/null -D - --max-time 5 --header 'Host: {SITE}' http://{address}:8081/"
    answers = site.on(CLIENT, f"for n in $(seq 8); do {ask}; done").stdout
    servers = re.findall(r"(?i)^x-served-by: (\S+)", answers, re.MULTILINE)
    assert len(servers) == 8
    assert len(set(servers)) == 1  # balance: source


# Nothing fails.


def route(reader):
    """The web server, the application server and the database from which a visitor gets a page of the guestbook."""
    status, _, page = reader.ask("GET")
    assert status == 200, page
    return re.findall(r"<small>(?:web server|application server|read from database)</small> ([\w-]+)", page)


def test_a_host_joins_as_web_server_application_server_and_replica(site):
    assert FIFTH not in site.serving()
    site.joined = True
    before = [site.asked(balancer) for balancer in BALANCERS]
    with (
        Load("a web server, an application server and a replica are added (`scale`)") as load,
        site.signers() as signers,
    ):
        site.do("scale", TIERS, UNGUARDED)
        for place in range(3):
            wait_until(lambda place=place: route(signers)[place] == FIFTH)
        signed = len(signers.signed)
        wait_until(lambda: len(signers.signed) > signed + 10)
    assert load.result["failed"] == 0, load.result
    assert load.result["moved"] == 0, load.result
    assert signers.failures == []
    assert set(signers.signed) <= set(site.query(FIFTH, ENTRIES))
    # Both load balancers carry it.
    shares = [site.asked(balancer) - count for balancer, count in zip(BALANCERS, before, strict=True)]
    assert min(shares) > 0.3 * sum(shares), shares


@contextmanager
def slow_reader(site):
    """Somebody holds a request to the fifth server, through the first load balancer, for longer than a drain waits."""
    site.on(FIFTH, "truncate --size 64M /var/www/site/current/slow.bin")
    ask = f"curl -so /dev/null --limit-rate 100k --cacert /root/ca.crt --cookie SERVER={FIFTH}"
    target = f"--resolve {SITE}:443:{VIRTUAL_IPS[FIRST]} https://{SITE}/slow.bin"
    site.on(CLIENT, f"systemd-run --quiet --unit slow {ask} {target}")
    try:
        wait_until(lambda: site.sessions(FIRST)[FIFTH] == 1)
        yield
    finally:
        site.on(CLIENT, "systemctl stop slow", check=False)
        site.on(FIFTH, "rm /var/www/site/current/slow.bin")


def test_a_drain_that_does_not_end_is_taken_back_or_cut_off_and_then_lasts_until_it_is_ended(site, tmp_path):
    way = {"ansible_connection": "ssh", "ansible_host": "172.30.73.12", "ansible_timeout": 2}
    away = tmp_path / "away.yml"
    away.write_text(yaml.safe_dump({"all": {"hosts": {SECOND: way}}}))
    with slow_reader(site):
        done = site.playbook("drain", drain_host=FIFTH, drain_timeout=2)
        assert done.returncode != 0
        said = " ".join(done.stdout.split())
        assert "is in service as before: after 2 s it is still answering:" in said
        assert f"{FIRST}: web/{FIFTH} 1 requests or connections." in said
        assert f"{SECOND}: web/{FIFTH} 1 requests" not in said
        assert [site.servers(balancer)[FIFTH] for balancer in BALANCERS] == ["UP", "UP"]
        with Load("a web server is drained and comes back (`drain`, `undrain`)") as load:
            # A load balancer out of reach is said and passed over,
            said = site.do("drain", "--inventory", away, drain_host=FIFTH, drain_timeout=2, drain_cut=True)
            assert f"{SECOND} is passed over: " in said
            assert [site.servers(balancer)[FIFTH] for balancer in BALANCERS] == ["MAINT", "UP"]
            # and hears of it when it can be reached.
            site.on(CLIENT, "systemctl stop slow")
            site.do("drain", drain_host=FIFTH)
            assert [site.servers(balancer)[FIFTH] for balancer in BALANCERS] == ["MAINT", "MAINT"]
            assert FIFTH not in site.serving()
            # Nobody notices that it is really gone, nor brings a reload it back.
            site.on(FIFTH, "systemctl stop nginx")
            for balancer in BALANCERS:
                site.on(balancer, "systemctl reload haproxy")
            time.sleep(1)
            assert FIFTH not in site.serving()
            site.on(FIFTH, "systemctl start nginx")
            site.do("undrain", drain_host=FIFTH)
            wait_until(lambda: FIFTH in site.serving())
    assert load.result["failed"] == 0, load.result
    # Those that were there, once.
    assert load.result["moved"] <= len(load.result["sessions"]), load.result
    assert FIFTH not in load.result["sessions"]


def test_an_upgrade_of_web_servers_ends_at_a_failure_and_goes_on_when_it_is_repeated(site):
    newer(site, SECOND, "nginx", change="echo 'exit 1' >tree/DEBIAN/preinst && chmod 755 tree/DEBIAN/preinst")
    newer(site, FIFTH, "nginx")
    try:
        with Load("an upgrade of nginx fails (`rolling_update`)") as load:
            done = site.playbook("rolling_update", tiers="webservers")
        assert done.returncode != 0
        assert f"{SECOND} stays out of service" in done.stdout
        assert [site.servers(balancer)[SECOND] for balancer in BALANCERS] == ["MAINT", "MAINT"]
        assert not version(site, FIFTH, "nginx").endswith("+newer")
        assert load.result["failed"] == 0, load.result

        site.on(SECOND, "rm /etc/apt/sources.list.d/newer.list")
        with Load("nginx is upgraded (`rolling_update`), and the one that failed comes back (`undrain`)") as load:
            said = site.do("rolling_update", tiers="webservers")
            site.do("undrain", drain_host=SECOND)
        assert version(site, FIFTH, "nginx").endswith("+newer")
        assert said.count("nginx: nothing to upgrade.") == 2
        assert f"To bring it back: foobar.webstack.undrain -e drain_host={SECOND}" in " ".join(said.split())
        assert load.result["failed"] == 0, load.result
    finally:
        site.on(SECOND, "rm -f /etc/apt/sources.list.d/newer.list")
        if site.servers(FIRST)[SECOND] != "UP":
            site.do("undrain", drain_host=SECOND)


def test_an_upgrade_of_a_load_balancer_and_of_a_library_for_each_tier_that_shares_a_host(site):
    library, services = "libpcre2-8-0", ("nginx", "haproxy")
    newer(site, FIRST, "haproxy")
    newer(site, SECOND, library)
    # A dry run knows of it without changing anything, from lists that it has fetched.
    said = " ".join(site.do("rolling_update", "--check", tiers="webservers", packages=library).split())
    assert re.search(rf"Inst {library}\b.*newer", said), said
    assert not version(site, SECOND, library).endswith("+newer")
    before = {balancer: begun(site, balancer, *services) for balancer in BALANCERS}
    with Load("HAProxy and a library are upgraded, virtual IPs go and return (`rolling_update`)") as load:
        said = " ".join(site.do("rolling_update", packages=f"haproxy,{library}").split())
        time.sleep(1)
    assert version(site, FIRST, "haproxy").endswith("+newer")
    assert version(site, SECOND, library).endswith("+newer")
    assert begun(site, FIRST, "haproxy") != {"haproxy": before[FIRST]["haproxy"]}
    assert "haproxy runs with a replaced /usr/lib" in said
    assert not set(begun(site, SECOND, *services).values()) & set(before[SECOND].values())
    assert site.whole()
    # Nobody else had anything to do.
    assert said.count(f"haproxy, {library}: nothing to upgrade.") == len(site.web_servers()) - 1
    # What is in flight when a virtual IP goes, or comes back, is reset; the sessions of the web server that is upgraded move.
    assert load.result["failed"] <= len(load.result["sessions"]), load.result
    assert load.result["moved"] <= len(load.result["sessions"]), load.result


def test_an_upgrade_of_application_servers(site):
    unlike = "sed -i 's/^Version: 3[.][0-9]*/Version: 3.99/' tree/DEBIAN/control"
    newer(site, PRIMARY, "python3", change=unlike)
    newer(site, FIFTH, "haproxy")
    before = [begun(site, server, "guestbook", "haproxy", "mysql") for server in (PRIMARY, FIFTH)]
    done = site.playbook("rolling_update", tiers="appservers")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert f"{PRIMARY} was left as it is: python3 would become 3.99, and guestbook is installed for 3." in said
    assert not version(site, FIFTH, "haproxy").endswith("+newer")
    assert before == [begun(site, server, "guestbook", "haproxy", "mysql") for server in (PRIMARY, FIFTH)]

    newer(site, PRIMARY, "zlib1g")
    upgrade = "the application servers' HAProxy and a library are upgraded (`rolling_update`)"
    with Load(upgrade, "--rate=30", path="/guestbook/") as load, site.signers() as signers:
        site.do("rolling_update", tiers="appservers", packages="haproxy,zlib1g")
    assert load.result["failed"] == 0, load.result
    assert signers.failures == []
    assert version(site, PRIMARY, "zlib1g").endswith("+newer")
    assert version(site, FIFTH, "haproxy").endswith("+newer")
    for server, then in zip((PRIMARY, FIFTH), before, strict=True):
        now = begun(site, server, *then)
        assert now["guestbook"] != then["guestbook"]
        # Reloaded, and none of this play's.
        assert (now["haproxy"], now["mysql"]) == (then["haproxy"], then["mysql"])
        program = "readlink /proc/$(systemctl show --property MainPID --value haproxy)/exe"
        assert site.on(server, program).stdout.strip() == "/usr/sbin/haproxy"


@pytest.fixture
def release(tmp_path):
    """The application and the pages, each with a change."""
    files = CHECKOUT / "playbooks" / "files"
    for source, page in {"guestbook": "guestbook/templates/base.html", "www": "index.html"}.items():
        shutil.copytree(files / source, tmp_path / source)
        (tmp_path / source / page).open("a").write("<!-- of the new release -->\n")
    return {"gunicorn_source": str(tmp_path / "guestbook"), "nginx_static_source": str(tmp_path / "www")}


def shows_the_release(site):
    """Whether the pages do, and whether the application does."""
    ask = f"curl -sS --fail --cacert /root/ca.crt --resolve {SITE}:443:{VIRTUAL_IPS[FIRST]} https://{SITE}"
    return ["of the new release" in site.on(CLIENT, ask + path).stdout for path in ("/", "/guestbook/")]


def test_a_release_is_deployed_and_taken_back(site, release):
    assert shows_the_release(site) == [False, False]
    what = "a release of the application and of the pages is deployed (`deploy`), and taken back (`rollback`)"
    with Load(what) as load, site.signers() as signers:
        site.do("deploy", **release)
        assert shows_the_release(site) == [True, True]
        deployed = len(signers.signed)
        site.do("rollback")
        assert shows_the_release(site) == [False, False]
    assert load.result["failed"] == 0, load.result
    assert load.result["moved"] == 0, load.result
    assert signers.failures == []
    assert len(signers.signed) > deployed > 3


def test_haproxy_and_nginx_are_reloaded(site):
    with Load("HAProxy and Nginx are reloaded, five times") as load:
        for _ in range(5):
            for server in {*BALANCERS, *site.web_servers()}:
                units = [
                    unit
                    for unit, hosts in {"haproxy": BALANCERS, "nginx": site.web_servers()}.items()
                    if server in hosts
                ]
                site.on(server, f"systemctl reload {' '.join(units)}")
            time.sleep(0.5)
    assert load.result["failed"] == 0, load.result
    assert load.result["moved"] == 0, load.result


# What fails is in flight.


@pytest.mark.parametrize(("server", "what"), [("traffic-server3", "web server"), (FIRST, "load balancer")])
def test_a_server_is_killed_and_comes_back(site, server, what):
    with Load(f"a {what} is killed, and comes back") as load:
        # As without power: a container that is killed still refuses connections for a moment.
        site.on(server, "ip link set eth0 down")
        run("docker", "kill", server)
        time.sleep(6)
        run("docker", "start", server)
        wait_until(site.whole)
    assert load.result["failed"] <= 12, load.result


# What is refused, and left as it is.


def test_the_last_server_and_servers_that_nobody_knows_are_not_drained(site):
    others = [server for server in site.web_servers() if server != FIFTH]
    for balancer in BALANCERS:
        for server in others:
            site.tell(balancer, f"set server web/{server} state maint")
    try:
        done = site.playbook("drain", drain_host=FIFTH)
        assert done.returncode != 0
        assert f"{FIFTH} is the last server that answers for web" in done.stdout
        assert "-e drain_last=true" in done.stdout
        assert [site.servers(balancer)[FIFTH] for balancer in BALANCERS] == ["UP", "UP"]
    finally:
        for balancer in BALANCERS:
            for server in others:
                site.tell(balancer, f"set server web/{server} state ready")
    done = site.playbook("drain", drain_host="server9")
    assert done.returncode != 0
    assert f"server9 is no server of any backend here. These are: {', '.join(site.web_servers())}" in done.stdout


@pytest.mark.parametrize(
    ("group", "successor", "refusal"),
    [
        ("mysql_primary", FIFTH, f"{PRIMARY} is the primary. Hand the writes over first"),
        ("appservers", "traffic-server3", f"No other application server is in service than {PRIMARY}, {FIFTH}."),
    ],
)
def test_the_primary_and_the_last_application_servers_are_not_taken_out(site, tmp_path, group, successor, refusal):
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "group_vars").symlink_to((INVENTORY / "group_vars").resolve())
    drawn = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    tiers = drawn["all"]["children"]
    {**tiers, **tiers["databases"]["children"]}[group]["hosts"] = {successor: {}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(drawn, sort_keys=False))
    done = site.playbook("scale", inventory=inventory)
    assert done.returncode != 0
    assert refusal in " ".join(done.stdout.split())
    assert not re.search(r"changed=[1-9]", done.stdout)


# And the way back.


def test_a_host_leaves_as_web_server_application_server_and_replica(site):
    site.joined = False
    with (
        Load("a web server, an application server and a replica are taken out (`scale`)") as load,
        site.signers() as signers,
    ):
        site.do("scale", TIERS, UNGUARDED)
        # Whatever it still does, nobody needs it.
        run("docker", "pause", FIFTH)
        try:
            assert FIFTH not in site.serving()
            assert all(route(signers)[1:] == [PRIMARY, PRIMARY] for _ in range(5))
            signed = len(signers.signed)
            wait_until(lambda: len(signers.signed) > signed + 10)
        finally:
            run("docker", "unpause", FIFTH)
    assert load.result["failed"] == 0, load.result
    assert FIFTH not in load.result["sessions"]
    assert signers.failures == []
    for server in ("traffic-server1", "traffic-server2", "traffic-server3", PRIMARY):
        named = f"grep -rlE '{FIFTH}|{FIFTH_ADDRESS}' /etc/haproxy /etc/nginx /etc/nftables* /etc/gunicorn /etc/mysql"
        assert site.on(server, named, check=False).stdout == ""
    # It is shut out, and knocks in vain.
    assert site.query(PRIMARY, FOLLOWERS) == []
    receiver = "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status"
    wait_until(lambda: site.query(FIFTH, receiver) == ["CONNECTING"])
