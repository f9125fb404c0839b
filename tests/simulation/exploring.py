"""Walk through every state that can be reached, each once."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from dataclasses import dataclass

from ending import judge_end
from states import State
from universe import Move, Universe

from paramserver.audit import Violation


@dataclass(frozen=True)
class Explored:
    """What there was.

    Attributes:
        states: different ones.
        transitions: moves between them.
        ends: states in which nothing more happens.
        weights: the different bytes of all weights at these.
        reasons: for each reason with which the job ended how many ends.
        found: what was wrong first, and `schedule` the shortest way there.
        circular: a schedule could go on for ever.
    """

    states: int
    transitions: int
    ends: int
    weights: frozenset[bytes]
    reasons: Counter[str | None]
    found: list[Violation]
    schedule: list[str]
    circular: bool


def explore(universe: Universe, start: State, states_max: int = 5_000_000) -> Explored:
    """Visit all states breadth first; stop at the first that is wrong, or has a wrong move.

    Raises:
        AssertionError: there are more states than `states_max`.
    """
    numbers = {start: 0}
    came_from: list[tuple[int, Move | None]] = [(0, None)]
    edges_from, edges_to = array("I"), array("I")
    queue: deque[State] = deque([start])
    ends: list[State] = []
    while queue:
        state = queue.popleft()
        number = numbers[state]
        moves = universe.moves(state)
        if not moves:
            ends.append(state)
            found = judge_end(universe, state)
            if found:
                return _wrong(universe, came_from, number, found)
        for move in moves + universe.faults(state):
            after, found = universe.apply(state, move)
            if found:
                return _wrong(universe, [*came_from, (number, move)], len(came_from), found)
            known = numbers.setdefault(after, len(came_from))
            if known == len(came_from):
                came_from.append((number, move))
                queue.append(after)
                assert known < states_max, f"more than {states_max} states"
            edges_from.append(number)
            edges_to.append(known)
    weights = frozenset(universe.weights(end) for end in ends)
    reasons = Counter(universe.coordinator(end).audit.ended for end in ends)
    circular = _is_circular(len(numbers), edges_from, edges_to)
    return Explored(len(numbers), len(edges_to), len(ends), weights, reasons, [], [], circular)


def _wrong(
    universe: Universe, came_from: list[tuple[int, Move | None]], last: int, found: list[Violation]
) -> Explored:
    schedule = []
    while came_from[last][1] is not None:
        last, move = came_from[last]
        schedule.append(universe.describe(move))
    return Explored(len(came_from), 0, 0, frozenset(), Counter(), found, schedule[::-1], False)


def _is_circular(states: int, edges_from: array[int], edges_to: array[int]) -> bool:
    """Take away states that no other leads to, until none is left or only circles are (Kahn 1962)."""
    arriving = array("I", bytes(4 * states))
    leaving: list[list[int]] = [[] for _ in range(states)]
    for one, other in zip(edges_from, edges_to, strict=True):
        arriving[other] += 1
        leaving[one].append(other)
    free = [state for state in range(states) if not arriving[state]]
    taken = 0
    while free:
        taken += 1
        for after in leaving[free.pop()]:
            arriving[after] -= 1
            if not arriving[after]:
                free.append(after)
    return taken < states
