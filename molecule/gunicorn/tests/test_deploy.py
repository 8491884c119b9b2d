"""deploy.yml and rollback.yml on a site of two application servers and two web servers, under every kind of visitor."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import testinfra

import lab

SCENARIO = Path(__file__).resolve().parents[1]
SERVERS = {"gunicorn-app1": "172.30.60.11", "gunicorn-app2": "172.30.60.12"}
FIRST_PAGE = (200, (SCENARIO / "files" / "pages" / "index.html").read_text())
NOT_ON_THE_SECOND = """
import socket
if socket.gethostname() == "gunicorn-app2":
    raise SystemExit("not on this host")
"""


def play(name, *arguments, **variables):
    inventory = SCENARIO / "site" / "inventory"
    return lab.playbook(
        f"playbooks/{name}.yml",
        "--extra-vars",
        json.dumps(variables),
        *arguments,
        inventories=(inventory,),
        check=False,
    )


def on_each(command):
    return [testinfra.get_host(f"docker://{name}").check_output(command) for name in SERVERS]


def in_service(tier):
    directory = {"application": "/srv/hello", "pages": "/var/www/site"}[tier]
    return [link.removeprefix("releases/") for link in on_each(f"readlink {directory}/current")]


def migrations(since):
    """How often the release command ran on each server."""
    journals = [
        testinfra.get_host(f"docker://{name}").check_output(
            f"journalctl --unit hello-next --since {begin} --output cat"
        )
        for name, begin in zip(SERVERS, since, strict=True)
    ]
    return [journal.count("the tables are there") for journal in journals]


def everything():
    return on_each(
        "readlink /srv/hello/current /var/www/site/current; ls /srv/hello/releases /var/www/site/releases; "
        "cat /etc/systemd/system/hello.* /srv/hello/history; systemctl show --property=MainPID hello.service"
    )


def pages(path="/"):
    """What both web servers answer."""
    answers = []
    for address in SERVERS.values():
        connection = http.client.HTTPConnection(address, 8080, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        answers.append((answer.status, answer.read().decode()))
        connection.close()
    return answers


@pytest.fixture(scope="module")
def site(source, tmp_path_factory):
    """Make the sources of one version of the whole site; give the variables that name them."""

    def make(version, prefix="", files=None):
        directory = tmp_path_factory.mktemp("pages")
        for name, text in ({"index.html": f"page {version}"} | (files or {})).items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return {"gunicorn_source": str(source(version, prefix=prefix)), "nginx_static_source": str(directory)}

    return make


@pytest.fixture(scope="module")
def deployed(site, under_load):
    """A new version of the whole site, deployed under load, and what was seen meanwhile."""
    before, since, new = {tier: in_service(tier) for tier in ("application", "pages")}, on_each("date +@%s"), site(32)
    with under_load(SERVERS.values()) as kinds, lab.asking(pages, pause=0.1) as seen:
        done = play("deploy", gunicorn_release_command="echo the tables are there", **new)
    after = {tier: in_service(tier) for tier in before}
    return SimpleNamespace(before=before, after=after, since=since, kinds=kinds, pages=seen, done=done)


def test_a_whole_site_is_deployed_server_by_server_without_a_failed_request(deployed):
    said = deployed.done.stdout
    assert deployed.done.returncode == 0, said
    assert [set(versions) for versions in deployed.kinds] == [{1, 32}] * len(deployed.kinds)
    assert {answer for answers in deployed.pages for answer in answers} == {FIRST_PAGE, (200, "page 32")}
    for tier, servers in deployed.before.items():
        (old,), (now,) = set(servers), set(deployed.after[tier])
        for server in SERVERS:
            assert f"{server}: {tier} {now} in service, kept {old}" in said
    assert f"hello: {deployed.before['application'][0]} → {deployed.after['application'][0]}" in said
    assert migrations(deployed.since) == [1, 0], "before the first server was switched, for all"


def test_a_dry_run_says_what_would_change_on_each_server_and_changes_nothing(site, deployed):
    before, (old, _) = everything(), deployed.after["application"]
    with ThreadPoolExecutor() as at_once:
        runs = [
            at_once.submit(play, "deploy", "--check", "--diff", **site(33)),
            at_once.submit(play, "rollback", "--check", "--diff"),
        ]
    for run in runs:
        done = run.result()
        assert done.returncode == 0, done.stdout
        assert done.stdout.count(f"hello: {old} → ") == 2
    assert everything() == before


def test_the_first_server_that_is_not_well_ends_a_deployment_and_a_way_back_by_name_takes_the_others(
    site, deployed, under_load
):
    before, served = deployed.after["application"], deployed.after["pages"]
    with under_load(SERVERS.values()) as kinds:
        done = play("deploy", gunicorn_health_timeout=4, **site(35, NOT_ON_THE_SECOND, {"app.3f9c2a71.css": "new"}))
        assert done.returncode != 0
        assert "not on this host" in done.stdout
        assert "gunicorn-app1 serve the new one: mend it and run this again" in " ".join(done.stdout.split())
        stopped = in_service("application")
        assert (stopped[0] != before[0], stopped[1]) == (True, before[1])
        assert in_service("pages") == served
        assert pages("/app.3f9c2a71.css") == [(200, "new")] * 2, (
            "the files of the new pages were there before the application"
        )

        back = play("rollback", release=before[0])
        assert back.returncode == 0, back.stdout
        assert f"gunicorn-app2: application {before[1]} stays" in back.stdout
    assert [set(versions) for versions in kinds] == [{32, 35}] * 6 + [{32}] * 6
    assert in_service("application") == before
    assert in_service("pages") == served, "the release that was named is none of theirs"


def test_a_whole_site_goes_back_server_by_server_without_a_failed_request(deployed, under_load):
    with under_load(SERVERS.values()) as kinds, lab.asking(pages, pause=0.1) as seen:
        back = play("rollback")
        assert back.returncode == 0, back.stdout
    assert [set(versions) for versions in kinds] == [{1, 32}] * len(kinds)
    assert {answer for answers in seen for answer in answers} == {FIRST_PAGE, (200, "page 32")}
    assert {tier: in_service(tier) for tier in deployed.before} == deployed.before
    for tier, servers in deployed.before.items():
        (old,), (now,) = set(servers), set(deployed.after[tier])
        for server in SERVERS:
            assert f"{server}: {tier} {now} → {old}" in back.stdout
            assert f"{server}: {tier} {old} in service" in back.stdout


def test_what_fails_on_the_first_server_ends_a_deployment_before_anything_is_switched(site):
    before, served = everything(), pages()
    command = "python -c 'raise SystemExit(\"no such table\")'"
    with ThreadPoolExecutor() as at_once:
        not_migrated = at_once.submit(
            play, "deploy", "--tags", "gunicorn", gunicorn_release_command=command, **site(37)
        )
        not_whole = at_once.submit(
            play, "deploy", "--tags", "nginx", nginx_static_check=["/"], **site(36, files={"index.html": ""})
        )
    for run, why in (
        (not_migrated, "no such table"),
        (not_migrated, "It was the first, so that nothing else was touched"),
        (not_whole, "index.html is not there, is empty"),
    ):
        assert run.result().returncode != 0
        assert why in " ".join(run.result().stdout.split())
    assert everything() == before

    # It is there, and the server does not give it out.
    hidden = site(38, files={".secret": "s"}) | {"nginx_static_check": ["/", "/.secret"]}
    done = play("deploy", "--tags", "nginx", **hidden)
    assert done.returncode != 0
    assert "/.secret: " in done.stdout
    assert "It was the first, so that nothing else was touched" in done.stdout
    assert pages() == served

    # The new application is in service by then.
    done = play("deploy", **hidden)
    said = " ".join(done.stdout.split())
    assert "the application servers serve the new application: mend it and run this again" in said
    assert "nothing else was touched" not in said
    assert pages() == served
    assert play("rollback", "--tags", "gunicorn").returncode == 0


def test_a_way_back_that_nobody_has_is_refused_with_what_there_is():
    before, (old, _) = everything(), in_service("application")
    done = play("rollback", release="0123456789ab")
    assert done.returncode != 0
    assert "0123456789ab is kept by no server" in done.stdout
    assert f"gunicorn-app2 has of application: {old} (in service)" in done.stdout
    assert everything() == before
