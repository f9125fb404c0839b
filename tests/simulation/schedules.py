"""A numbered row of schedules: number n is the same one for ever, in every rule and with every fault."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ending import judge_end
from scenario import Scenario
from states import State
from universe import Move, Universe

from paramserver.audit import Violation

MOVES_MAX = 250
"""No schedule of these small clusters is nearly as long; one that is does not end."""

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


CELLS_MAX = 4_000
"""So much is remembered of one universe, about 60 MB; then it is forgotten and begins anew."""


class Schedules:
    """The row; what has been seen in one schedule is remembered for the next."""

    def __init__(self) -> None:
        scenarios = [Scenario(rule, **fault) for fault in FAULTS for rule in RULES]
        self.universes = [Universe(scenario, answers_travel=False) for scenario in scenarios]

    def __len__(self) -> int:
        return len(self.universes)

    def run(self, number: int) -> Walk:
        """Run one schedule."""
        place = number % len(self.universes)
        if len(self.universes[place].cells.things) > CELLS_MAX:
            self.universes[place] = Universe(self.universes[place].scenario, answers_travel=False)
        return walk(self.universes[place], random.Random(number))

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


@dataclass(frozen=True)
class Walk:
    """One schedule: its moves, where it ended, and what was wrong first."""

    moves: list[Move]
    last: State
    found: list[Violation]


def walk(universe: Universe, chance: random.Random, fault_share: float = 0.08) -> Walk:
    """Let chance choose among what can happen, until nothing does or something is wrong."""
    state, moves = universe.start(), list[Move]()
    while True:
        possible = universe.moves(state)
        faults = universe.faults(state) if any(times for _, times in state.faults) else []
        if not possible:
            return Walk(moves, state, judge_end(universe, state))
        moved = faults if faults and chance.random() < fault_share else possible
        move = chance.choice(sorted(moved, key=universe.name))
        moves.append(move)
        state, found = universe.apply(state, move)
        if found or len(moves) == MOVES_MAX:
            return Walk(moves, state, found or [Violation("wake", "The schedule does not end.")])
