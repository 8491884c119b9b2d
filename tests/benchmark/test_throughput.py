"""Requests a second and the slowest of a hundred answers, through HAProxy and Nginx as the collection configures them, and as Debian does.

Needs the lab with the site on it (make demo), and puts it back as it was. On the same servers stand Debian's own haproxy.cfg with a frontend and two
servers written by hand below it, and Debian's own nginx.conf; and Nginx alone, asked directly. The load generator, wrk, shares the processors
with what it measures, so that what counts is the ratio. Suricata, which reads along with everything, is stopped meanwhile, and the limits for one
client are lifted, since there is but one.
"""

import json
import re
import statistics
from types import SimpleNamespace

import pytest

import lab

SECONDS, ROUNDS = 3, 3
CONNECTIONS = {"1 kB": 16, "1 MB": 4}
FILES = {"1 kB": ("bench.css", 1000), "1 MB": ("bench.bin", 1000000)}
BALANCER, WEB = "server1", ("server2", "server3")
EDGE = ("server1", "server2")  # where Suricata is
ROOT = "/var/www/site/current"
PLAIN, DEFAULT_PLAIN, DEFAULT_TLS, DEFAULT_WEB = 9081, 9082, 9083, 9084
LIFTED = {
    "haproxy_request_limit": 100000000,
    "haproxy_connection_limit": 1000000,
    # The site without TLS, which its own frontend sends on to https
    "haproxy_frontends": f"{{{{ edge_frontends + [{{'name': 'bench', 'bind': [{{'port': {PLAIN}}}], 'default_backend': 'web'}}] }}}}",
}
# What a package brings, whatever was made of it since
PRISTINE = """
set -e
cd /root && apt-get update -qq && apt-get download -qq {package} && dpkg-deb --fsys-tarfile {package}_*.deb | tar --extract --to-stdout .{path} >/root/{file}
rm {package}_*.deb
"""
HAPROXY = f"""
frontend site
    bind {lab.ADDRESSES[BALANCER]}:{DEFAULT_PLAIN}
    bind {lab.ADDRESSES[BALANCER]}:{DEFAULT_TLS} ssl crt /etc/haproxy/certs/{lab.SITE}.pem alpn h2,http/1.1
    default_backend web

backend web
    server web1 {lab.ADDRESSES[WEB[0]]}:{DEFAULT_WEB} check
    server web2 {lab.ADDRESSES[WEB[1]]}:{DEFAULT_WEB} check
"""
# As in the package's unit: without it nothing is logged from within the chroot, and what the journal costs is left out.
LOG = "BindReadOnlyPaths=/dev/log:/var/lib/haproxy/dev/log"
OPEN = "nft insert rule inet webstack input tcp dport { %s } accept"


def as_debian_does():
    """Start Debian's HAProxy and Nginx beside ours."""
    for server in WEB:
        lab.on(
            server,
            PRISTINE.format(package="nginx-common", path="/etc/nginx/nginx.conf", file="nginx.conf"),
            timeout=120,
        )
        site = f"server {{ listen {DEFAULT_WEB}; root {ROOT}; }}"
        # Of its own are the process's number and the site; the rest is the package's.
        edit = f"s|^pid .*|pid /run/bench.pid;|; s|include /etc/nginx/sites-enabled/.*|{site}|; s|include /etc/nginx/conf.d/.*||"
        lab.on(server, f"sed --in-place '{edit}' /root/nginx.conf && cp /root/nginx.conf /etc/nginx/bench.conf")
        lab.on(
            server,
            f"systemd-run --quiet --unit=bench nginx -c /etc/nginx/bench.conf -g 'daemon off;' && {OPEN % f'8080, {DEFAULT_WEB}'}",
        )
    lab.on(
        BALANCER, PRISTINE.format(package="haproxy", path="/etc/haproxy/haproxy.cfg", file="haproxy.cfg"), timeout=120
    )
    # Its socket would be ours, and systemd keeps it in the foreground.
    lab.on(
        BALANCER,
        f"sed --in-place '/stats socket/d; /^[[:space:]]*daemon/d' /root/haproxy.cfg && cat >>/root/haproxy.cfg <<'END'\n{HAPROXY}\nEND",
    )
    ports = f"{PLAIN}, {DEFAULT_PLAIN}, {DEFAULT_TLS}"
    lab.on(
        BALANCER, f"systemd-run --quiet --unit=bench --property={LOG} haproxy -W -f /root/haproxy.cfg && {OPEN % ports}"
    )


