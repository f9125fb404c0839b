"""Every sample once an epoch, whoever asks and in whatever order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.data import Batches, Dataset, assignment, samples_of_rank, steps_of_rank, steps_per_epoch
from paramserver.errors import Fault, RequestError


def numbered(samples):
    """A data set whose inputs are the numbers of its samples."""
    numbers = np.arange(samples)
    return Dataset(numbers.astype(np.float32).reshape(-1, 1), numbers % 2, "numbered")


@given(st.integers(0, 2**40), st.integers(0, 50), st.integers(1, 12), st.integers(0, 60))
def test_the_shares_of_an_epoch_are_a_balanced_partition(seed, epoch, replicas, surplus):
    samples = replicas + surplus
    shares = [assignment(seed, epoch, rank, replicas, samples) for rank in range(replicas)]
    assert all(share.dtype == np.int64 for share in shares)
    assert sorted(np.concatenate(shares).tolist()) == list(range(samples))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == [samples_of_rank(samples, rank, replicas) for rank in range(replicas)]


def test_an_assignment_depends_on_seed_and_epoch():
    shares = [assignment(seed, epoch, 1, 3, 90).tolist() for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]]
    assert shares[0] == shares[1]
    assert len({tuple(share) for share in shares}) == 3
    assert shares[0] != sorted(shares[0])


@given(
    st.integers(2, 40),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_batches_cover_each_epoch_once_in_any_order_of_asking(surplus, replicas, batch, epochs, shuffle):
    dataset = numbered(replicas + surplus)
    seen = [[] for _ in range(epochs)]
    for rank in range(replicas):
        batches = Batches(dataset, batch, epochs, seed=5, rank=rank, replicas=replicas)
        assert batches.steps == steps_of_rank(len(dataset), rank, replicas, batch, epochs)
        steps = list(range(batches.steps))
        straight = {step: batches.batch_at(step) for step in steps}
        shuffle.shuffle(steps)
        for step in steps:
            inputs, labels = batches.batch_at(step)
            assert inputs.tobytes() == straight[step][0].tobytes()
            np.testing.assert_array_equal(labels, inputs[:, 0].astype(np.int64) % 2)
            seen[step // batches.steps_per_epoch] += inputs[:, 0].tolist()
    assert all(sorted(epoch) == list(range(len(dataset))) for epoch in seen)


def test_only_the_last_batch_of_an_epoch_is_smaller():
    batches = Batches(numbered(10), batch=4, epochs=2, seed=0, rank=0, replicas=1)
    assert [len(batches.batch_at(step)[1]) for step in range(batches.steps)] == [4, 4, 2, 4, 4, 2]
    assert batches.batch_at(0)[0].dtype == np.float32
    assert batches.batch_at(0)[1].dtype == np.int64


def test_steps_are_counted_without_dropping_a_remainder():
    assert [steps_per_epoch(samples, 4) for samples in (1, 4, 5, 8)] == [1, 1, 2, 2]
    # 10 samples over 4 ranks are 2, 3, 2, 3.
    assert [steps_of_rank(10, rank, 4, batch=2, epochs=3) for rank in range(4)] == [3, 6, 3, 6]


def test_too_many_replicas_get_a_sentence():
    with pytest.raises(RequestError, match="3 samples are too few for 4 replicas: rank 0 would get none"):
        Batches(numbered(3), batch=1, epochs=1, seed=0, rank=0, replicas=4)


@pytest.mark.parametrize("step", [-1, 6])
def test_a_step_outside_the_job_is_refused(step):
    batches = Batches(numbered(6), batch=2, epochs=2, seed=0, rank=0, replicas=1)
    with pytest.raises(RequestError, match=f"the steps 0 to 5, but step {step}") as caught:
        batches.batch_at(step)
    assert caught.value.fault is Fault.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch": 0}, "at least 1 sample"),
        ({"epochs": 0}, "at least 1 epoch"),
        ({"rank": 2}, "ranks go from 0 to 1, but got rank 2"),
        ({"rank": -1}, "got rank -1"),
    ],
)
def test_a_wrong_count_gets_a_sentence(change, sentence):
    options = {"batch": 2, "epochs": 1, "seed": 0, "rank": 0, "replicas": 2} | change
    with pytest.raises(RequestError, match=sentence):
        Batches(numbered(6), **options)
