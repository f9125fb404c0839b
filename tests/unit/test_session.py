"""The worker's half: fan-out, assembled answers, and what is refused before anything is sent."""

from dataclasses import replace

import numpy as np
import pytest

from paramserver.errors import Fault, JobError, RequestError
from paramserver.events import (
    JobSpec,
    JoinGranted,
    Outcome,
    PullGranted,
    Replica,
    Snapshot,
    TensorSpec,
    Verdict,
)
from paramserver.placement import place, rows, slice_shape
from paramserver.session import Session, assemble_verdict

TENSORS = (TensorSpec("a/bias", ()), TensorSpec("a/weight", (5, 2)))
SHAPES = {"a/bias": (), "a/weight": (5, 2)}


ME = Replica(3, 2)


def session(shards=2, replica=ME):
    job = JobSpec(TENSORS, replicas=4, replicas_max=4)
    placement = place(TENSORS, shards)
    addresses = tuple(f"server-{shard}" for shard in range(shards))
    return Session(JoinGranted(0, replica, 7, 0, job, placement, addresses, True))


def tensors(value=1.0):
    return {key: np.full(shape, value, np.float32) for key, shape in SHAPES.items()}


def granted(shard, version=0, rounds=0, gap=0, verdict=None):
    return PullGranted(shard, Snapshot(version, rounds, {}), gap, verdict)


def applied(version, staleness=0, **changes):
    return Verdict(Outcome.APPLIED, version, staleness, **changes)


BUFFERED = Verdict(Outcome.BUFFERED, 4, round=4, contributed=1, expected=3)
DROPPED = Verdict(Outcome.DROPPED, reason="It holds nan.")
FENCED = Verdict(Outcome.FENCED, clock=5, reason="It counts no more.")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([applied(7, 2)], applied(7, 2)),
        ([applied(7, 2), applied(9, 1)], applied(9, 2)),
        ([applied(7, 2, duplicate=True), applied(8, 0)], applied(8, 2, duplicate=True)),
        ([BUFFERED, BUFFERED], BUFFERED),
        ([BUFFERED, applied(5, round=4)], BUFFERED),
        ([applied(5, round=4), BUFFERED], BUFFERED),
        ([DROPPED, DROPPED], DROPPED),
        (
            [applied(7), DROPPED, applied(8)],
            Verdict(Outcome.PARTIAL, reason="2 of 3 shards applied it. It holds nan."),
        ),
        (
            [FENCED, applied(8)],
            Verdict(Outcome.PARTIAL, reason="1 of 2 shards applied it. It counts no more."),
        ),
        ([FENCED, Verdict(Outcome.FENCED, clock=3, reason="It counts no more.")], Verdict(
            Outcome.FENCED, clock=3, reason="It counts no more.")),
        ([DROPPED, FENCED], FENCED),
    ],
)  # fmt: skip
def test_what_became_of_a_push_over_all_shards(verdicts, expected):
    assert assemble_verdict(verdicts) == expected


def test_a_push_goes_to_every_shard_with_the_version_that_its_pull_found_there():
    begun = session()
    exchange = begun.pull(clock=4)
    assert {r.clock for r in exchange.requests.values()} == {4}
    assert {(r.replica, r.generation) for r in exchange.requests.values()} == {(Replica(3, 2), 7)}
    assert exchange.receive(1, granted(1, version=9, gap=2)) is None
    pulled = exchange.receive(0, granted(0, version=8, gap=1))
    assert (pulled.versions, pulled.clock_gap, pulled.rounds) == ((8, 9), 2, 0)
    push = begun.push(4, tensors(), samples=32)
    assert [push.requests[shard].version for shard in (0, 1)] == [8, 9]
    assert {(r.sequence, r.samples, r.refusal) for r in push.requests.values()} == {(4, 32, "")}
    parts = {part for request in push.requests.values() for part in request.gradients}
    assert parts == set(begun.granted.placement)
    assert push.receive(0, applied(9)) is None
    assert push.receive(0, applied(9, duplicate=True)) is None, "a second answer of one shard is still one"
    assert push.receive(1, applied(10, 3)) == applied(10, 3, duplicate=True)


