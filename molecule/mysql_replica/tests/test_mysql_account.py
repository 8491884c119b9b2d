"""Accounts on a real server, seen by who logs in with them."""

import pytest

PASSWORDS = ["a", 'it\'s "quoted" \\ twice', "50%s off", "Zürich ☃", "x" * 200, "$A$005$"]
ACCOUNT = {"name": "visitor", "password": "first-of-the-test", "privileges": {"my_app.*": ["SELECT", "INSERT"]}}


@pytest.fixture
def manage(primary):
    """The module on the primary; afterwards the accounts and databases are gone."""
    names = set()
    primary.sql(*(f"CREATE DATABASE IF NOT EXISTS {name}" for name in ("my_app", "my2app")))
    primary.sql("CREATE TABLE IF NOT EXISTS my_app.t (a INT, b INT)", "CREATE TABLE IF NOT EXISTS my2app.t (a INT)")

    def run(*accounts, node=primary, check=False):
        names.update(account["name"] for account in accounts)
        return node.module("mysql_account", check=check, accounts=list(accounts))

    yield run
    primary.sql("SELECT 1", *(f"DROP USER IF EXISTS '{name}'@'%', '{name}'@localhost" for name in names))
    primary.sql("DROP DATABASE IF EXISTS my_app", "DROP DATABASE IF EXISTS my2app")


def log_in(secondary, *arguments, password=ACCOUNT["password"], tls="REQUIRED"):
    """What the account may do, from the other server over the network."""
    where = ("--host=172.30.62.11", "--user=visitor", f"--password={password}", f"--ssl-mode={tls}")
    return secondary.mysql(*where, "--execute", *arguments)


def test_passwords_are_recognised_in_what_the_server_stored(manage):
    accounts = [{"name": f"visitor{number}", "password": password} for number, password in enumerate(PASSWORDS)]
    others = [{**account, "password": account["password"] + "x"} for account in accounts]
    assert len(manage(*accounts)["accounts"]) == len(PASSWORDS)
    assert not manage(*accounts)["changed"]
    assert len(manage(*others, check=True)["accounts"]) == len(PASSWORDS)


def test_an_account_may_do_what_is_listed_and_no_more(manage, secondary):
    manage(ACCOUNT)
    assert log_in(secondary, "SELECT * FROM my_app.t").rc == 0
    assert "denied" in log_in(secondary, "DELETE FROM my_app.t").stderr
    assert "denied" in log_in(secondary, "SELECT * FROM my2app.t").stderr, "_ was taken for a wildcard"
    assert "denied" in log_in(secondary, "SELECT 1", tls="DISABLED").stderr
    assert "denied" in log_in(secondary, "SELECT 1", password="wrong").stderr


def test_what_others_granted_is_revoked_and_the_rest_kept(manage, primary, secondary):
    manage(ACCOUNT)
    primary.sql(
        "GRANT ALL ON my2app.* TO visitor WITH GRANT OPTION",
        "GRANT PROCESS, BACKUP_ADMIN ON *.* TO visitor WITH GRANT OPTION",
        "GRANT UPDATE (a, b) ON my_app.t TO visitor",
        "GRANT DELETE ON `my_app`.* TO visitor",  # _ is a wildcard here
    )
    narrowed = {**ACCOUNT, "privileges": {**ACCOUNT["privileges"], "*.*": ["BACKUP_ADMIN"], "my_app.t": ["UPDATE (b)"]}}
    foretold = manage(narrowed, check=True)
    assert foretold["changed"]
    done = manage(narrowed)
    assert foretold["accounts"] == done["accounts"]
    assert not manage(narrowed)["changed"]
    assert primary.sql("SHOW GRANTS FOR visitor").splitlines() == [
        "GRANT USAGE ON *.* TO `visitor`@`%`",
        "GRANT BACKUP_ADMIN ON *.* TO `visitor`@`%`",
        "GRANT SELECT, INSERT ON `my\\\\_app`.* TO `visitor`@`%`",
        "GRANT UPDATE (`b`) ON `my_app`.`t` TO `visitor`@`%`",
    ]
    assert log_in(secondary, "SELECT * FROM my_app.t").rc == 0, "the password was lost"


def test_all_privileges_are_recognised_at_every_level(manage):
    everything = {**ACCOUNT, "privileges": {"*.*": ["ALL", "GRANT OPTION"], "my_app.*": ["ALL"], "my_app.t": ["ALL"]}}
    assert manage(everything)["changed"]
    assert not manage(everything)["changed"]
    manage({**ACCOUNT, "privileges": {"my_app.*": ["SELECT"]}})
    assert not manage({**ACCOUNT, "privileges": {"my_app.*": ["SELECT"]}})["changed"]


