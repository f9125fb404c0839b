"""The worker's half of rows of tables: cut by placement on the way out, put together on the way in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.errors import Fault, RequestError
from paramserver.events import JobSpec, JoinGranted, PullGranted, Replica, Snapshot, TensorSpec
from paramserver.placement import place
from paramserver.rows import RowGradient, RowValues
from paramserver.session import Session

ROWS = 12
TENSORS = (TensorSpec("bias", (2,)), TensorSpec("table", (ROWS, 3), table=True))
TABLE = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)

subsets = st.lists(st.integers(0, ROWS - 1), unique=True).map(lambda rows: np.array(sorted(rows), np.int64))


def session(shards=3):
    job = JobSpec(TENSORS)
    placement = place(TENSORS, shards)
    addresses = tuple(f"server-{shard}" for shard in range(shards))
    return Session(JoinGranted(0, Replica(0, 1), 0, 0, job, placement, addresses, True))


def gradient(rows, value=1.0):
    return RowGradient(rows, np.full((len(rows), 3), value, np.float32), (ROWS, 3))


@given(rows=subsets, shards=st.integers(1, 5))
def test_the_rows_of_a_pull_come_back_as_they_are_in_the_whole_table(rows, shards):
    begun = session(shards)
    exchange = begun.pull(4, {"table": rows})
    for shard, request in exchange.requests.items():
        owned = {part: TABLE[part.row_begin : part.row_end] for part in begun.slices(shard)
                 if part.key == "table"}  # fmt: skip
        assert set(request.rows) == set(owned), "a slice of which nothing is wanted is named, too"
        granted = PullGranted(shard, Snapshot(7, 0, owned), rows=request.rows)
        for part, values in granted.values().items():
            exchange.destination(part)[...] = values
        for part in begun.slices(shard):
            if part.key == "bias":
                exchange.destination(part)[...] = 9
        pulled = exchange.receive(shard, granted)
    found = pulled.values["table"]
    assert isinstance(found, RowValues)
    assert found.shape == (ROWS, 3)
    assert found.indices.tolist() == rows.tolist()
    assert found.rows.tolist() == TABLE[rows].tolist()
    assert pulled.values["bias"].tolist() == [9, 9]


@given(rows=subsets, shards=st.integers(1, 5))
def test_a_push_of_rows_reaches_every_shard_each_with_its_part(rows, shards):
    begun = session(shards)
    sent = RowGradient(rows, TABLE[rows], (ROWS, 3))
    push = begun.push(0, {"bias": np.ones(2, np.float32), "table": sent}, samples=2)
    whole = np.zeros((ROWS, 3), np.float32)
    for shard in range(shards):
        assert set(push.requests[shard].gradients) == set(begun.slices(shard))
        for part, piece in push.requests[shard].gradients.items():
            if part.key == "table":
                assert isinstance(piece, RowGradient)
                assert piece.shape == (part.row_end - part.row_begin, 3)
                whole[part.row_begin : part.row_end] = piece.dense()
    assert whole.tolist() == sent.dense().tolist()


def test_a_gradient_of_all_rows_is_taken_for_a_table_too():
    push = session().push(
        0, {"bias": np.ones(2, np.float32), "table": np.ones((ROWS, 3), np.float32)}, samples=1
    )
    pieces = [piece for request in push.requests.values() for piece in request.gradients.values()]
    assert all(isinstance(piece, np.ndarray) for piece in pieces)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_go_out_as_a_refusal(bad):
    push = session().push(
        3, {"bias": np.ones(2, np.float32), "table": gradient(np.array([0, 11]), bad)}, samples=5
    )
    assert push.refusal == f"The gradient of replica 0 at clock 3 holds {bad} in 'table'."
    assert {(request.samples, len(request.gradients)) for request in push.requests.values()} == {(0, 0)}


def test_a_pull_without_rows_is_whole():
    exchange = session().pull(0)
    assert all(not request.rows for request in exchange.requests.values())
    assert all(not request.rows for request in session().observe().requests.values())


@pytest.mark.parametrize(
    ("rows", "sentence", "fault"),
    [
        ({"tabel": [1]}, "no tensor 'tabel'. Did you mean 'table'?", Fault.UNKNOWN),
        ({"bias": [1]}, "'bias' is no table, so it has to be pulled whole", Fault.INVALID),
        ({"table": [3, 12]}, "'table' to be pulled: expected indices from 0 to 11, found 12", Fault.INVALID),
        ({"table": [-1]}, "found -1", Fault.INVALID),
        ({"table": [3, 3]}, "repeated or out of order: 3 after 3", Fault.INVALID),
        ({"table": [3, 2]}, "repeated or out of order: 2 after 3", Fault.INVALID),
        ({"table": [1.5]}, "expected indices (n,) int64", Fault.INVALID),
    ],
)
def test_rows_that_are_not_there_are_refused_before_anything_is_sent(rows, sentence, fault):
    with pytest.raises(RequestError) as refused:
        session().pull(0, {key: np.array(indices) for key, indices in rows.items()})
    assert sentence in str(refused.value)
    assert refused.value.fault is fault


def test_rows_of_what_is_no_table_and_of_another_shape_are_refused():
    rows = RowGradient(np.array([1]), np.ones(1, np.float32), (2,))
    with pytest.raises(RequestError, match="'bias' is no table, so its gradient has to be pushed whole"):
        session().push(0, {"bias": rows, "table": gradient(np.array([1]))}, 1)
    other = RowGradient(np.array([1]), np.ones((1, 3), np.float32), (ROWS + 1, 3))
    with pytest.raises(RequestError, match=r"'table' is \(13, 3\) float32, expected \(12, 3\) float32"):
        session().push(0, {"bias": np.ones(2, np.float32), "table": other}, 1)
