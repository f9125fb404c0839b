"""A numbered row of schedules: number n is the same one for ever, in every rule and with every fault."""

from __future__ import annotations

import random

from cells import Scenario
from universe import Universe, Walk, walk

RULES = ("sync", "async", "ssp:0", "ssp:1")
FAULTS = (
    {"steps": (2, 2, 2)},
    {"steps": (2, 2, 2), "faults": (("crash", 1), ("time", 1)), "on_death": "drop"},
    {"faults": (("lose", 2), ("repeat", 2))},
    {"refused": frozenset({(0, 0)}), "faults": (("lose", 1),)},
    {"faults": (("crash", 1), ("time", 1), ("lose", 1)), "on_death": "restart", "returns": True},
    {"steps": (2, 3, 2), "expected": 2, "faults": (("stop", 1), ("lose", 1))},
    {"faults": (("crash", 1), ("mute", 1), ("time", 2), ("repeat", 1)), "on_death": "drop", "returns": True},
)
"""The kinds of trouble, one for each schedule in turn."""


class Schedules:
    """The row; what has been seen in one schedule is remembered for the next."""

    def __init__(self) -> None:
        scenarios = [Scenario(rule, **fault) for fault in FAULTS for rule in RULES]
        self.universes = [Universe(scenario, answers_travel=False) for scenario in scenarios]

    def __len__(self) -> int:
        return len(self.universes)

    def run(self, number: int) -> Walk:
        """Run one schedule."""
        universe = self.universes[number % len(self.universes)]
        return walk(universe, random.Random(number))

    def first_found(self, most: int) -> tuple[int, str]:
        """Return how many schedules it takes until something is found, and what; or (0, "")."""
        for number in range(most):
            found = self.run(number).found
            if found:
                return number + 1, str(found[0])
        return 0, ""

    def tell(self, number: int) -> str:
        """Return a schedule in words."""
        universe, done = self.universes[number % len(self.universes)], self.run(number)
        lines = [universe.describe(move) for move in done.moves]
        return "\n".join([str(universe.scenario), *lines, *map(str, done.found)])
