"""The role, seen from outside: what answers, what is refused, and who can read what."""

import http.client
import json
import shutil
import subprocess
import zipfile
from functools import partial

import pytest
import testinfra

import lab

ADDRESS = "172.30.60.11"
APPLICATIONS = {"gunicorn-app1": ADDRESS, "gunicorn-app2": "172.30.60.12"}
PASSWORD = 'it\'s "s3cret" $HOME `id` \\ #1'


def hello(address=ADDRESS, port=8001):
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request("GET", "/")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def releases(host):
    return set(host.run("ls /srv/hello/releases").stdout.split())


def in_service(host):
    return host.run("readlink /srv/hello/current").stdout.strip().removeprefix("releases/")


def everything(host):
    """What a refused run must not change: the process, the link, the releases, the configuration."""
    return host.run(
        "systemctl show --property=MainPID hello.service; readlink /srv/*/current; ls /srv /srv/*/releases; "
        "cat /etc/gunicorn/* /etc/systemd/system/*.service /etc/systemd/system/*.socket"
    ).stdout


@pytest.fixture(params=APPLICATIONS)
def host(request):
    """Every application server; the database has nothing to do with this."""
    return testinfra.get_host(f"docker://{request.param}")


@pytest.fixture
def app1():
    return testinfra.get_host("docker://gunicorn-app1")


@pytest.fixture(scope="class")
def put_back(deploy):
    """Put the first release back into service after tests that have deployed others."""
    yield
    done = deploy()
    assert done.returncode == 0, done.stdout
    assert hello()["version"] == 1


def address(host):
    return APPLICATIONS[host.backend.name]


# What runs


def test_settings_and_secrets_arrive_as_they_were_given(host):
    answer = hello(address(host))
    assert answer["greeting"] == "say \"hello\" to 100% of $HOME \\ 'all'"
    assert answer["password"] == PASSWORD


def test_the_application_can_do_no_more_than_it_has_to(host):
    assert hello(address(host))["can"] == {
        "change its code": False,
        "read the file of its secrets": False,
        "see other processes": False,
        "write to /tmp": True,
    }
    assert not host.file("/tmp/hello").exists  # noqa: S108


def test_systemd_finds_little_to_fault_in_the_sandbox(host):
    found = host.run("systemd-analyze security --no-pager guestbook.service").stdout.splitlines()[-1]
    assert float(found.split(":")[1].split()[0]) <= 1.5, found


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/gunicorn/hello.env",
        "systemctl show hello.service hello.socket",
        "systemctl cat hello.service hello.socket",
        "ps auxeww",
        "cat /proc/[0-9]*/environ",
        "journalctl --unit hello.service",
        "grep --recursive s3cret /srv /etc /run /var/log /tmp",
    ],
)
def test_nobody_else_learns_the_secrets(host, command):
    seen = host.run(f"setpriv --reuid nobody --regid nogroup --clear-groups sh -c {json.dumps(command)} 2>&1").stdout
    assert "s3cret" not in seen


@pytest.mark.parametrize("command", ["systemctl show hello.service", "ps auxww", "journalctl --boot"])
def test_not_even_root_meets_the_secrets_by_chance(host, command):
    assert "s3cret" not in host.run(command).stdout


def test_nothing_of_a_check_remains(host):
    assert host.run("systemctl list-units --all --plain --no-legend '*-next*'").stdout == ""
    assert host.run("ls -d /run/*-next* /run/gunicorn/*-next* /run/systemd/system/*-next*").stdout == ""


def test_the_application_comes_back_when_it_is_killed_and_when_the_host_starts(host):
    for unit in ("hello.service", "hello.socket"):
        assert host.run(f"systemctl is-enabled {unit}").stdout.strip() == "enabled"
    host.run("systemctl kill --signal=KILL hello.service")
    assert hello(address(host))["version"] == 1


# A new release


def version():
    return hello()["version"]


# Several visitors, each request on a new connection
visitors = partial(lab.asking, version, pause=0.05, clients=4)


