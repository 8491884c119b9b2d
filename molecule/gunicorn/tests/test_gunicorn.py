"""The role, seen from outside: what answers, what is refused, and who can read what."""

import http.client
import json
import re
import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

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


# What changes, on the first server, and meanwhile on the second


def visitors(host):
    """Several of them, each request on a new connection; says which version answered."""
    return lab.asking(lambda: hello(address(host))["version"], pause=0.05, clients=4)


@pytest.fixture(scope="module")
def on_the_second(deploy, source):
    """What must be refused, then what comes from git: it goes on beside the tests of the first server."""
    app2, broken, directory = testinfra.get_host("docker://gunicorn-app2"), source(3), source(22)
    with ThreadPoolExecutor(1) as pool:
        yield SimpleNamespace(
            refused=pool.submit(refuse_what_cannot_work, app2, broken),
            from_git=pool.submit(deploy_from_git, app2, deploy, directory),
        )


NOT_IN_ITS_PLACE = """
import pathlib
if "/hello.service" in pathlib.Path("/proc/self/cgroup").read_text():
    raise SystemExit("not in this place")
"""


@pytest.mark.usefixtures("on_the_second")
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


def test_a_release_that_does_not_trust_its_database_is_not_ready_and_refused(deploy):
    """Its certificate has another name."""
    done = deploy("guestbook.yml", database_tls_name="another.example.org")
    assert done.returncode != 0
    assert "503" in done.stdout
    assert "is in service, as before" in done.stdout
    assert re.search("doesn't match|not valid for|Hostname mismatch", done.stdout, re.IGNORECASE)
    connection = http.client.HTTPConnection(ADDRESS, 8000, timeout=10)
    connection.request("GET", "/readyz")
    assert connection.getresponse().status == 200
    connection.close()


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


def test_a_new_secret_reaches_the_application_without_a_new_release(deploy, app1):
    before = in_service(app1)
    with visitors(app1) as versions:
        assert deploy(gunicorn_secrets={"PASSWORD": "another"}).returncode == 0
    assert hello()["password"] == "another"
    assert in_service(app1) == before
    assert set(versions) == {1}


def test_an_archive_is_deployed_at_another_port_and_the_old_one_is_closed(deploy, source):
    directory = source(20)
    done = deploy(gunicorn_source=archive(directory), gunicorn_subdirectory=directory.name, gunicorn_port=8002)
    assert done.returncode == 0, done.stdout
    assert hello(port=8002)["version"] == 20
    with pytest.raises(ConnectionRefusedError):
        hello(port=8001)


def test_a_wheel_is_deployed_without_its_release_command_and_only_so_many_old_releases_are_kept(deploy, source, app1):
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


def git(directory, *command):
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *command], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


def deploy_from_git(host, deploy, directory):
    """Deploy a branch, an annotated tag of its next commit, the branch again, and that commit; say what served each time."""

    def served(version):
        done = deploy(limit=host.backend.name, gunicorn_source=f"file://{directory}", gunicorn_version=version)
        assert done.returncode == 0, done.stdout
        return hello(address(host))["version"], in_service(host)

    git(directory, "init", "--initial-branch=trunk")
    git(directory, "add", ".")
    git(directory, "commit", "--message=one")
    before = served("trunk")
    program = directory / "hello.py"
    program.write_text(program.read_text().replace("VERSION = 22", "VERSION = 23"))
    git(directory, "commit", "--all", "--message=two")
    git(directory, "tag", "--annotate", "--message=two", "v23")
    return before, [served(version) for version in ("v23", "trunk", git(directory, "rev-parse", "HEAD").strip())]


def test_a_tag_a_branch_as_it_is_now_and_a_commit_are_deployed(on_the_second):
    (version, _), (tag, branch, commit) = on_the_second.from_git.result()
    assert (version, tag[0]) == (22, 23)
    assert tag == branch == commit, "the same commit is the same release"


def refuse_what_cannot_work(host, broken):
    not_installed = {"gunicorn_source": str(broken), "gunicorn_pip_install": ["./nothing-like-it"]}
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
    before = everything(host)
    arguments = (f"--limit={host.backend.name}", "--extra-vars=gunicorn_manage_packages=false")
    with visitors(host) as versions:
        lab.assert_refused("gunicorn", refused, *arguments, playbook="hello.yml")
    assert set(versions) == {1}
    assert hello(address(host))["greeting"].startswith("say")
    assert everything(host) == before
    test_nothing_of_a_check_remains(host)


def test_what_is_not_well_and_what_cannot_work_is_refused_by_name_and_the_old_release_keeps_serving(on_the_second):
    on_the_second.refused.result()
