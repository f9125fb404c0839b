"""How large a learning rate may be when every gradient comes late."""

from __future__ import annotations

import math
from functools import partial

from paramserver.data import generator
from paramserver.repro.claims import Band, Case, Claim, Quantity, ideal_world
from paramserver.sim import Machines, parse_problem, simulate

LIMIT = "largest stable lr x h"
DELAYS = (0, 1, 3, 7, 15)
HALVINGS = 8  # from 100 % of the limit to 0.4 %
UPDATES = 80  # for a delay of 0; a longer delay changes more slowly, in proportion to 2 tau + 1


def limit(delay: int) -> float:
    """Return what the claim says, ``2 sin(pi / (2 (2 delay + 1)))``."""
    return 2 * math.sin(math.pi / (2 * (2 * delay + 1)))


def curvature(seed: int) -> float:
    """Draw the curvature of a seed, from 0.1 to 10, evenly on a logarithmic scale."""
    return float(10 ** generator(seed, "curvature").uniform(-1, 1))


def is_stable(rate: float, delay: int, seed: int) -> bool:
    """Say whether the loss shrinks from the third quarter of a run to the last.

    Args:
        rate: learning rate times curvature.
        delay: of every gradient, in versions.
        seed: of the curvature.
    """
    bend = curvature(seed)
    updates = UPDATES * (2 * delay + 1)
    run = simulate(
        ideal_world("constant:10ms stagger=100us", seed),
        # In step, one after the other, each of n replicas finds n - 1 pushes since its pull.
        Machines(workers=delay + 1),
        parse_problem(f"quadratic:{bend}"),
        updates // (delay + 1),
        consistency="async",
        learning_rate=rate / bend,
    )
    assert {step.staleness for step in run.steps if step.clock > 0} == {delay}
    losses = [step.loss for step in run.steps]
    quarter = len(losses) // 4
    last = max(losses[-quarter:])
    return last == 0 or last < max(losses[-2 * quarter : -quarter])


def measure(delay: int, seed: int) -> dict[str, float]:
    """Return the largest stable rate times curvature, found by bisection."""
    stable, unstable = 0.5 * limit(delay), 1.5 * limit(delay)
    for _ in range(HALVINGS):
        middle = (stable + unstable) / 2
        stable, unstable = (middle, unstable) if is_stable(middle, delay, seed) else (stable, middle)
    return {LIMIT: (stable + unstable) / 2}


DELAY_STABILITY = Claim(
    name="delay-stability",
    title="A delay divides the largest stable learning rate",
    says="Gradient descent on a quadratic of curvature h with gradients that are tau updates old is stable "
    "if and only if lr x h < 2 sin(pi / (2 (2 tau + 1))): 2, 1, 0.445, 0.209, 0.101 for tau = 0, 1, 3, 7, "
    "15.",
    source="S. A. Levin and R. M. May, A note on difference-delay equations, Theoretical Population Biology "
    "9 (1976), on w(t+1) = w(t) - a w(t - tau): stable for 0 < a < 2 cos(tau pi / (2 tau + 1)), the same "
    "limit",
    setting="async, one shard, ideal network, tau + 1 replicas with constant times, one after the other, so "
    f"that every gradient but the first ones is exactly tau versions old (checked); {UPDATES} (2 tau + 1) "
    "updates of plain SGD without noise. Stable: the largest loss of the last quarter of the run is below "
    f"that of the third. {HALVINGS} halvings of the span from half to one and a half times the limit. There "
    "is no chance in it but the curvature, which each seed draws from 0.1 to 10.",
    band="Within 2 % of the formula; the bisection ends at 0.4 %.",
    quantities=(Quantity(LIMIT, 4),),
    cases=tuple(
        Case(f"tau = {delay}", partial(measure, delay), {LIMIT: Band.around(limit(delay), 0.02)})
        for delay in DELAYS
    ),
)
