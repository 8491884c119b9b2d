"""Every secret gets a new value while the site serves, and whoever holds an old one is refused afterwards."""

import re

import pytest

from lab import ADDRESSES, SECRETS, on, playbook, run, wait_until
from rotation import generated

ACCOUNTS = ("writer", "reader", "replication", "monitoring")


def logs_in(server, account, password):
    """Whether a database lets an account in over the network."""
    done = run(
        *("docker", "exec", "--interactive", f"webstack-{server}", "mysql", "--defaults-extra-file=/dev/stdin"),
        *(f"--host={ADDRESSES[server]}", f"--user={account}", "--ssl-mode=REQUIRED", "--execute=SELECT 1"),
        input=f'[client]\npassword="{password}"\n',
        check=False,
    )
    assert done.returncode == 0 or "1045" in done.stderr, done.stderr
    return done.returncode == 0


# What a new password of the account `writer` concerns, and where: the application alone has it.
FOR_THE_WRITER = {
    "Keep the old secret beside the new one",
    "foobar.webstack.mysql_primary : Manage the accounts",
    "foobar.webstack.gunicorn : Compare the units and the secrets",
    "foobar.webstack.gunicorn : Write the units and the secrets",
    "Refuse the old passwords from now on",
}


def changed(output):
    """The tasks that say of a server that they changed something, with it."""
    tasks = re.split(r"^TASK \[", output, flags=re.MULTILINE)[1:]
    return {
        (task.partition("]")[0], server)
        for task in tasks
        for server in re.findall(r"^changed: \[(\w+)", task, re.MULTILINE)
    }


def test_a_dry_run_over_the_whole_site_says_what_would_be_done_and_nothing_else_and_does_nothing():
    before = generated()
    done = playbook("playbooks/rotate_secrets.yml", "--check", "--diff", "--extra-vars", "rotate=writer")
    assert changed(done.stdout) == {(task, "server4") for task in FOR_THE_WRITER}, done.stdout
    assert "writer@%:" in done.stdout
    assert "old_password: valid" in done.stdout
    assert "/etc/gunicorn/guestbook.env" in done.stdout
    assert "reader@%" not in done.stdout
    assert generated() == before
    assert logs_in("server4", "writer", before["mysql_writer"])


def test_a_secret_that_nobody_knows_is_refused_by_name():
    before = generated()
    done = playbook("playbooks/rotate_secrets.yml", "--extra-vars", "rotate=writer,wirter", check=False)
    assert done.returncode != 0
    assert "wirter: webstack_passwords has writer, reader" in done.stdout
    assert generated() == before


def test_it_is_not_begun_without_every_client():
    before = generated()
    done = playbook("playbooks/rotate_secrets.yml", "--limit", "server3", check=False)
    assert done.returncode != 0
    assert "server4 would be left with the old secrets" in done.stdout
    assert generated() == before


def test_a_run_that_is_killed_is_finished_by_the_next_one(rotation):
    assert rotation.killed, "it ended before the moment at which it was to be killed"
    assert rotation.signed_in_between > 3
    step = (
        rotation.output.read_text()
        .partition("TASK [foobar.webstack.gunicorn : Restart the application]")[2]
        .partition("TASK [")[0]
    )
    assert "changed: [server4]" in step, "it was not killed between the application's new file and its restart"
    assert not rotation.failed, rotation.output.read_text()[-5000:]
    assert rotation.after.items() <= rotation.between.items(), "the second run made other secrets instead of going on"
    assert sorted(rotation.after) == sorted(rotation.before), "something is left behind"


def test_no_visitor_notices(rotation):
    assert rotation.signers.failures == []
    assert rotation.signers.requests > 100


def test_every_line_that_was_signed_meanwhile_is_on_both_databases(rotation):
    for server in ("server4", "server3"):
        rows = wait_until(
            lambda server=server: on(server, "mysql --batch --execute 'SELECT message FROM guestbook.entries'").stdout
        )
        assert set(rotation.signers.signed) <= set(rows.split()), f"not on {server}"


def test_the_replica_was_neither_seeded_again_nor_was_its_applier_stopped(rotation):
    before, after = rotation.replica
    assert before == after


@pytest.mark.parametrize("server", ["server4", "server3"])
@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_new_password_is_accepted_and_the_old_one_refused(rotation, server, account):
    name = f"mysql_{account}"
    assert rotation.before[name] != rotation.after[name]
    assert logs_in(server, account, rotation.after[name])
    assert not logs_in(server, account, rotation.before[name])


def test_the_replica_connects_again_with_the_new_password(rotation):
    on("server3", "mysql --execute 'STOP REPLICA IO_THREAD; START REPLICA IO_THREAD'")
    state = "SELECT SERVICE_STATE FROM performance_schema.replication_connection_status"
    wait_until(lambda: "ON" in on("server3", f"mysql --skip-column-names --execute '{state}'").stdout, seconds=15)


def test_forms_of_the_key_before_stay_good(rotation):
    old, new = (secrets["application"].split(",") for secrets in (rotation.before, rotation.after))
    assert new == [new[0], old[0]]
    assert new[0] not in old


def test_the_new_secrets_are_their_owner_s_alone(rotation):
    assert {file.stat().st_mode & 0o777 for file in SECRETS.iterdir() if file.is_file()} == {0o600}
