"""How old gradients are in asynchronous training."""

from __future__ import annotations

from functools import partial
from statistics import fmean

from paramserver.repro.claims import Band, Case, Claim, Quantity, ideal_world
from paramserver.sim import Machines, parse_problem, simulate

STALENESS = "mean staleness"

LAWS = (
    "constant:10ms",
    "normal:10ms,3ms",
    "exponential:10ms",
    "shifted-exponential:5ms,5ms",
    "lognormal:10ms,1",
    "pareto:5ms,2",
    "empirical:8ms,9ms,10ms,30ms",
)
REPLICAS = (2, 4, 8, 16)
STEPS = 100
STAGGER = "625us"  # with 16 replicas of 10 ms each, no two begin a step at the same instant


def measure(law: str, replicas: int, seed: int) -> dict[str, float]:
    """Return the mean staleness while all replicas train and each has made a step."""
    run = simulate(
        ideal_world(f"{law} stagger={STAGGER}", seed),
        Machines(workers=replicas),
        parse_problem("timing"),
        STEPS,
        consistency="async",
    )
    warm = [step for step in run.steps if step.clock > 0]
    first_to_end = min(max(s.pushed_ns for s in warm if s.rank == rank) for rank in range(replicas))
    return {STALENESS: fmean(step.staleness for step in warm if step.pushed_ns <= first_to_end)}


ASYNC_STALENESS = Claim(
    name="async-staleness",
    title="Asynchronous staleness is the number of the other replicas",
    says="With lambda replicas that push each gradient as soon as it is there, the mean staleness of an "
    "applied gradient is lambda - 1 after warm-up, whatever the law of the compute times. The reason: "
    "between a replica's pull and its next push each new version is the push of another, and in the long "
    "run every push falls into the open steps of the lambda - 1 others.",
    source="W. Zhang, S. Gupta, X. Lian and J. Liu, Staleness-aware Async-SGD for Distributed Deep Learning, "
    "IJCAI 2016, on the staleness of n-softsync, which they measured (here n = lambda: an update for each "
    "gradient)",
    setting=f"async, one shard, ideal network, so that a replica's pull is served right after its own push; "
    f"starts staggered by {STAGGER}; {STEPS} steps of each replica. Counted from each replica's second step "
    "until the first replica has finished.",
    band="The mean over the seeds within 5 % of lambda - 1: what is cut off at both ends is less than one of "
    f"{STEPS} clocks, and laws with heavy tails need room.",
    quantities=(Quantity(STALENESS),),
    cases=tuple(
        Case(
            f"{law}, {replicas} replicas",
            partial(measure, law, replicas),
            {STALENESS: Band.around(replicas - 1, 0.05)},
        )
        for law in LAWS
        for replicas in REPLICAS
    ),
)
