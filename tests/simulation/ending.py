"""What must be true where nothing more happens by itself."""

from __future__ import annotations

from replica_cell import ReplicaCell
from states import State
from universe import Universe

from paramserver.audit import Violation, audit_end


def judge_end(universe: Universe, state: State) -> list[Violation]:
    """Judge the end of a schedule: nobody waits, the job is over, every step is accounted for."""
    hosts, shards, coordinator = universe.hosts(state), universe.shards(state), universe.coordinator(state)
    over = {"done", "ended"} if coordinator.audit.started else {"done", "ended", "away"}  # none came late
    waiting = [cell for cell in hosts if cell.state not in over and not cell.crashed]
    if waiting or state.bag:
        states = [f"{cell.state} at clock {cell.clock}" for cell in hosts]
        return [Violation("wake", f"Somebody waits for ever: {', '.join(states)}.")]
    ended = coordinator.audit.ended
    if ended is None:
        return [Violation("wake", "The job never ends.")]
    if ended and not ended.endswith("."):
        return [Violation("answer", f"The job ends without a sentence: {ended!r}.")]
    settled = [each for cell in hosts for each in cell.settled]
    counters = [each for cell in hosts for each in cell.account()]
    found = audit_end(coordinator.audit, [cell.audit for cell in shards], settled, counters)
    return found + ([] if ended else _judge_completeness(universe, state))


def _judge_completeness(universe: Universe, state: State) -> list[Violation]:
    """Whoever has done all steps has brought each of them into the weights, or knows why not."""
    found = []
    for cell in universe.hosts(state):
        if cell.state != "done" or cell.stops or cell.replica is None:
            continue
        rank, steps = cell.replica.rank, _steps_to_find(universe, cell)
        applied = [shard.audit.applied.get(rank, set()) for shard in universe.shards(state)]
        if any(not steps <= here for here in applied):
            found.append(Violation("samples", f"Replica {rank} did {steps}, applied was {applied}."))
    return found


def _steps_to_find(universe: Universe, cell: ReplicaCell) -> set[int]:
    assert cell.replica is not None
    scenario, began = universe.scenario, 0
    if cell.life > 1 or cell.replica.incarnation > 1 or cell.index >= scenario.replicas:
        # A latecomer begins at the clock of the others, and so does one who was dropped and comes back, even
        # if that was before it had heard that it was in.
        if cell.life > 1 or not cell.settled:
            return set()
        began = min(each.sequence for each in cell.settled)
    excused = {each.sequence for each in cell.settled if each.outcome not in ("applied", "lost")}
    excused |= {clock for rank, clock in scenario.refused if rank == cell.replica.rank}
    return set(range(began, scenario.steps[cell.index])) - excused