@pytest.fixture(scope="module")
def urls():
    """The ways to a file, by what they are called."""
    lab.playbook(
        "molecule/default/create.yml", inventories=(lab.INVENTORY, lab.CHECKOUT / "molecule/default/inventory")
    )
    lab.run(
        "docker", "exec", "webstack-client", "apt-get", "install", "-qq", "--no-install-recommends", "wrk", timeout=120
    )
    done = lab.playbook(
        "playbooks/site.yml", "--tags=haproxy", "--limit=server1,server2", "--extra-vars", json.dumps(LIFTED)
    )
    assert done.returncode == 0, done.stdout
    for server in EDGE:
        lab.on(server, "systemctl stop suricata")
    lab.on(BALANCER, "nft flush chain inet webstack visitors && nft add rule inet webstack visitors accept")
    for server in WEB:
        for name, size in FILES.values():
            lab.on(server, f"head --bytes={size} /dev/urandom | base64 | head --bytes={size} >{ROOT}/{name}")
        lab.on(server, f"chmod a+r {ROOT}/bench.*")
    as_debian_does()
    host = lab.ADDRESSES[BALANCER]
    yield {
        ("TLS", "ours"): f"https://{lab.VIRTUAL_IP}",
        ("TLS", "default"): f"https://{host}:{DEFAULT_TLS}",
        ("plain", "ours"): f"http://{host}:{PLAIN}",
        ("plain", "default"): f"http://{host}:{DEFAULT_PLAIN}",
        ("direct", "ours"): f"http://{lab.ADDRESSES[WEB[0]]}:8080",
        ("direct", "default"): f"http://{lab.ADDRESSES[WEB[0]]}:{DEFAULT_WEB}",
    }
    for server in WEB:
        lab.on(server, f"systemctl stop bench; rm {ROOT}/bench.* /etc/nginx/bench.conf /root/nginx.conf")
    lab.on(BALANCER, "systemctl stop bench; rm /root/haproxy.cfg")
    for server in EDGE:
        lab.on(server, "systemctl start suricata")
    # The firewall's role sees what is in force.
    lab.playbook("playbooks/site.yml", "--tags=firewall,haproxy")


def load(url, connections, kept):
    """Ask for some seconds; return requests a second and the 99th percentile of the answers' time in milliseconds."""
    close = () if kept else ("--header", "Connection: close")
    done = lab.run(
        *("docker", "exec", "webstack-client", "wrk", "--latency", "--threads=1", f"--connections={connections}"),
        *(f"--duration={SECONDS}s", "--header", f"Host: {lab.SITE}", *close, url),
    ).stdout
    assert "Non-2xx" not in done, done
    assert "Socket errors" not in done or not kept, done
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", done).groups()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done).group(1))
    return SimpleNamespace(rate=rate, p99=float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit])


@pytest.mark.parametrize("kept", [True, False], ids=["kept connections", "new connections"])
@pytest.mark.parametrize("size", FILES)
def test_throughput(urls, size, kept, capsys):
    found = {way: [] for way in urls}
    for _ in range(ROUNDS):
        for way, url in urls.items():
            found[way].append(load(f"{url}/{FILES[size][0]}", CONNECTIONS[size], kept))
    median = {
        way: SimpleNamespace(
            rate=statistics.median(run.rate for run in runs), p99=statistics.median(run.p99 for run in runs)
        )
        for way, runs in found.items()
    }
    with capsys.disabled():
        print(f"\n{size}, {'kept' if kept else 'new'} connections: requests/s (99% are answered within)")
        for path in ("TLS", "plain", "direct"):
            ours, default = median[path, "ours"], median[path, "default"]
            print(
                f"  {path:6} ours {ours.rate:7.0f} ({ours.p99:6.1f} ms)  Debian's {default.rate:7.0f} ({default.p99:6.1f} ms)"
                f"  ratio {ours.rate / default.rate:.2f}"
            )
