"""Privileges read from SHOW GRANTS, compared with what is wanted."""

import re

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.mysql_grants import (
    DATABASE,
    GLOBAL,
    ROUTINE,
    TABLE,
    grant_statements,
    level_name,
    parse_grants,
    readable,
    wanted_privileges,
)
from hypothesis import given
from hypothesis import strategies as st

STATIC = DATABASE | {"PROCESS", "SUPER", "REPLICATION SLAVE", "FILE", "USAGE", "PROXY", "GRANT OPTION"}
KNOWN = STATIC | {"BACKUP_ADMIN", "CLONE_ADMIN"}
SITE = ("", "site", "*")
NOTE = ("", "site", "note")


@pytest.mark.parametrize(
    ("line", "level", "names"),
    [
        ("GRANT SELECT, INSERT ON `site`.* TO `w`@`%`", SITE, {"SELECT", "INSERT"}),
        ("GRANT REPLICATION SLAVE ON *.* TO `r`@`%`", GLOBAL, {"REPLICATION SLAVE"}),
        ("GRANT BACKUP_ADMIN,CLONE_ADMIN ON *.* TO `r`@`%`", GLOBAL, {"BACKUP_ADMIN", "CLONE_ADMIN"}),
        ("GRANT GONE_WITH_ITS_COMPONENT ON *.* TO `r`@`%`", GLOBAL, {"GONE_WITH_ITS_COMPONENT"}),
        ("GRANT USAGE ON *.* TO `r`@`%` WITH GRANT OPTION", GLOBAL, {"GRANT OPTION"}),
        ("GRANT SELECT ON *.* TO ` WITH GRANT OPTION`@`%`", GLOBAL, {"SELECT"}),
        ("GRANT ALL PRIVILEGES ON `site`.* TO `w`@`%` WITH GRANT OPTION", SITE, DATABASE | {"GRANT OPTION"}),
        ("GRANT ALL PRIVILEGES ON `site`.`note` TO `w`@`%`", NOTE, TABLE),
        (r"GRANT SELECT ON `my\_app`.* TO `w`@`%`", ("", r"my\_app", "*"), {"SELECT"}),
        ("GRANT SELECT ON `a``b. ON c`.`d TO e` TO `w`@`%`", ("", "a`b. ON c", "d TO e"), {"SELECT"}),
        (
            "GRANT SELECT (`a`, `b ON c`), UPDATE ON `site`.`note` TO `w`@`%`",
            NOTE,
            {"SELECT (`a`)", "SELECT (`b ON c`)", "UPDATE"},
        ),
        ("GRANT EXECUTE ON PROCEDURE `site`.`add` TO `w`@`%`", ("PROCEDURE", "site", "add"), {"EXECUTE"}),
    ],
)
def test_a_line_of_show_grants_is_understood(line, level, names):
    assert parse_grants([line], KNOWN) == {level: names}


@pytest.mark.parametrize(
    "line",
    [
        "GRANT USAGE ON *.* TO `w`@`%`",
        "GRANT `reader`@`%` TO `w`@`%`",
        "GRANT PROXY ON ``@`` TO `root`@`localhost` WITH GRANT OPTION",
        "REVOKE SELECT ON `mysql`.* FROM `w`@`%`",
    ],
)
def test_what_grants_nothing_of_ours_is_left_out(line):
    assert parse_grants([line], KNOWN) == {}


@pytest.mark.parametrize(
    ("key", "names", "level", "expected"),
    [
        ("site.*", ["select", "Create  View"], SITE, {"SELECT", "CREATE VIEW"}),
        ("my_app.*", ["SELECT"], ("", r"my\_app", "*"), {"SELECT"}),
        ("50%.*", ["SELECT"], ("", r"50\%", "*"), {"SELECT"}),
        ("my_app.t_1", ["SELECT"], ("", "my_app", "t_1"), {"SELECT"}),
        ("`odd.name`.`a``b`", ["SELECT"], ("", "odd.name", "a`b"), {"SELECT"}),
        ("*.*", ["ALL"], GLOBAL, KNOWN - {"USAGE", "PROXY", "GRANT OPTION"}),
        ("site.*", sorted(DATABASE), SITE, DATABASE),
        ("site.note", ["SELECT (id, `a b`)", "ALL PRIVILEGES"], NOTE, TABLE | {"SELECT (`id`)", "SELECT (`a b`)"}),
        ("procedure site.add", ["ALL", "GRANT OPTION"], ("PROCEDURE", "site", "add"), ROUTINE | {"GRANT OPTION"}),
    ],
)
def test_a_wanted_level_is_understood(key, names, level, expected):
    assert wanted_privileges({key: names}, KNOWN) == {level: expected}


