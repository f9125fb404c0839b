"""What a bound on staleness buys when replicas are slow by turns, and what it costs."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from statistics import fmean

from paramserver.repro.claims import Band, Case, Check, Claim, Figures, Quantity, ideal_world
from paramserver.sim import Machines, Run, parse_problem, simulate

REPLICAS = 4
BOUNDS = (0, 1, 2, 4, 8)
UNIT_SECONDS = 0.01
TRANSIENT = "constant:10ms stagger=2500us all/10%=x2"
PERMANENT = "constant:10ms stagger=2500us w0=x2"

EXPECTED_RATES = dict(zip(BOUNDS, (2.96, 3.42, 3.51, 3.56, 3.62), strict=True))
# With a delay of 3, which 4 replicas out of step have, the limit is 0.445.
LEARNING_RATES = (0.05, 0.1, 0.2, 0.4)
NEAR_LIMIT = LEARNING_RATES[-1]
TARGET = 1e-4  # of the first loss
STEPS = {0.05: 400}  # this run gives the steps per second, too
STEPS_TO_TARGET = 150

RATE = "steps/s"
STALENESS = "mean staleness"
UPDATES = f"updates to the loss, lr x h = {NEAR_LIMIT}"


def time_name(learning_rate: float) -> str:
    """Head the column of the time to the loss at a learning rate."""
    return f"time to the loss, lr x h = {learning_rate}"


def measure_transient(bound: int, seed: int) -> dict[str, float]:
    """Return throughput, staleness, and updates and time until the loss stays below its target."""
    figures: dict[str, float] = {}
    times = {}
    for rate in LEARNING_RATES:
        run = _train(TRANSIENT, bound, seed, rate, STEPS.get(rate, STEPS_TO_TARGET))
        if rate in STEPS:
            figures[RATE] = _steps_per_second(run, STEPS[rate])
        updates, times[time_name(rate)] = _to_target(run)
    # The last of the rates is the one near the limit.
    return figures | {STALENESS: fmean(step.staleness for step in run.steps), UPDATES: updates} | times


def measure_permanent(bound: int, seed: int) -> dict[str, float]:
    """Return the throughput with one replica that always takes twice as long."""
    steps = STEPS_TO_TARGET
    return {RATE: _steps_per_second(_train(PERMANENT, bound, seed, 0.05, steps), steps)}


def _train(compute: str, bound: int, seed: int, learning_rate: float, steps: int) -> Run:
    return simulate(
        ideal_world(compute, seed),
        Machines(workers=REPLICAS),
        parse_problem("quadratic:1"),
        steps,
        consistency=f"ssp:{bound}",
        learning_rate=learning_rate,
    )


def _steps_per_second(run: Run, steps: int) -> float:
    """Return the throughput as if an ordinary step took a second."""
    return REPLICAS * steps / (run.seconds / UNIT_SECONDS)


def _to_target(run: Run) -> tuple[float, float]:
    """Return how many updates, and units of time, it takes until the loss stays below its target."""
    losses = [step.loss for step in run.steps]
    above = [index for index, loss in enumerate(losses) if loss > TARGET * losses[0]]
    reached = above[-1] + 1
    if reached == len(losses):
        return math.inf, math.inf
    seconds = (run.steps[reached].pushed_ns - run.began_ns) / 1e9
    return float(reached), seconds / UNIT_SECONDS


def _row(bound: int) -> str:
    return f"transient, ssp:{bound}"


def _means(figures: Figures, quantity: str) -> list[float]:
    """Return the means of a quantity by rising bound."""
    return [figures[_row(bound)][quantity].mean for bound in BOUNDS if _row(bound) in figures]


def _rise(figures: Figures) -> bool:
    rates = _means(figures, RATE)
    return all(less < more for less, more in pairwise(rates))


def _costs_updates(figures: Figures) -> bool:
    updates = _means(figures, UPDATES)
    return all(less <= more for less, more in pairwise(updates)) and updates[-1] >= 1.5 * updates[0]


def _best_in_time(figures: Figures) -> list[str]:
    if any(_row(bound) not in figures for bound in BOUNDS):
        return []
    stale = _means(figures, STALENESS)
    sentences = [
        f"Mean staleness rises from {stale[0]:.2f} to {stale[-1]:.2f} and could rise no further than "
        f"{REPLICAS - 1}: a read gets the newest weights that the shard has (as in the eager SSP of Dai et "
        "al., AAAI 2015), not those of a cache that may be as old as the bound. Therefore progress per step "
        "falls up to the bound at which replicas no longer fall into step, and no further."
    ]
    inner = False
    for rate in LEARNING_RATES:
        times = dict(zip(BOUNDS, _means(figures, time_name(rate)), strict=True))
        least = min(times.values())
        best = [bound for bound, time in times.items() if time <= 1.01 * least]
        inner |= BOUNDS[0] not in best and BOUNDS[-1] not in best
        sentences.append(
            f"At lr x h = {rate} the loss is reached first with bound {' or '.join(map(str, best))}: after "
            f"{least:.1f} units of time, against {times[BOUNDS[0]]:.1f} with bound {BOUNDS[0]} and "
            f"{times[BOUNDS[-1]]:.1f} with bound {BOUNDS[-1]}."
        )
    sentences.append(
        "An inner bound is best in time at one rate at least."
        if inner
        else "No inner bound is best in time here: far from the limit of stability the largest are, and near "
        "it bound 0 is."
    )
    return sentences


SSP_STRAGGLERS = Claim(
    name="ssp-stragglers",
    title="A bound absorbs transient stragglers, at the price of progress per step",
    says="Under stale synchronous parallel training, replicas that are slow by turns make each other wait "
    "the less the larger the bound is: steps per second rise. A replica that is always slow is waited for "
    "with any bound. Progress per step falls as the bound rises, so that an inner bound may be best in time.",
    source="Q. Ho, J. Cipar, H. Cui, J. K. Kim, S. Lee, P. B. Gibbons, G. A. Gibson, G. R. Ganger and E. P. "
    "Xing, More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, NIPS 2013, "
    "section 5",
    setting=f"ssp:0 to ssp:8, one shard, ideal network, {REPLICAS} replicas whose steps take a unit of time, "
    "started a quarter of a unit apart. Transient: each step takes two units with a chance of 10 %. "
    "Permanent: replica 0 takes two units always. A quadratic of curvature h = 1 without noise, plain SGD. "
    f"The loss to reach, and to stay below, is {TARGET} of the first. Steps per second over {STEPS[0.05]} "
    f"steps of each replica (permanent: {STEPS_TO_TARGET}), as if a unit were a second. Progress per step is "
    f"measured near the limit of stability, which is 0.445 for a delay of {REPLICAS - 1}: with small rates "
    "staleness costs nothing here, and acts like momentum.",
    band="Steps/s within 2 % of 2.96, 3.42, 3.51, 3.56, 3.62, and of 2 with a permanent straggler. Bound 0: "
    "4 / (2 - 0.9^4) = 2.98; no bound: 4 / 1.1 = 3.64.",
    quantities=(
        Quantity(RATE),
        Quantity(STALENESS),
        Quantity(UPDATES, 1),
        *(Quantity(time_name(rate), 1) for rate in LEARNING_RATES),
    ),
    cases=(
        *(
            Case(
                _row(bound),
                partial(measure_transient, bound),
                {RATE: Band.around(EXPECTED_RATES[bound], 0.02)},
            )
            for bound in BOUNDS
        ),
        *(
            Case(
                f"permanent, ssp:{bound}",
                partial(measure_permanent, bound),
                {RATE: Band.around(2.0, 0.02)},
            )
            for bound in BOUNDS
        ),
    ),
    checks=(
        Check("Steps/s rise from each bound to the next with transient stragglers.", _rise),
        Check(
            f"Progress per step falls: at lr x h = {NEAR_LIMIT} no bound needs fewer updates than the one "
            "before it, and bound 8 needs at least 1.5 times those of bound 0.",
            _costs_updates,
        ),
    ),
    report=_best_in_time,
)
