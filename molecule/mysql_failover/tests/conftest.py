"""The tier that all tests share, whole before each of them, and the table of what the faults have cost."""

import pytest

from lab import wait_until
from tier import FAULTS, Tier, table


@pytest.fixture(scope="session")
def tier():
    tier = Tier("mysql_failover")
    tier.prepare()
    return tier


@pytest.fixture(autouse=True)
def whole(tier):
    wait_until(tier.whole, seconds=30)


def pytest_terminal_summary(terminalreporter):
    if FAULTS:
        terminalreporter.section("what each fault has cost")
        terminalreporter.write_line(table())
