"""The group that all tests share, whole before each of them, and the table of what the faults have cost."""

import pytest

from lab import wait_until
from tier import FAULTS, Tier, table


class Group(Tier):
    def members(self):
        """The nodes that are in the group as they say themselves, with their state services' words."""
        said = {node: self.state(node) for node in self.nodes}
        return {node: state for node, state in said.items() if (state.get("group") or {}).get("quorum")}

    def waits(self):
        """Of a group a majority acknowledges each commit, always."""
        return True

    def whole(self):
        """Whether all nodes are in the group, one of them is open, and all hold the same."""
        members = self.members()
        states = [state["group"]["state"] for state in members.values()]
        return (
            states == ["ONLINE"] * len(self.nodes)
            and len(self.writable()) == 1
            and len({state["gtid_executed"] for state in members.values()}) == 1
        )


@pytest.fixture(scope="session")
def tier():
    tier = Group("mysql_group")
    tier.prepare()
    return tier


@pytest.fixture(autouse=True)
def whole(tier):
    wait_until(tier.whole, seconds=90)


def pytest_terminal_summary(terminalreporter):
    if FAULTS:
        terminalreporter.section("what each fault has cost")
        terminalreporter.write_line(table())
