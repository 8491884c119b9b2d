"""The private authority and every certificate are replaced while visitors come and the replica follows."""

import re
import threading

import pytest

from lab import ADDRESSES, SITE, VIRTUAL_IP, Probe, get, on, playbook, prepare_client, wait_until

JAR = ("--cookie", "/root/jar-rotation", "--cookie-jar", "/root/jar-rotation")
# What a rotation concerns here; without the rest a run is shorter.
ROLES = ("--tags=haproxy,gunicorn,mysql_server", "--skip-tags=intrusion_detection")
# The probe ends by itself after so many seconds, and waits so long for an answer: a browser would wait longer.
PATIENCE = ("--seconds", "900", "--timeout", "10")


def sign_the_guestbook(message):
    form = get("/guestbook/", *JAR, check=False)
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form.body)
    if not token:
        return form.status
    fields = {"csrf_token": token.group(1), "name": "Rotation", "message": message}
    words = [word for pair in fields.items() for word in ("--data-urlencode", "=".join(pair))]
    return get("/guestbook/", *JAR, "--header", f"Referer: https://{SITE}/guestbook/", *words, check=False).status


class Writer:
    """Somebody who signs the guestbook again and again for the time of a with block."""

    def __init__(self):
        self.statuses = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._write)

    def _write(self):
        while not self.stop.wait(1):
            self.statuses.append(sign_the_guestbook(f"rotation {len(self.statuses)}"))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.stop.set()
        self.thread.join()


def query(server, statement):
    return on(server, f'mysql --batch --skip-column-names --execute "{statement}"').stdout.strip()


def replication():
    """The primary's thread that serves the replica, which another connection would change, and the state of both of the replica's own."""
    return (
        query(
            "server4",
            "SELECT PROCESSLIST_ID FROM performance_schema.threads "
            "WHERE PROCESSLIST_COMMAND LIKE 'Binlog Dump%' AND PROCESSLIST_USER = 'replication'",
        ),
        query("server3", "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status"),
        query("server3", "SELECT SERVICE_STATE FROM performance_schema.replication_applier_status"),
    )


def handshake(client, address, *options):
    """Serial and issuer's key of the certificate that a server gives, as one text."""
    return on(
        client,
        f"echo Q | timeout 10 openssl s_client -connect {address} {' '.join(options)} 2>/dev/null "
        "| openssl x509 -noout -serial -ext authorityKeyIdentifier",
    ).stdout


def certificates():
    """Of the site, and of each database as the other sees it: nobody else reaches one."""
    return {
        "site": handshake("client", f"{VIRTUAL_IP}:443", f"-servername {SITE}"),
        "server3": handshake("server4", f"{ADDRESSES['server3']}:3306", "-starttls mysql"),
        "server4": handshake("server3", f"{ADDRESSES['server4']}:3306", "-starttls mysql"),
    }


@pytest.mark.parametrize("step", ["trust", "sign", "retire"])
def test_each_step_to_a_new_authority_fails_no_request_and_loses_no_connection(step):
    # Visitors trust what ca.crt held before the step.
    prepare_client()
    # A thread of a connection that has ended stays until its next heartbeat.
    wait_until(lambda: len(replication()[0].split()) == 1, seconds=60)
    before, connection = certificates(), replication()
    assert connection[1:] == ("ON", "ON")
    with Probe("/", 10, *PATIENCE) as pages, Probe("/guestbook/", 5, *PATIENCE) as rows, Writer() as writer:
        playbook("playbooks/rotate_certificates.yml", "--extra-vars", f"webstack_rotate={step}", *ROLES)
    assert pages.result["failed"] == 0, pages.result
    assert rows.result["failed"] == 0, rows.result
    assert set(writer.statuses) == {303}, writer.statuses
    assert replication() == connection
    after = certificates()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == (set(after) if step == "sign" else set())


def test_after_the_rotation_a_new_connection_trusts_the_new_authority_alone():
    prepare_client()
    assert get("/").status == 200
    query("server3", "STOP REPLICA IO_THREAD; START REPLICA IO_THREAD")
    wait_until(lambda: replication()[1:] == ("ON", "ON"), seconds=20)
    rows = query("server4", "SELECT COUNT(*) FROM guestbook.entries WHERE name = 'Rotation'")
    assert int(rows) > 10
    wait_until(lambda: query("server3", "SELECT COUNT(*) FROM guestbook.entries WHERE name = 'Rotation'") == rows)
