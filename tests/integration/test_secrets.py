"""No secret of the lab can be read where it should not be: each is searched for wherever it might have come to lie."""

import subprocess
import tarfile
import uuid

import pytest

from lab import ADDRESSES, CHECKOUT, SECRETS, on, run, wait_until

DIRECTORIES = "/etc /var /run /usr/local /opt /srv"
# What a process shows to other users. The code is in the command line, the secrets are not.
SHOWN = """
import glob, sys
secrets = sys.stdin.buffer.read().split()
for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        continue
    if any(secret in text for secret in secrets):
        print(path, text.replace(b"\\0", b" ")[:40])
"""


def values(*generated):
    """Every secret text of the lab: the passwords, those from before a rotation too, and each line of each private key."""
    found = {part for secrets in generated for text in secrets.values() for part in text.split(",")}
    for file in SECRETS.rglob("*"):
        text = file.read_text() if file.is_file() else ""
        if "PRIVATE KEY-----" in text:
            found |= {line for line in text.splitlines() if len(line) >= 20 and not line.startswith("-----")}
    assert len(found) > 15
    assert min(map(len, found)) >= 20
    return found


@pytest.fixture(scope="module")
def secrets(rotation):
    return values(rotation.before, rotation.after)


def on_stdin(secrets, server, *command, user="root"):
    done = run(
        *("docker", "exec", "--interactive", "--user", user, f"webstack-{server}", *command),
        input="\n".join(secrets) + "\n",
        check=False,
        timeout=120,
    )
    assert "Permission denied" not in done.stderr or user == "nobody", done.stderr
    return done.stdout


def in_files(secrets, server):
    """The files that everybody on a server can read."""
    search = "grep --recursive --files-with-matches --fixed-strings --no-messages --devices=skip --file=-"
    return on_stdin(secrets, server, *search.split(), *DIRECTORIES.split(), user="nobody")


def in_processes(secrets, server):
    """What everybody on a server can see of its processes."""
    return on_stdin(secrets, server, "python3", "-c", SHOWN, user="nobody")


def in_journal(secrets, server):
    """All fields of all messages, which are for administrators, but a secret is not."""
    search = (
        "exec 3<&0; journalctl --output=export --all --quiet </dev/null | grep --text --fixed-strings --file=/dev/fd/3"
    )
    return on_stdin(secrets, server, "sh", "-c", search)


def in_database_logs(secrets, server):
    """The binary logs, which travel to replicas and backups, and the log of errors."""
    search = "grep --files-with-matches --text --fixed-strings --no-messages --file=- /var/lib/mysql/*log.* /var/lib/mysql/relay* /var/log/mysql/*"
    return on_stdin(secrets, server, "sh", "-c", search)


def in_texts(secrets, texts):
    """The names of those texts that hold a secret."""
    wanted = [secret.encode() for secret in secrets]
    return [name for name, text in texts if any(secret in text for secret in wanted)]


def tracked(directory):
    for name in run("git", "ls-files", "-z", cwd=directory).stdout.split("\0"):
        file = directory / name
        if name and file.is_file():
            yield name, file.read_bytes()


def members(archive):
    with tarfile.open(archive) as package:
        for member in package:
            if member.isfile():
                yield member.name, package.extractfile(member).read()


@pytest.mark.parametrize("server", ADDRESSES)
@pytest.mark.parametrize("search", [in_files, in_processes, in_journal])
def test_nobody_reads_a_secret_on_a_server(secrets, server, search):
    assert search(secrets, server) == ""


@pytest.mark.parametrize("server", ["server3", "server4"])
def test_the_databases_log_no_password(secrets, server):
    assert in_database_logs(secrets, server) == ""


def test_the_output_of_a_run_that_changes_every_secret_shows_none(secrets, rotation):
    text = rotation.output.read_bytes()
    assert b"(another secret)" in text, "no diff was shown"
    assert b"EXEC" in text, "it was not very verbose"
    assert in_texts(secrets, [(number, line) for number, line in enumerate(text.splitlines())]) == []


def test_no_command_line_of_that_run_shows_one_on_any_machine(secrets, rotation):
    assert any(b"rotate_secrets.yml" in command for command in rotation.processes)
    assert in_texts(secrets, [(command[:60], command) for command in rotation.processes]) == []


def test_the_repository_and_what_users_install_hold_none(secrets, artifact):
    assert in_texts(secrets, tracked(CHECKOUT)) == []
    assert in_texts(secrets, members(artifact)) == []


@pytest.fixture
def planted():
    return f"planted-{uuid.uuid4()}"


def test_a_secret_in_a_file_is_found_and_in_a_private_file_is_not_one(planted):
    on("server1", f"mkdir -p /opt/planted && umask 077 && echo {planted} >/opt/planted/file")
    try:
        assert in_files([planted], "server1") == ""
        on("server1", "chmod 644 /opt/planted/file")
        assert in_files([planted], "server1") == "/opt/planted/file\n"
    finally:
        on("server1", "rm -r /opt/planted")


def test_a_secret_in_the_journal_is_found(planted):
    on("server1", f"logger 'a password: {planted}'; journalctl --sync")
    assert planted in in_journal([planted], "server1")


@pytest.mark.parametrize(
    ("shown_in", "user", "process"),
    [("cmdline", "root", "cat; : {}"), ("environ", "nobody", "PASSWORD={} exec cat")],
)
def test_a_secret_in_a_command_line_or_a_readable_environment_is_found(planted, shown_in, user, process):
    command = (
        *("docker", "exec", "--interactive", "--user", user, "webstack-server1"),
        *("sh", "-c", process.format(planted)),
    )
    # It lasts until nothing more can be written to it.
    with subprocess.Popen(command, stdin=subprocess.PIPE):
        wait_until(lambda: shown_in in in_processes([planted], "server1"))


def test_a_secret_in_a_binary_log_is_found(planted):
    on(
        "server4",
        f"mysql --execute \"CREATE TABLE mysql.planted (a INT) COMMENT '{planted}'; DROP TABLE mysql.planted\"",
    )
    assert "binlog" in in_database_logs([planted], "server4")


def test_a_secret_in_a_text_is_found(planted, tmp_path):
    (tmp_path / "file").write_text(f"password: {planted}\n")
    run("git", "init", "--quiet", cwd=tmp_path)
    run("git", "add", "file", cwd=tmp_path)
    assert in_texts([planted], tracked(tmp_path)) == ["file"]
    with tarfile.open(tmp_path / "package.tar", "w") as package:
        package.add(tmp_path / "file", "file")
    assert in_texts([planted], members(tmp_path / "package.tar")) == ["file"]
