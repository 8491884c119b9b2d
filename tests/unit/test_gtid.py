"""Sets of GTIDs: against Python's own sets, and in MySQL's notation."""

import pytest
from ansible_collections.foobar.webstack.plugins.module_utils.gtid import GtidSet
from hypothesis import given
from hypothesis import strategies as st

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
members = st.sets(st.tuples(st.sampled_from([A, B]), st.sampled_from(["", "blue"]), st.integers(1, 12)))


def notation(transactions):
    return ",\n".join(f"{uuid}:{tag + ':' if tag else ''}{number}" for uuid, tag, number in transactions)


@given(members, members)
def test_the_operations_are_those_of_sets(left, right):
    ours, others = GtidSet(notation(left)), GtidSet(notation(right))
    assert ours - others == GtidSet(notation(left - right))
    assert ours | others == GtidSet(notation(left | right))
    assert (ours <= others) == (left <= right)
    assert len(ours) == len(left)
    assert bool(ours) == bool(left)


@given(members)
def test_what_is_printed_is_read_again(transactions):
    gtids = GtidSet(notation(transactions))
    assert GtidSet(str(gtids)) == gtids
    assert hash(GtidSet(str(gtids))) == hash(gtids)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        (f"{A}:1-3:4-6:9", f"{A}:1-6:9"),
        (f"{A.upper()}:5:1,\n{B}:2", f"{A}:1:5,{B}:2"),
        (f"{A}:1-2:blue:1:green:7-9:12", f"{A}:1-2:blue:1:green:7-9:12"),
        (f"{A}:5-3", ""),
    ],
)
def test_it_prints_as_mysql_does(text, printed):
    assert str(GtidSet(text)) == printed


@pytest.mark.parametrize(
    "text", ["x", A, f"{A}:", f"{A}:0", f"{A}:1-", f"{A}:-1", f"{A}:1_0", f"{A[:-1]}:1", "binlog.000001:4"]
)
def test_what_is_no_set_is_refused(text):
    with pytest.raises(ValueError, match=r"GTID|interval"):
        GtidSet(text)