def test_with_partial_revokes_the_server_takes_no_wildcards_and_gets_no_escapes():
    assert wanted_privileges({"my_app.*": ["SELECT"]}, KNOWN, literal=True) == {("", "my_app", "*"): {"SELECT"}}


@pytest.mark.parametrize(
    ("key", "names", "reason"),
    [
        ("site", ["SELECT"], "'site' is no level"),
        ("*.note", ["SELECT"], "'*.note' is no level"),
        ("`*`.*", ["SELECT"], "is no level"),
        ("PROCEDURE site.*", ["EXECUTE"], "is no level"),
        ("site.* TO root@localhost --", ["SELECT"], "is no level"),
        ("site.*", "SELECT", "is not a list"),
        ("site.*", [None], "is not a list"),
        ("site.*", ["SELEKT"], "site.*: 'SELEKT' is not a privilege of this server"),
        ("site.*", ["PROCESS"], "'PROCESS' has no meaning at this level"),
        ("site.note", ["EVENT"], "'EVENT' has no meaning at this level"),
        ("site.*", ["SELECT (id)"], "cannot be limited to columns"),
        ("site.note", ["DELETE (id)"], "cannot be limited to columns"),
        ("site.*", ["SELECT; DROP TABLE x"], "is not a privilege"),
        ("*.*", ["PROXY"], "'PROXY' has no meaning"),
    ],
)
def test_what_cannot_be_granted_is_refused_with_the_value(key, names, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        wanted_privileges({key: names}, KNOWN)


def test_grants_come_before_revokes_and_name_only_the_difference():
    have = {SITE: frozenset({"SELECT", "DELETE"}), NOTE: frozenset({"INSERT"})}
    want = {SITE: frozenset({"SELECT", "UPDATE"})}
    assert grant_statements(have, want) == [
        "GRANT UPDATE ON `site`.* TO",
        "REVOKE DELETE ON `site`.* FROM",
        "REVOKE INSERT ON `site`.`note` FROM",
    ]


def test_all_privileges_and_the_grant_option_are_never_revoked_in_one_statement():
    everything = wanted_privileges({"*.*": ["ALL", "GRANT OPTION"]}, KNOWN)
    assert [" GRANT OPTION" in statement for statement in grant_statements(everything, {})] == [False, True]


def test_a_dynamic_privilege_that_stays_is_given_anew_without_the_grant_option():
    have = {GLOBAL: frozenset({"BACKUP_ADMIN", "FILE", "GRANT OPTION"})}
    assert grant_statements(have, {GLOBAL: frozenset({"BACKUP_ADMIN", "FILE"})}) == [
        "REVOKE BACKUP_ADMIN, GRANT OPTION ON *.* FROM",
        "REVOKE GRANT OPTION ON *.* FROM",
        "GRANT BACKUP_ADMIN ON *.* TO",
    ]


@st.composite
def privileges(draw):
    """Privileges as a server may have them: database names escaped, columns in tables."""
    names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), min_size=1, max_size=8).filter(
        lambda name: name != "*"
    )
    levels = st.one_of(
        st.just(GLOBAL), st.tuples(st.just(""), names, st.just("*")), st.tuples(st.just(""), names, names)
    )
    result = {}
    for level in draw(st.lists(levels, max_size=4)):
        allowed = KNOWN - {"USAGE", "PROXY"} if level == GLOBAL else (DATABASE if level[2] == "*" else TABLE)
        chosen = set(draw(st.sets(st.sampled_from(sorted(allowed)), min_size=1)))
        if level[2] != "*" and draw(st.booleans()):
            chosen |= {"UPDATE (`" + draw(names).replace("`", "``") + "`)"}
        result[level] = frozenset(chosen)
    return result


def show_grants(have):
    return [f"GRANT {', '.join(sorted(names))} ON {level_name(level)} TO `w`@`%`" for level, names in have.items()]


@given(privileges())
def test_what_is_granted_is_read_back(have):
    assert parse_grants(show_grants(have), KNOWN) == have
    assert grant_statements(have, have) == []


@given(privileges(), privileges())
def test_the_statements_lead_from_one_to_the_other(have, want):
    state = {level: set(names) for level, names in have.items()}
    for statement in grant_statements(have, want):
        verb, rest = statement.rsplit(" ", 1)[0].split(" ", 1)
        ((level, names),) = parse_grants([f"GRANT {rest} TO `w`@`%`"], KNOWN).items()
        change = set.update if verb == "GRANT" else set.difference_update
        change(state.setdefault(level, set()), names)
    assert {level: names for level, names in state.items() if names} == want


def test_a_complete_list_is_shown_as_all_privileges():
    assert readable({SITE: DATABASE | {"GRANT OPTION"}, NOTE: frozenset({"SELECT"})}, KNOWN) == {
        "`site`.*": ["ALL PRIVILEGES", "GRANT OPTION"],
        "`site`.`note`": ["SELECT"],
    }
