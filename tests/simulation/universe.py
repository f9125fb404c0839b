"""All that can happen to a small cluster: states, and the moves that lead from one to the next.

A state is a tuple of small numbers: which cells there are (equal ones have one number), which orders and
reports wait in which queue, which requests and answers are under way, and which faults are left. Messages
under way arrive in any order, as those of separate calls do; orders and reports keep theirs on each link, as
they do on a stream. What a cell does with a message is computed once and then remembered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cells import CoordinatorCell, ShardCell
from frozen import freeze
from replica_cell import ReplicaCell
from scenario import COORDINATOR, Answer, Scenario, answer_to
from states import Draft, Numbers, State

from paramserver import events as ev
from paramserver.audit import Violation

FIRINGS_MAX = 6
"""So often the timer fires within one move of time, unless something comes of it."""

Move = tuple[Any, ...]


class Universe:
    """The states and moves of one scenario.

    Args:
        scenario: what happens.
        answers_travel: answers wait to arrive, as requests do. Without, they are there at once, which leaves
            out many states and no order of events at any shard or the coordinator: an answer changes nothing
            but its replica, whom nobody sees before what it asks next arrives, and that may take its time.
    """

    def __init__(self, scenario: Scenario, answers_travel: bool = True) -> None:
        self.scenario, self.answers_travel = scenario, answers_travel
        self.cells, self.messages = Numbers(), Numbers()
        self._known: dict[tuple[Any, ...], tuple[int, list[tuple[Any, int]], list[Violation]]] = {}
        self._parts: dict[int, int] = {}
        self._names: dict[int, str] = {}

    # ------------------------------------------------------------------------------------------- beginning

    def start(self) -> State:
        """Return the state in which those who are expected have just asked to join."""
        shards = range(self.scenario.shards)
        draft = Draft(
            self.cells.number(CoordinatorCell(self.scenario)),
            [self.cells.number(ShardCell(self.scenario, index)) for index in shards],
            [self.cells.number(ReplicaCell(self.scenario, i)) for i in range(len(self.scenario.steps))],
            [[] for _ in shards],
            [[] for _ in shards],
            [],
            0.0,
            None,
            dict(self.scenario.faults),
            [],
        )
        up = ev.ServerRegistered(0, "server-0", self.scenario.shards)
        self._tell_coordinator(draft, self.messages.number(up))
        for host in range(self.scenario.replicas):
            self._tell(draft, host, "join")
        return draft.finished()

    def settled(self) -> State:
        """Return the state in which all have joined, the weights are sealed, and the first pulls are sent."""
        state = self.start()
        while True:
            moves = [move for move in self.moves(state) if not self._is_pull(move)]
            if not moves:
                return state
            state, found = self.apply(state, moves[0])
            assert not found

    def _is_pull(self, move: Move) -> bool:
        thing = self.messages.things[move[1]] if move[0] == "deliver" else None
        return isinstance(thing, tuple) and isinstance(thing[1], ev.PullReceived)

    # ---------------------------------------------------------------------------------------------- moves

    def moves(self, state: State) -> list[Move]:
        """Return what happens by itself, sooner or later: a message arrives, a replica comes, time passes."""
        moves: list[Move] = [
            ("deliver", message) for message in dict.fromkeys(state.bag) if self._may_arrive(message, state)
        ]
        moves += [("order", shard) for shard, queue in enumerate(state.orders) if queue]
        moves += [("report", shard) for shard, queue in enumerate(state.reports) if queue]
        started = self.coordinator(state).audit.started
        for host, cell in enumerate(self.hosts(state)):
            comes = self.scenario.returns if cell.crashed else host >= self.scenario.replicas
            if cell.state == "away" and comes and started:
                moves.append(("join", host))
        return moves or self._passing(state)

    def faults(self, state: State) -> list[Move]:
        """Return what may happen, but need not."""
        left = {name for name, times in state.faults if times}
        moves: list[Move] = []
        for host, cell in enumerate(self.hosts(state)):
            if cell.state == "training":
                already = {"crash": cell.crashed, "mute": cell.muted, "stop": cell.stops}
                moves += [(kind, host) for kind, is_so in already.items() if kind in left and not is_so]
                if "crash" in left:
                    moves.append(("crash", host, "with what it has sent"))
            if "repeat" in left:
                moves += [("repeat", host, *asked) for asked in cell.asked]
        if "lose" in left:
            moves += [("lose", message) for message in dict.fromkeys(state.bag) if self._is_call(message)]
        if "time" in left:
            moves += self._passing(state)
        return moves

    def apply(self, state: State, move: Move) -> tuple[State, list[Violation]]:
        """Return the state after a move, and what is wrong with it."""
        draft = Draft(
            state.coordinator,
            list(state.shards),
            list(state.hosts),
            [list(queue) for queue in state.orders],
            [list(queue) for queue in state.reports],
            list(state.bag),
            state.now,
            state.wake_at,
            dict(state.faults),
            [],
        )
        kind, *rest = move
        if kind in draft.faults and kind != "time":
            draft.faults[kind] -= 1
        match kind:
            case "deliver":
                draft.bag.remove(rest[0])
                self._deliver(draft, rest[0])
            case "order":
                message = draft.orders[rest[0]].pop(0)
                self._tell_shard(draft, rest[0], self._part(message, self.messages.things[message].order))
            case "report":
                message = draft.reports[rest[0]].pop(0)
                self._tell_coordinator(draft, self._part(message, self.messages.things[message].report))
            case "time":
                draft.faults["time"] = max(0, draft.faults.get("time", 0) - 1)
                self._pass_time(draft)
            case "lose":
                self._lose(draft, rest[0])
            case "repeat":
                self._tell(draft, rest[0], "repeat", rest[1], rest[2])
            case _:
                if len(rest) > 1:
                    draft.bag = [m for m in draft.bag if not self._is_call(m) or self._asker(m) != rest[0]]
                self._tell(draft, rest[0], kind)
        return draft.finished(), draft.found

    def hosts(self, state: State) -> list[ReplicaCell]:
        """Return the replicas."""
        return [self.cells.things[number] for number in state.hosts]

    def shards(self, state: State) -> list[ShardCell]:
        """Return the shards."""
        return [self.cells.things[number] for number in state.shards]

    def coordinator(self, state: State | Draft) -> CoordinatorCell:
        """Return the coordinator."""
        found: CoordinatorCell = self.cells.things[state.coordinator]
        return found

    # ---------------------------------------------------------------------------------------- their effects

    def _deliver(self, draft: Draft, message: int) -> None:
        thing = self.messages.things[message]
        if isinstance(thing, Answer):
            what = ("answer", thing.shard, thing.request, thing.effect)
            self._tell_host(draft, thing.host, self._part(message, what))
        elif thing[0] == COORDINATOR:
            self._tell_coordinator(draft, self._part(message, thing[1]))
        else:
            self._tell_shard(draft, thing[0], self._part(message, thing[1]))

    def _part(self, message: int, part: Any) -> int:
        """Return the number of what a message is about; looking it up is slow, so it is done once."""
        if message not in self._parts:
            self._parts[message] = self.messages.number(part)
        return self._parts[message]

    def _tell_shard(self, draft: Draft, shard: int, event: int) -> None:
        draft.shards[shard], effects = self._step(draft, draft.shards[shard], event, draft.now)
        for effect, message in effects:
            if isinstance(effect, ev.Reported):
                draft.reports[shard].append(message)
            elif not isinstance(effect, ev.PullParked):
                self._answer(draft, message)

    def _tell_coordinator(self, draft: Draft, event: int) -> list[Any]:
        draft.coordinator, effects = self._step(draft, draft.coordinator, event, draft.now)
        for effect, message in effects:
            match effect:
                case ev.Ordered(_, shard):
                    for index in range(self.scenario.shards) if shard is None else [shard]:
                        draft.orders[index].append(message)
                case ev.WakeAt(when):
                    draft.wake_at = when
                case ev.Noted() | ev.Remember() | ev.HeartbeatAnswered():
                    pass
                case _:
                    self._answer(draft, message)
        return [effect for effect, _ in effects]

    def _tell(self, draft: Draft, host: int, *what: Any) -> None:
        self._tell_host(draft, host, self.messages.number(what))

    def _tell_host(self, draft: Draft, host: int, what: int) -> None:
        draft.hosts[host], sent = self._step(draft, draft.hosts[host], what)
        draft.bag += [message for _, message in sent]
        draft.bag = [message for message in draft.bag if self._is_awaited(draft, message)]

    def _answer(self, draft: Draft, message: int) -> None:
        """Send an answer; one that nobody waits for any more changes nothing, so it need not travel."""
        if self.messages.things[message].request == draft.deaf or not self._is_awaited(draft, message):
            return
        if self.answers_travel:
            draft.bag.append(message)
        else:
            self._deliver(draft, message)

    def _is_awaited(self, draft: Draft, message: int) -> bool:
        answer = self.messages.things[message]
        if not isinstance(answer, Answer):
            return True
        return (answer.shard, answer.request) in self.cells.things[draft.hosts[answer.host]].asked

    def _step(self, draft: Draft, cell: int, what: int, *now: float) -> tuple[int, list[tuple[Any, int]]]:
        """Let a cell take something, or remember what came of it the last time.

        Returns:
            The cell afterwards, and each effect with the number of the message that it is on its way.
        """
        key = (cell, what, *now)
        if key not in self._known:
            copied = self.cells.things[cell].copy()
            out, found = copied.take(self.messages.things[what], *now)
            sender = copied.shard.index if isinstance(copied, ShardCell) else COORDINATOR
            sent = [(effect, self.messages.number(_travelling(sender, effect))) for effect in out]
            self._known[key] = self.cells.number(copied), sent, list(found)
        after, sent, found = self._known[key]
        draft.found += found
        return after, sent

    def _lose(self, draft: Draft, message: int) -> None:
        """Let a request arrive whose answer gets lost, or lose an answer; its replica asks again."""
        draft.bag.remove(message)
        lost = self.messages.things[message]
        if isinstance(lost, Answer):
            host, shard, number = lost.host, lost.shard, lost.request
        else:
            shard, event = lost
            host, number = self._asker(message), event.request
            draft.deaf = number
            self._deliver(draft, message)
        if (shard, number) in self.cells.things[draft.hosts[host]].asked:
            self._tell(draft, host, "repeat", shard, number)

    # ------------------------------------------------------------------------------------ what may happen

    def _may_arrive(self, message: int, state: State) -> bool:
        """A read's cancellation is its connection's end, so it cannot come before the read."""
        thing = self.messages.things[message]
        if isinstance(thing, Answer) or not isinstance(thing[1], ev.PullCancelled):
            return True
        shard, cancelled = thing
        others = [self.messages.things[each] for each in state.bag if each != message]
        return not any(
            not isinstance(other, Answer) and other[0] == shard and other[1].request == cancelled.request
            for other in others
        )

    def _is_call(self, message: int) -> bool:
        """Say whether this is a request or an answer, which may get lost, and no end of a connection."""
        thing = self.messages.things[message]
        return isinstance(thing, Answer) or not isinstance(thing[1], ev.PullCancelled)

    def _asker(self, message: int) -> int:
        """Return whose request, or an answer to whom, this is."""
        thing = self.messages.things[message]
        return thing.host if isinstance(thing, Answer) else answer_to(*thing).host

    def _passing(self, state: State) -> list[Move]:
        """Time matters once somebody is not heard of and the job goes on."""
        if self.coordinator(state).audit.ended is not None or state.wake_at is None:
            return []
        silent = any(cell.crashed or cell.muted or cell.state == "joining" for cell in self.hosts(state))
        return [("time",)] if silent else []

    def _pass_time(self, draft: Draft) -> None:
        """Let the timer fire, with everyone's sign of life before, until an order comes of it."""
        for _ in range(FIRINGS_MAX):
            if draft.wake_at is None:
                return
            draft.now, draft.wake_at = max(draft.now, draft.wake_at), None
            hosts = [self.cells.things[number] for number in draft.hosts]
            beats = [
                ev.Beat(cell.replica, 0, 0, ev.Phase.WAIT, ev.Counters())
                for cell in hosts
                if cell.state in ("staging", "training", "leaving") and not cell.muted
            ]
            for beat in beats:
                heard = self.messages.number(ev.HeartbeatReceived(0, (beat,)))
                if any(
                    isinstance(e, ev.HeartbeatAnswered) and e.fenced
                    for e in self._tell_coordinator(draft, heard)
                ):
                    self._tell(draft, [cell.replica for cell in hosts].index(beat.replica), "join")
            fired = self._tell_coordinator(draft, self.messages.number(ev.TimerFired()))
            if any(isinstance(effect, ev.Ordered) for effect in fired):
                return

    # -------------------------------------------------------------------------------------- for whoever looks

    def weights(self, state: State) -> bytes:
        """Return the bytes of all weights."""
        rows = [cell.weights() for cell in self.shards(state)]
        return np.stack([row for row in rows if row is not None]).tobytes()

    def name(self, move: Move) -> str:
        """Return what a move is called, whatever has been seen before it: numbers depend on that."""
        if move[0] not in ("deliver", "lose"):
            return " ".join(map(str, move))
        if move[1] not in self._names:
            self._names[move[1]] = repr(freeze(self.messages.things[move[1]]))
        return f"{move[0]} {self._names[move[1]]}"

    def describe(self, move: Move) -> str:
        """Say a move in words, for a schedule that somebody has to read."""
        if move[0] not in ("deliver", "lose"):
            return " ".join(map(str, move))
        thing = self.messages.things[move[1]]
        if isinstance(thing, Answer):
            place = "coordinator" if thing.shard == COORDINATOR else f"shard {thing.shard}"
            return f"{move[0]} to worker{thing.host} from {place}: {thing.effect}"
        return f"{move[0]} to {'coordinator' if thing[0] == COORDINATOR else f'shard {thing[0]}'}: {thing[1]}"


def _travelling(sender: int, effect: Any) -> Any:
    """Return an effect as it travels: an answer with its address, anything else as it is."""
    answers = hasattr(effect, "request") and not isinstance(effect, ev.PullParked | ev.HeartbeatAnswered)
    return answer_to(sender, effect) if answers else effect
