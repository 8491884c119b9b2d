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


def git(directory, *command):
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *command], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


def repository(directory):
    git(directory, "init", "--initial-branch=trunk")
    git(directory, "add", ".")
    git(directory, "commit", "--message=one")
    git(directory, "tag", "--annotate", "--message=tag", "v22")
    return f"file://{directory}"


@pytest.mark.usefixtures("put_back")
class TestChanges:
    """Of settings, and of releases one after another, each from another kind of source."""

    def test_a_new_secret_reaches_the_application_without_a_new_release(self, deploy, app1):
        before = in_service(app1)
        with visitors() as versions:
            assert deploy(gunicorn_secrets={"PASSWORD": "another"}).returncode == 0
        assert hello()["password"] == "another"
        assert in_service(app1) == before
        assert set(versions) == {1}

    def test_an_archive_is_deployed_at_another_port_and_the_old_one_is_closed(self, deploy, source):
        directory = source(20)
        done = deploy(gunicorn_source=archive(directory), gunicorn_subdirectory=directory.name, gunicorn_port=8002)
        assert done.returncode == 0, done.stdout
        assert hello(port=8002)["version"] == 20
        with pytest.raises(ConnectionRefusedError):
            hello(port=8001)

    def test_a_wheel_is_deployed_without_its_release_command_and_only_so_many_old_releases_are_kept(
        self, deploy, source, app1
    ):
        before = in_service(app1)
        assert len(releases(app1)) > 1
        done = deploy(
            gunicorn_source=wheel(source(21)),
            gunicorn_keep_releases=1,
            gunicorn_release_command="false",
            gunicorn_run_release_command=False,
        )
        assert done.returncode == 0, done.stdout
        assert hello()["version"] == 21
        assert releases(app1) == {before, in_service(app1)}

    def test_a_tag_a_branch_as_it_is_now_and_a_commit_are_deployed(self, deploy, source, app1):
        directory = source(22)
        url = repository(directory)
        done = deploy(gunicorn_source=url, gunicorn_version="v22")
        assert done.returncode == 0, done.stdout
        assert hello()["version"] == 22

        program = directory / "hello.py"
        program.write_text(program.read_text().replace("VERSION = 22", "VERSION = 23"))
        git(directory, "commit", "--all", "--message=two")
        seen = []
        for version in ("trunk", git(directory, "rev-parse", "HEAD").strip()):
            done = deploy(gunicorn_source=url, gunicorn_version=version)
            assert done.returncode == 0, done.stdout
            assert hello()["version"] == 23
            seen.append(in_service(app1))
        assert seen[0] == seen[1], "the same commit is the same release"


# What is refused


def test_what_is_not_well_and_what_cannot_work_is_refused_by_name_and_the_old_release_keeps_serving(source, app1):
    not_installed = {"gunicorn_source": str(source(3)), "gunicorn_pip_install": ["./nothing-like-it"]}
    breaks = ({"gunicorn_environment": {}}, "Status code was 500")
    refused = [
        # A release whose packages do not install, and settings that break the one in service, again and again.
        (not_installed, "nothing-like-it"),
        *[breaks] * 2,
        # Values that cannot work: nothing is begun with them.
        ({"gunicorn_name": "Hello World"}, "gunicorn_name: Hello World"),
        ({"gunicorn_name": "dbus"}, "gunicorn_name: dbus"),
        ({"gunicorn_port": 80000}, "gunicorn_port: 80000"),
        ({"gunicorn_workers": 0}, "gunicorn_workers: 0"),
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
    with visitors() as versions:
        lab.assert_refused("gunicorn", refused, "--limit=gunicorn-app1", playbook="hello.yml")
    assert set(versions) == {1}
    assert hello()["greeting"].startswith("say")
    assert everything(app1) == before
    test_nothing_of_a_check_remains(app1)
