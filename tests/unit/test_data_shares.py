"""Skewed splits give every sample to one rank, and every rank a sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.data import (
    Batches,
    Dataset,
    DistributedSampler,
    assignment,
    parse_split,
    shares,
    steps_of_ranks,
)
from paramserver.errors import RequestError


def numbered(samples, classes=2):
    """A data set whose inputs are the numbers of its samples."""
    numbers = np.arange(samples)
    return Dataset(numbers.astype(np.float32).reshape(-1, 1), numbers % classes, "numbered", classes)


@given(
    st.sampled_from(["iid", "by-label", "dirichlet:0.001", "dirichlet:0.1", "dirichlet:1000"]),
    st.integers(1, 9),
    st.integers(0, 40),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_shares_are_a_partition_and_nobody_goes_empty(split, replicas, surplus, classes, seed):
    dealt = shares(split, numbered(replicas + surplus, classes), replicas, seed)
    assert len(dealt) == replicas
    assert all(len(share) and (np.diff(share) > 0).all() for share in dealt)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(replicas + surplus))
    if not split.startswith("dirichlet"):
        sizes = [len(share) for share in dealt]
        assert max(sizes) - min(sizes) <= 1


def test_iid_shares_are_those_of_the_first_epoch():
    dealt = shares("iid", numbered(50), 3, seed=4)
    assert [share.tolist() for share in dealt] == [
        sorted(assignment(4, 0, rank, 3, 50).tolist()) for rank in range(3)
    ]


def test_by_label_gives_a_rank_few_classes():
    data = numbered(200, classes=10)
    kinds = [len(np.unique(data.labels[share])) for share in shares("by-label", data, 5, seed=0)]
    assert kinds == [2] * 5
    first, other = (shares("by-label", numbered(200), 4, seed)[0].tolist() for seed in (0, 1))
    assert first != other  # within a class, chance decides


def test_the_concentration_says_how_skewed_a_split_is():
    data = numbered(4000, classes=4)

    def largest_class(split):
        parts = shares(split, data, 4, seed=2)
        return np.mean([np.bincount(data.labels[part]).max() / len(part) for part in parts])

    even, skewed = largest_class("dirichlet:1000"), largest_class("dirichlet:0.05")
    assert even < 0.3
    assert skewed > 0.7


def test_dirichlet_proportions_have_the_right_spread():
    # A share p of a class has mean 1/n and variance (1/n)(1-1/n)/(nA+1).
    data = Dataset(np.zeros((40_000, 1), np.float32), np.arange(40_000) % 400, "many")
    owners = np.empty(len(data), np.int64)
    for rank, share in enumerate(shares("dirichlet:0.5", data, 4, seed=0)):
        owners[share] = rank
    proportions = np.array([np.mean(owners[data.labels == label] == 0) for label in range(400)])
    assert proportions.mean() == pytest.approx(0.25, abs=0.04)
    assert proportions.var() == pytest.approx(0.25 * 0.75 / 3, rel=0.25)


@pytest.mark.parametrize("split", ["by-label", "dirichlet:0.3"])
def test_a_rank_sees_its_own_share_in_each_epoch_in_a_new_order(split):
    data = numbered(61, classes=3)
    dealt = shares(split, data, 4, seed=5)
    counts = steps_of_ranks(data, 4, batch=8, epochs=2, seed=5, split=split)
    for rank in range(4):
        batches = Batches(data, 8, epochs=2, seed=5, rank=rank, replicas=4, split=split)
        assert batches.steps == counts[rank]
        seen = np.concatenate([batches.batch_at(step)[0][:, 0] for step in range(batches.steps)])
        for epoch in seen.reshape(2, -1):
            np.testing.assert_array_equal(np.sort(epoch), dealt[rank])
        if len(dealt[rank]) > 5:
            assert seen.reshape(2, -1)[0].tolist() != seen.reshape(2, -1)[1].tolist()


def test_steps_of_ranks_agree_with_iid_batches():
    data = numbered(10)
    assert steps_of_ranks(data, 4, batch=2, epochs=3, seed=0) == (3, 6, 3, 6)


@pytest.mark.parametrize(
    ("split", "parsed"),
    [("iid", ("iid", 0)), (" By-Label ", ("by-label", 0)), ("dirichlet:0.25", ("dirichlet", 0.25))],
)
def test_splits_are_read(split, parsed):
    assert parse_split(split) == parsed


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        (
            "bylabel",
            "Unknown split 'bylabel': expected iid, by-label or dirichlet:A. Did you mean 'by-label'",
        ),
        ("iid:3", "iid takes no number"),
        ("dirichlet", "such as dirichlet:0.5, but it is 'dirichlet'"),
        ("dirichlet:", "0.001 to 1000000"),
        ("dirichlet:0", "0.001 to 1000000"),
        ("dirichlet:nan", "0.001 to 1000000"),
        ("dirichlet:many", "0.001 to 1000000"),
    ],
)
def test_an_unknown_split_gets_a_sentence(split, sentence):
    with pytest.raises(RequestError) as caught:
        parse_split(split)
    assert sentence in str(caught.value)


def test_what_cannot_be_dealt_gets_a_sentence():
    with pytest.raises(RequestError, match="3 samples are too few for 4 replicas"):
        shares("by-label", numbered(3), 4, seed=0)
    with pytest.raises(RequestError, match="at least 1 replica, but got 0"):
        shares("by-label", numbered(3), 0, seed=0)
    line = Dataset(np.zeros((9, 1), np.float32), np.arange(9, dtype=np.float32), "line", task="regression")
    assert [share.tolist() for share in shares("by-label", line, 3, seed=0)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
    ]
    with pytest.raises(RequestError, match=r"labels of 'line' are quantities\. Use iid or by-label"):
        shares("dirichlet:1", line, 3, seed=0)
    with pytest.raises(RequestError, match="ranks go from 0 to 1, but got rank 2"):
        Batches(numbered(9), 2, 1, seed=0, rank=2, replicas=2, split="by-label")


@given(st.integers(1, 8), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_samplers_deal_every_sample_once_without_padding(replicas, surplus, epoch, shuffle):
    data = range(replicas + surplus)
    samplers = [DistributedSampler(data, replicas, rank, shuffle=shuffle) for rank in range(replicas)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
    indices = [index for sampler in samplers for index in sampler]
    assert sorted(indices) == list(data)
    assert shuffle or indices == list(data)
    assert all(type(index) is int for index in indices)


def test_drop_last_makes_shares_equal_and_set_epoch_the_order():
    samplers = [DistributedSampler(range(11), 3, rank, seed=7, drop_last=True) for rank in range(3)]
    assert [len(sampler) for sampler in samplers] == [3, 3, 3]
    indices = [index for sampler in samplers for index in sampler]
    assert len(set(indices)) == 9
    first = list(samplers[0])
    assert list(samplers[0]) == first
    samplers[0].set_epoch(1)
    assert list(samplers[0]) != first
    assert list(samplers[0]) == assignment(7, 1, 0, 3, 11)[:3].tolist()


def test_a_sampler_without_samples_gets_a_sentence():
    with pytest.raises(RequestError, match="2 samples are too few for 3 replicas: rank 0 would get none"):
        DistributedSampler(range(2), 3, 0)
    with pytest.raises(RequestError, match="with drop_last each would get none"):
        DistributedSampler(range(2), 3, 1, drop_last=True)
    with pytest.raises(RequestError, match="from 0 up, but got -1"):
        DistributedSampler(range(2), 1, 0).set_epoch(-1)
