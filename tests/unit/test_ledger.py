"""What the ledger makes of a log and of the rows that a node holds."""

import pytest

from ledger import judge, payload, read

LOG = """run 0 0 100.0 first
tried 0 1 100.1
tried 1 1 100.1
acknowledged 0 1 100.2 db1
acknowledged 1 1 100.2 db1
tried 0 2 100.3
refused 0 2 100.4 db1 (1290, 'super_read_only')
tried 1 2 100.3
uncertain 1 2 100.4 db1 (2013, 'Lost connection')
tried 0 3 103.0
acknowledged 0 3 103.2 db2
end 0 0 103.3
tried 0 4 103.4
"""


def rows(*keys):
    return [(*key, payload("first", *key)) for key in keys]


def judged(held, log=LOG):
    return judge(read(log.splitlines(keepends=True)), held)


GOOD = rows((0, 1), (1, 1), (0, 3))


def test_all_that_was_acknowledged_is_there():
    result = judged(GOOD)
    assert (result["acknowledged"], result["lost"], result["phantom"], result["refused"]) == (3, 0, 0, 1)
    assert result["uncertain"] == {"there": 0, "not_there": 2}


@pytest.mark.parametrize(
    ("held", "lost", "phantom"),
    [
        (rows((0, 1), (1, 1)), [(0, 3)], []),
        ([*GOOD[:2], (0, 3, payload("first", 0, 4))], [(0, 3)], []),
        ([], [(0, 1), (0, 3), (1, 1)], []),
        ([*GOOD, *rows((0, 2))], [], [(0, 2)]),
        ([*GOOD, *rows((2, 1))], [], [(2, 1)]),
        ([*GOOD, *rows((1, 2), (0, 4))], [], []),
    ],
    ids=["a row is missing", "a row is altered", "all rows are missing", "refused", "never tried", "uncertain"],
)
def test_what_is_lost_and_what_nobody_wrote_is_named(held, lost, phantom):
    result = judged(held)
    assert result["examples"] == {"lost": lost, "phantom": phantom}
    assert (result["lost"], result["phantom"]) == (len(lost), len(phantom))


def test_uncertain_rows_may_be_there_or_not():
    assert judged([*GOOD, *rows((1, 2))])["uncertain"] == {"there": 1, "not_there": 1}


def test_the_gap_is_the_longest_time_without_an_answer():
    result = judged(GOOD)
    assert (result["gap"], result["gap_began"], result["gap_ended"]) == (3.0, 100.2, 103.2)


def test_writes_that_never_come_back_are_a_gap_up_to_the_end():
    log = LOG.replace("acknowledged 0 3 103.2 db2\n", "").replace("end 0 0 103.3", "end 0 0 109.2")
    assert judged(GOOD[:2], log)["gap"] == 9.0


def test_two_nodes_that_answer_at_one_time_are_seen():
    assert [turn[:2] for turn in judged(GOOD)["turns"]] == [["db1", 2], ["db2", 1]]
    log = LOG.replace("end 0 0", "acknowledged 1 9 103.25 db1\nend 0 0")
    assert [turn[0] for turn in judged(GOOD, log)["turns"]] == ["db1", "db2", "db1"]


def test_a_log_that_was_cut_off_leaves_its_last_row_uncertain():
    log = LOG[: LOG.index("acknowledged 0 3") + 20]
    result = judged(GOOD, log)
    assert (result["acknowledged"], result["lost"], result["phantom"]) == (2, 0, 0)