def test_a_new_release_takes_over_without_a_failed_request_and_the_old_one_comes_back(deploy, source, app1, under_load):
    first = in_service(app1)
    with under_load(APPLICATIONS.values()) as kinds:
        done = deploy(limit="applications", gunicorn_source=str(source(2)))
        assert done.returncode == 0, done.stdout
        assert {hello(address)["version"] for address in APPLICATIONS.values()} == {2}
        assert first in releases(app1)
        assert f"hello: {first} → {in_service(app1)}" in done.stdout

        done = deploy(limit="applications", gunicorn_release=first)
        assert done.returncode == 0, done.stdout
        assert {hello(address)["version"] for address in APPLICATIONS.values()} == {1}
    assert [set(versions) for versions in kinds] == [{1, 2}] * len(kinds)
    assert in_service(app1) == first
    for name in APPLICATIONS:
        test_nothing_of_a_check_remains(testinfra.get_host(f"docker://{name}"))


NOT_IN_ITS_PLACE = """
import pathlib
if "/hello.service" in pathlib.Path("/proc/self/cgroup").read_text():
    raise SystemExit("not in this place")
"""


def test_a_release_that_does_not_come_up_in_its_place_is_taken_back_without_a_failed_request(
    deploy, source, app1, under_load
):
    """It was well when it was checked, so that it stands in until the old one is back."""
    before = everything(app1).partition("\n")[2]
    with under_load([ADDRESS]) as kinds:
        done = deploy(
            gunicorn_source=str(source(4, prefix=NOT_IN_ITS_PLACE)),
            gunicorn_secrets={"PASSWORD": "another"},
            gunicorn_health_timeout=4,
        )
        assert done.returncode != 0
    assert "It did not come up in its place" in done.stdout
    assert "not in this place" in done.stdout
    assert {version for versions in kinds for version in versions} == {1, 4}
    assert (hello()["version"], hello()["password"]) == (1, PASSWORD)
    assert everything(app1).partition("\n")[2] == before
    assert app1.run("systemctl is-active hello.service hello.socket").stdout.split() == ["active"] * 2
    test_nothing_of_a_check_remains(app1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"prefix": "import nothing_like_it\n"}, "No module named 'nothing_like_it'", id="it does not start"
        ),
        pytest.param(
            {"variables": {"gunicorn_health_path": "/healthz", "gunicorn_environment": {"GREETING": "not ready"}}},
            "503",
            id="it is not ready",
        ),
        pytest.param(
            {"variables": {"gunicorn_release_command": "python -c 'raise SystemExit(\"no such table\")'"}},
            "no such table",
            id="its release command fails",
        ),
        pytest.param(
            {"variables": {"gunicorn_pip_install": ["./nothing-like-it"]}},
            "nothing-like-it",
            id="its packages do not install",
        ),
    ],
)
def test_a_release_that_is_not_well_is_refused_and_the_old_one_keeps_serving(deploy, source, app1, change, said):
    before = everything(app1)
    done = deploy(gunicorn_source=str(source(3, prefix=change.get("prefix", ""))), **change.get("variables", {}))
    assert done.returncode != 0
    assert said in done.stdout
    assert hello()["version"] == 1
    assert everything(app1) == before
    test_nothing_of_a_check_remains(app1)


def test_a_setting_that_breaks_the_application_is_refused_again_and_again(app1):
    before = everything(app1)
    without_greeting = ({"gunicorn_environment": {}}, "Status code was 500")
    lab.assert_refused("gunicorn", [without_greeting] * 2, "--limit=gunicorn-app1", playbook="hello.yml")
    assert hello()["greeting"].startswith("say")
    assert everything(app1) == before


@pytest.mark.usefixtures("put_back")
class TestChanges:
    """Of settings, and of releases one after another."""

    def test_a_new_secret_reaches_the_application_without_a_new_release(self, deploy, app1):
        before = in_service(app1)
        with visitors() as versions:
            assert deploy(gunicorn_secrets={"PASSWORD": "another"}).returncode == 0
        assert hello()["password"] == "another"
        assert in_service(app1) == before
        assert set(versions) == {1}

    def test_another_port_is_opened_and_the_old_one_closed(self, deploy):
        assert deploy(gunicorn_port=8002).returncode == 0
        assert hello(port=8002)["version"] == 1
        with pytest.raises(ConnectionRefusedError):
            hello(port=8001)

    def test_only_so_many_old_releases_are_kept(self, deploy, source, app1):
        kept = set()
        for version in (11, 12):
            assert len(releases(app1)) > 1
            done = deploy(
                gunicorn_source=str(source(version)),
                gunicorn_keep_releases=1,
                gunicorn_release_command="false",
                gunicorn_run_release_command=False,
            )
            assert done.returncode == 0, done.stdout
            assert hello()["version"] == version
            kept.add(in_service(app1))
        assert releases(app1) == kept