def test_two_passwords_log_in_until_the_old_one_is_discarded(manage, primary, secondary):
    def accepted():
        return [
            number
            for number in ("first", "second", "third")
            if log_in(secondary, "SELECT 1", password=f"{number}-of-the-test").rc == 0
        ]

    second = {**ACCOUNT, "password": "second-of-the-test"}
    manage(ACCOUNT)
    assert not manage({**ACCOUNT, "old_password": "discard"})["changed"]
    foretold = manage(second, check=True)
    assert accepted() == ["first"]
    done = manage(second)
    assert done["accounts"] == foretold["accounts"]
    assert "RETAIN CURRENT PASSWORD" in done["accounts"]["visitor@%"][0]
    assert accepted() == ["first", "second"]
    assert not manage(second)["changed"]

    refused = manage({**ACCOUNT, "password": "third-of-the-test"})
    assert "visitor@%: the server knows two passwords" in refused["msg"]
    assert accepted() == ["first", "second"]
    manage(ACCOUNT)
    assert accepted() == ["first", "second"], "on the way back, too, nobody is shut out"
    manage(second)

    assert manage({**second, "old_password": "discard"}, check=True)["changed"]
    assert accepted() == ["first", "second"]
    ended = manage({**second, "old_password": "discard"})
    assert ended["accounts"] == {"visitor@%": ["ALTER USER visitor@% DISCARD OLD PASSWORD"]}
    assert accepted() == ["second"]
    assert not manage({**second, "old_password": "discard"})["changed"]
    assert not manage(second)["changed"]
    for result in (foretold, done, refused, ended):
        assert "of-the-test" not in result["shown"]


def test_an_account_by_socket_belongs_to_the_user_of_that_name(manage, primary):
    manage({"name": "games", "plugin": "auth_socket"})
    assert not manage({"name": "games", "plugin": "auth_socket"})["changed"]
    assert primary.host.run("setpriv --reuid=games mysql --user=games --execute 'SELECT 1'").rc == 0
    assert primary.host.run("setpriv --reuid=backup mysql --user=games --execute 'SELECT 1'").rc != 0
    assert manage({"name": "games", "plugin": "auth_socket", "state": "absent"})["changed"]
    assert not manage({"name": "games", "plugin": "auth_socket", "state": "absent"})["changed"]


def test_check_mode_and_results_tell_no_secret_and_change_nothing(manage, primary):
    foretold = manage(ACCOUNT, check=True)
    assert foretold["changed"]
    assert primary.sql("SELECT COUNT(*) FROM mysql.user WHERE User = 'visitor'") == "0"
    done = manage(ACCOUNT)
    shown = primary.shown_by_ansible("mysql_account", accounts=[{**ACCOUNT, "password": "second-of-the-test"}])
    assert "+        password: changed" in shown
    for text in (foretold["shown"], done["shown"], shown):
        assert "of-the-test" not in text
    journal = primary.host.run("journalctl --quiet --no-pager").stdout
    assert "foobar.webstack.mysql_account" in journal
    assert "second-of-the-test" not in journal
    primary.sql("FLUSH BINARY LOGS")
    assert primary.host.run("grep --files-with-matches --regexp=of-the-test /var/lib/mysql/binlog.0*").stdout == ""


def test_bad_accounts_are_refused_before_any_is_made(manage, primary):
    good = {**ACCOUNT, "name": "innocent"}
    for bad, reason in (
        ({"name": "visitor"}, "visitor@%: a password is needed"),
        ({**ACCOUNT, "privileges": {"my_app.*": ["SELEKT"]}}, "'SELEKT' is not a privilege"),
        (good, "innocent@% stands twice"),
    ):
        result = manage(good, bad)
        assert result["failed"]
        assert reason in result["msg"]
    assert primary.sql("SELECT COUNT(*) FROM mysql.user WHERE User IN ('visitor', 'innocent')") == "0"


@pytest.fixture
def policy(primary):
    primary.sql("INSTALL COMPONENT 'file://component_validate_password'")
    yield
    primary.sql("UNINSTALL COMPONENT 'file://component_validate_password'")


@pytest.mark.parametrize("check", [True, False], ids=["check", "run"])
def test_passwords_that_the_policy_rejects_are_refused_before_any_account_changes(manage, primary, policy, check):
    manage({**ACCOUNT, "password": "First-0f-the-test"})
    before = primary.sql("SELECT @@GLOBAL.gtid_executed")
    good = {**ACCOUNT, "name": "innocent", "password": "Good-0f-the-test"}
    new = {**ACCOUNT, "name": "newcomer", "password": "feeble-of-the-test"}
    result = manage(good, {**ACCOUNT, "password": "feeble-of-the-test", "privileges": {}}, new, check=check)
    assert result["failed"]
    assert "visitor@%, newcomer@%: the server's policy rejects the password" in result["msg"]
    assert "validate_password.policy=MEDIUM" in result["msg"]
    assert "feeble" not in result["shown"]
    assert primary.sql("SELECT @@GLOBAL.gtid_executed") == before
    seen = "SELECT COUNT(*) FROM performance_schema.events_statements_summary_by_digest WHERE QUERY_SAMPLE_TEXT LIKE "
    assert primary.sql(seen + "CONCAT('%feeble', '-of-the-test%')") == "0"


def test_what_the_policy_takes_is_set_and_what_stays_is_not_asked_for(manage, primary, policy):
    primary.sql("SET GLOBAL validate_password.policy = LOW")
    manage({**ACCOUNT, "password": "feeble-of-the-test"})
    primary.sql("SET GLOBAL validate_password.policy = MEDIUM")
    unchanged = {**ACCOUNT, "password": "feeble-of-the-test", "privileges": {"my_app.*": ["SELECT"]}}
    done = manage(unchanged, {**ACCOUNT, "name": "innocent", "password": "Good-0f-the-test"})
    assert list(done["accounts"]) == ["visitor@%", "innocent@%"]


def test_a_fenced_node_takes_no_accounts(manage, secondary):
    result = manage(ACCOUNT, node=secondary)
    assert result["failed"]
    assert "managed on the primary" in result["msg"]
