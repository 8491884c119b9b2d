"""How long clients cannot write when the primary moves: as planned, and when its server is lost. Medians of several moves.

Builds the databases of molecule/mysql_failover, and removes them again.
"""

import statistics
import time

import pytest

import lab
from tier import Tier

MOVES = 5


@pytest.fixture
def tier():
    lab.run("molecule", "converge", "--scenario-name", "mysql_failover", timeout=900)
    tier = Tier("mysql_failover")
    tier.prepare()
    yield tier
    lab.run("molecule", "destroy", "--scenario-name", "mysql_failover", timeout=300)


def planned(tier):
    """The gap of one planned move."""
    with tier.ledger("planned") as ledger:
        tier.do("switchover", primary=tier.replicas()[0])
        ledger.wait_for_write()
    return ledger.nothing_is_lost()["gap"]


def lost(tier):
    """The time from the kill to the first write, and how much of it the playbook took."""
    old = tier.primary()
    with tier.ledger("lost") as ledger:
        tier.kill(old)
        new = tier.most_advanced([node for node in tier.nodes if node != old])
        began = time.monotonic()
        tier.do("failover", primary=new, confirm=new)
        playbook = time.monotonic() - began
        ledger.wait_for_write()
    tier.start(old)
    tier.do("rejoin", node=old)
    return ledger.nothing_is_lost()["gap"], playbook


def test_switchover(tier, capsys):
    def measure(move, moves):
        results = []
        for _ in range(moves):
            lab.wait_until(tier.whole)
            results.append(move(tier))
        return results

    gaps = measure(planned, MOVES)
    outages, playbooks = zip(*measure(lost, 3), strict=True)
    with capsys.disabled():
        print(
            "\nno write:",
            f"planned move     {statistics.median(gaps):5.2f} s (of {', '.join(f'{gap:.2f}' for gap in sorted(gaps))})",
            f"the primary lost {statistics.median(outages):5.2f} s, in which failover.yml took {statistics.median(playbooks):.2f} s",
            sep="\n  ",
        )