# Where a release comes from


def archive(directory):
    return shutil.make_archive(str(directory), "gztar", directory.parent, directory.name)


def wheel(directory):
    path = directory.parent / "hello-21-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as package:
        package.write(directory / "hello.py", "hello.py")
        package.writestr("hello-21.dist-info/METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 21\n")
        package.writestr("hello-21.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        package.writestr("hello-21.dist-info/RECORD", "")
    return str(path)


def repository(directory):
    def git(*command):
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return subprocess.run(
            ["git", *identity, *command], cwd=directory, check=True, capture_output=True, text=True
        ).stdout

    git("init", "--initial-branch=trunk")
    git("add", ".")
    git("commit", "--message=one")
    git("tag", "--annotate", "--message=tag", "v22")
    return f"file://{directory}", git("rev-parse", "HEAD").strip()


@pytest.mark.usefixtures("put_back")
class TestSources:
    """Each brings another version than the one before it."""

    def test_an_archive_is_deployed(self, deploy, source):
        directory = source(20)
        done = deploy(gunicorn_source=archive(directory), gunicorn_subdirectory=directory.name)
        assert done.returncode == 0, done.stdout
        assert hello()["version"] == 20

    def test_a_wheel_is_deployed(self, deploy, source):
        done = deploy(gunicorn_source=wheel(source(21)))
        assert done.returncode == 0, done.stdout
        assert hello()["version"] == 21

    def test_a_branch_a_tag_and_a_commit_are_deployed_and_the_branch_is_followed(self, deploy, source, app1):
        directory = source(22)
        url, commit = repository(directory)
        seen = []
        for version in ("trunk", commit):
            done = deploy(gunicorn_source=url, gunicorn_version=version)
            assert done.returncode == 0, done.stdout
            assert hello()["version"] == 22
            seen.append(in_service(app1))
        assert seen[0] == seen[1], "the same commit is the same release"
        done = deploy(gunicorn_source=url, gunicorn_version="v22")
        assert done.returncode == 0, done.stdout
        (directory / "hello.py").write_text(
            (directory / "hello.py").read_text().replace("VERSION = 22", "VERSION = 23")
        )
        subprocess.run(
            ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--all", "--message=two"],
            cwd=directory,
            check=True,
            capture_output=True,
        )
        done = deploy(gunicorn_source=url, gunicorn_version="trunk")
        assert done.returncode == 0, done.stdout
        assert hello()["version"] == 23


# What is refused before anything changes


def test_a_bad_value_is_refused_by_name_and_the_old_release_keeps_serving(app1):
    refused = [
        ({"gunicorn_name": "Hello World"}, "gunicorn_name: Hello World"),
        ({"gunicorn_name": "dbus"}, "gunicorn_name: dbus"),
        ({"gunicorn_port": "eighty"}, "gunicorn_port"),
        ({"gunicorn_port": 80000}, "gunicorn_port: 80000"),
        ({"gunicorn_workers": 0}, "gunicorn_workers: 0"),
        ({"gunicorn_threads": []}, "gunicorn_threads"),
        ({"gunicorn_environment": ["A=1"]}, "gunicorn_environment"),
        ({"gunicorn_environment": {"PASSWORD": "x"}}, "PASSWORD is in gunicorn_secrets too"),
        ({"gunicorn_environment": {"MY-NAME": "x"}}, "MY-NAME"),
        ({"gunicorn_secrets": {"PASSWORD": ""}}, "PASSWORD is empty"),
        ({"gunicorn_source": "https://example.org/hello.git"}, "gunicorn_version"),
        ({"gunicorn_source": "no-such-directory"}, "no-such-directory"),
        ({"gunicorn_subdirectory": "../elsewhere"}, "../elsewhere"),
        ({"gunicorn_release": "latest"}, "gunicorn_release: latest"),
        ({"gunicorn_release": "0123456789ab"}, "gunicorn_release: 0123456789ab is not in /srv/hello/releases"),
        ({"gunicorn_readiness_path": "readyz"}, "gunicorn_readiness_path: readyz"),
        ({"gunicorn_release_command": "one\ntwo"}, "gunicorn_release_command"),
    ]
    before = everything(app1)
    lab.assert_refused("gunicorn", refused, "--limit=gunicorn-app1", playbook="hello.yml")
    assert hello()["version"] == 1
    assert everything(app1) == before