def test_what_a_pull_brings_is_put_together_and_belongs_to_the_caller():
    begun = session(shards=3)
    whole = tensors() | {"a/weight": np.arange(10, dtype=np.float32).reshape(5, 2)}

    def pull():
        exchange = begun.pull(0)
        for shard in range(3):
            for part in begun.slices(shard):
                assert exchange.destination(part).shape == slice_shape(begun.shapes[part.key], part)
                exchange.destination(part)[...] = rows(whole[part.key], part)
            pulled = exchange.receive(shard, granted(shard))
        return pulled.values

    first, second = pull(), pull()
    assert list(first) == sorted(SHAPES)
    for key, values in first.items():
        assert values.tolist() == whole[key].tolist()
        assert not np.shares_memory(values, second[key])
        values[...] = 0  # they are the caller's


def test_shards_at_different_rounds_in_one_pull_are_an_error():
    exchange = session().observe()
    exchange.receive(0, granted(0, rounds=3))
    with pytest.raises(JobError, match=r"different rounds: \[3, 4\]"):
        exchange.receive(1, granted(1, rounds=4))


def test_a_verdict_comes_with_a_pull_only_once_every_shard_has_decided():
    exchange = session().pull(1)
    exchange.receive(0, granted(0, verdict=applied(1, round=0)))
    assert exchange.receive(1, granted(1)).verdict is None
    exchange = session().pull(1)
    exchange.receive(0, granted(0, verdict=applied(1, round=0)))
    assert exchange.receive(1, granted(1, verdict=applied(2, 1, round=0))).verdict == applied(2, 1, round=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_goes_out_as_a_refusal_without_values(bad):
    gradient = tensors()
    gradient["a/weight"][4, 1] = bad
    push = session().push(6, gradient, samples=32)
    assert push.refusal == f"The gradient of replica 3 at clock 6 holds {bad} in 'a/weight'."
    for request in push.requests.values():
        assert (request.samples, request.gradients, request.refusal) == (0, {}, push.refusal)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"a/wieght": np.zeros(1, np.float32)}, "no tensor 'a/wieght'. Did you mean 'a/weight'?"),
        ({"a/weight": np.zeros((2, 5), np.float32)}, "'a/weight' is (2, 5) float32, expected (5, 2) float32"),
        ({"a/weight": np.zeros((1, 2), np.float32)}, "'a/weight' is (1, 2)"),
        ({"a/weight": np.zeros((5, 2))}, "(5, 2) float64, expected (5, 2) float32"),
        ({"a/bias": np.zeros((1,), np.float32)}, "'a/bias' is (1,) float32, expected () float32"),
        ({"a/bias": None}, "'a/bias' is missing; expected () float32"),
    ],
)
def test_tensors_that_are_not_the_jobs_are_refused_before_anything_is_sent(change, sentence):
    wrong = {key: value for key, value in (tensors() | change).items() if value is not None}
    with pytest.raises(RequestError) as refused:
        session().push(0, wrong, 1)
    assert sentence in str(refused.value)
    with pytest.raises(RequestError):
        session().initialise("me", wrong)


def test_a_mean_is_over_samples_and_first_weights_are_finite():
    with pytest.raises(RequestError, match="at least 1 sample, not over 0"):
        session().push(0, tensors(), samples=0)
    with pytest.raises(RequestError, match="first weights hold inf in 'a/bias'"):
        session().initialise("me", tensors() | {"a/bias": np.float32(np.inf) * np.ones((), np.float32)})


def test_an_observer_only_reads():
    observer = session(replica=None)
    assert {r.replica for r in observer.observe(round=3).requests.values()} == {None}
    assert {r.round for r in observer.observe(round=3).requests.values()} == {3}
    for ask in (lambda: observer.push(0, tensors(), 1), lambda: observer.pull(0)):
        with pytest.raises(RequestError, match="observer only reads") as refused:
            ask()
        assert refused.value.fault is Fault.PRECONDITION


def test_a_gradient_whose_sum_over_a_round_could_overflow_goes_out_as_a_refusal():
    large = tensors(-float(np.finfo(np.float32).max) / 30)
    gathering = session()
    applying = session()
    applying.granted = replace(gathering.granted, job=replace(gathering.granted.job, consistency="async"))
    assert not gathering.push(0, large, samples=1).refusal
    assert "too large to be summed up" in gathering.push(0, large, samples=32).refusal
    assert not applying.push(0, large, samples=32).refusal
