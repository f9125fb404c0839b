"""Known laws of distributed training, through the real shard; every band was fixed before the first run."""

import math
from statistics import fmean

import pytest
from virtual import simulate

LAWS = [
    "constant:10ms stagger=1ms",
    "exponential:10ms",
    "lognormal:10ms,1",
    "pareto:5ms,2",
    "normal:10ms,3ms",
]


@pytest.mark.parametrize("replicas", [2, 8])
@pytest.mark.parametrize("law", LAWS)
def test_asynchronous_staleness_is_the_number_of_the_other_replicas(law, replicas):
    # Zhang, Gupta, Lian and Liu 2016 (staleness-aware async SGD) measure it; here is why: between a replica's
    # pull and its next push each version is some other push, and at the end every push has been counted by
    # lambda - 1 others. What is cut off at both ends is less than a clock, so of 100 steps at most 2 %.
    run = simulate(law, workers=replicas, steps=100, consistency="async")
    everyone = [step for step in run.steps if step.clock > 0]
    last_full = min(max(s.pushed_ns for s in everyone if s.rank == rank) for rank in range(replicas))
    stale = [step.staleness for step in everyone if step.pushed_ns <= last_full]
    assert fmean(stale) == pytest.approx(replicas - 1, rel=0.05)


def is_stable(rate, delay):
    """Say whether a quadratic of curvature 1 shrinks from the third quarter of a run to the last.

    A constant delay of tau versions is tau + 1 replicas in step, one after the other.
    """
    updates = 80 * (2 * delay + 1)
    run = simulate(
        "constant:10ms stagger=100us",
        problem="quadratic:1",
        workers=delay + 1,
        steps=updates // (delay + 1),
        consistency="async",
        learning_rate=rate,
    )
    assert {step.staleness for step in run.steps if step.clock > 0} == {delay}
    losses = [step.loss for step in run.steps]
    quarter = len(losses) // 4
    return max(losses[-quarter:]) < max(losses[-2 * quarter : -quarter])


@pytest.mark.parametrize(("delay", "limit"), [(0, 2.0), (1, 1.0), (3, 0.445), (7, 0.209), (15, 0.101)])
def test_a_delayed_quadratic_is_stable_below_its_limit(delay, limit):
    assert limit == pytest.approx(2 * math.sin(math.pi / (2 * (2 * delay + 1))), rel=0.005)
    stable, unstable = 0.5 * limit, 1.5 * limit
    for _ in range(8):  # to 0.4 % of the limit
        middle = (stable + unstable) / 2
        stable, unstable = (middle, unstable) if is_stable(middle, delay) else (stable, middle)
    assert (stable + unstable) / 2 == pytest.approx(limit, rel=0.02)


def test_a_synchronous_step_takes_the_expected_maximum():
    # Of n exponential times it is the n-th harmonic number; its variance is that of 1 + 1/4 + … + 1/n^2.
    for replicas in (1, 2, 4, 8):
        run = simulate("exponential:10ms", workers=replicas, steps=1500, keep_steps=False)
        harmonic = sum(1 / n for n in range(1, replicas + 1))
        deviation = math.sqrt(sum(1 / n**2 for n in range(1, replicas + 1)))
        four_errors = 4 * deviation / math.sqrt(1500)
        assert run.seconds / 0.01 / 1500 == pytest.approx(harmonic, abs=four_errors)


def steps_per_second(bound, slow):
    run = simulate(
        f"constant:10ms {slow}", workers=4, steps=1000, consistency=f"ssp:{bound}", keep_steps=False
    )
    return 4 * 1000 / (run.seconds / 0.01)  # as if an ordinary step took a second


def test_a_bound_absorbs_transient_stragglers_and_no_permanent_one():
    # Each step takes twice as long with a chance of 10 %. Bound 0: 4 / (1 + 1 - 0.9 ** 4) = 2.98. No bound at
    # all: 4 / 1.1 = 3.64.
    rates = [steps_per_second(bound, "all/10%=x2") for bound in (0, 1, 2, 4, 8)]
    assert rates == [pytest.approx(rate, rel=0.02) for rate in (2.96, 3.42, 3.51, 3.56, 3.62)]
    assert rates == sorted(rates)
    permanent = [steps_per_second(bound, "w0=x2") for bound in (0, 8)]
    assert permanent == [pytest.approx(2, rel=0.01)] * 2
