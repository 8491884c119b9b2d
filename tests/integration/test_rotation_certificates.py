"""The private authority and every certificate are replaced while visitors come and sign, and the replica follows."""

import pytest

from lab import ADDRESSES, SITE, VIRTUAL_IP, Probe, get, on, playbook, prepare_client, wait_until
from rotation import Signers

# What a rotation concerns here; without the rest a run is shorter.
ROLES = ("--tags=haproxy,gunicorn,mysql_server", "--skip-tags=intrusion_detection")
# The probe ends by itself after so many seconds, and waits so long for an answer: a browser would wait longer.
PATIENCE = ("--seconds", "900", "--timeout", "10")


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


@pytest.fixture(scope="module")
def signed():
    """What visitors have signed in all steps."""
    return []


@pytest.mark.parametrize("step", ["trust", "sign", "retire"])
def test_each_step_to_a_new_authority_fails_no_request_and_loses_no_connection(step, signed):
    # Visitors trust what ca.crt held before the step.
    prepare_client()
    # A thread of a connection that has ended stays until its next heartbeat.
    wait_until(lambda: len(replication()[0].split()) == 1, seconds=60)
    before, connection = certificates(), replication()
    assert connection[1:] == ("ON", "ON")
    with Probe("/", 10, *PATIENCE) as pages, Signers() as signers:
        playbook("playbooks/rotate_certificates.yml", "--extra-vars", f"webstack_rotate={step}", *ROLES)
    assert pages.result["failed"] == 0, pages.result
    assert signers.failures == []
    assert len(signers.signed) > 10
    signed += signers.signed
    assert replication() == connection
    after = certificates()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == (set(after) if step == "sign" else set())


def test_after_the_rotation_a_new_connection_trusts_the_new_authority_alone(signed):
    prepare_client()
    assert get("/").status == 200
    query("server3", "STOP REPLICA IO_THREAD; START REPLICA IO_THREAD")
    wait_until(lambda: replication()[1:] == ("ON", "ON"), seconds=20)
    entries = "SELECT message FROM guestbook.entries"
    assert set(signed) <= set(query("server4", entries).split())
    wait_until(lambda: set(signed) <= set(query("server3", entries).split()))
