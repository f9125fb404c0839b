"""The door of the coordinator: every event comes in here, and every effect leaves here."""

from __future__ import annotations

from collections.abc import Sequence

from paramserver import events as ev
from paramserver.coordinator import joining, presence, progress, records, recovering, reports
from paramserver.coordinator.state import CoordinatorState, Effects
from paramserver.errors import RequestError


class Coordinator:
    """The state machine of the coordinator.

    Args:
        servers: how many servers the job has, >= 1.
        shards_per_server: how many shards each of them owns, >= 1.
        recovers: checkpoints are kept, so the job survives the loss of a server.
    """

    def __init__(self, servers: int, shards_per_server: int, *, recovers: bool = False) -> None:
        self._state = CoordinatorState(servers, shards_per_server, recovers)

    def restore(
        self, record: ev.JobRecord, now: float, log: Sequence[ev.Ordered] = (), *, reopens: bool = False
    ) -> None:
        """Go on with a job that was written down, once all servers have registered.

        Args:
            record: as `Remember` gave it; without a checkpoint the job begins anew.
            now: seconds.
            log: in a job with a journal, as `log` was when the last order was given.
            reopens: if it ended before its last step, it goes on all the same, from its newest checkpoint.
        """
        records.restore(self._state, record, now, log)
        if reopens:
            records.reopen(self._state)

    def handle(self, event: ev.CoordinatorEvent, now: float) -> Effects:
        """Take one event in and return what is to be done about it, in order.

        Args:
            event: of a server, a replica, an observer, a shard, or the timer.
            now: seconds, never decreasing.

        Returns:
            Effects; each request is answered by exactly one of them, now or (a join) later.
        """
        state = self._state
        try:
            effects = self._decide(event, now)
        except RequestError as error:
            if not isinstance(event, ev.JoinReceived | ev.LeaveReceived | ev.PartAsked):
                raise
            effects = [ev.Refused.of(event.request, error)]
        effects = records.remember(state) + effects
        if state.has_journal:
            for effect in effects:
                if isinstance(effect, ev.Ordered) and not effect.again:
                    state.log.add(effect)
        return effects + presence.set_timer(state, now)

    @property
    def has_journal(self) -> bool:
        """Whether what it decides has to be written down before anybody hears of it."""
        return self._state.has_journal

    @property
    def log(self) -> tuple[ev.Ordered, ...]:
        """The orders that a server may have to hear again, in a job with a journal."""
        return self._state.log.all()

    def _decide(self, event: ev.CoordinatorEvent, now: float) -> Effects:
        state = self._state
        match event:
            case ev.JoinReceived():
                return joining.join(state, event, now)
            case ev.LeaveReceived():
                return presence.leave(state, event, now)
            case ev.PartAsked():
                return joining.give_part(state, event)
            case ev.HeartbeatReceived():
                return presence.hear(state, event, now)
            case ev.Contributed() | ev.Staged() | ev.OrderHandled() | ev.CaughtUp():
                return reports.take(state, event, now)
            case ev.ServerRegistered():
                return recovering.find_server(state, event, now)
            case ev.ServerLost():
                return recovering.lose_server(state, event, now)
            case ev.CheckpointWritten():
                state.has_news = True
                return []
            case ev.CheckpointKept():
                return progress.keep_checkpoint(state, event)
            case ev.CheckpointFailed():
                return progress.miss_checkpoint(state, event)
            case ev.CheckpointLost():
                return recovering.lose_checkpoint(state, event, now)
            case ev.ScoreReceived():
                return progress.take_score(state, event)
            case ev.StatusReceived():
                return [ev.StatusAnswered(event.request, state.status(now))]
            case ev.EndAsked():
                return state.end(event.reason)
            case ev.TimerFired():
                return presence.expire(state, now)
