"""The door of a shard: every event comes in here, and every effect leaves here."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.errors import RequestError
from paramserver.shard import orders, pulls, pushes, records
from paramserver.shard.state import Effects, ShardState
from paramserver.types import Empty, empty


class Shard:
    """The state machine of one shard.

    Args:
        index: the shard's number within the job, from 0.
        empty: makes the arrays that new weights are written to.
    """

    def __init__(self, index: int, empty: Empty = empty) -> None:
        self.index = index
        self._state = ShardState(index, empty)

    def handle(self, event: ev.ShardEvent, now: float) -> Effects:
        """Take one event in and return what is to be done about it, in order.

        Args:
            event: an order, or a request of a replica or an observer.
            now: seconds, never decreasing.

        Returns:
            Effects; each request is answered by exactly one of them, now or (a parked pull) later.
        """
        state = self._state
        try:
            match event:
                case ev.PullReceived():
                    return pulls.pull(state, event, now)
                case ev.PushReceived():
                    return pushes.push(state, event)
                case ev.PullCancelled():
                    state.parked.remove(event.request)
                    return []
                case ev.WaitAsked():
                    return pulls.say_why(state, event)
                case ev.InitialiseReceived():
                    return pulls.initialise(state, event)
                case ev.CutAsked():
                    return [ev.CutTaken(event.request, records.cut(state))]
                case ev.ReportsAsked():
                    return records.report_again(state)
                case ev.GenerationBegun():
                    return orders.begin_generation(state, event)
                case _:
                    return orders.obey(state, event)
        except RequestError as error:
            if isinstance(event, ev.Order | ev.ReportsAsked):
                raise
            return [ev.Refused.of(event.request, error)]

    @property
    def knows_its_job(self) -> bool:
        """Say whether there is a job here, announced or gone on with."""
        return self._state.job is not None

    def statistics(self) -> ev.ShardStatistics:
        """Return how the shard stands, for people."""
        state = self._state
        newest = state.weights.newest if state.job is not None and state.weights.sealed else None
        return ev.ShardStatistics(
            self.index,
            newest.version if newest else 0,
            newest.rounds if newest else 0,
            sum(value.nbytes for value in newest.values.values()) if newest else 0,
            tuple((parked.replica.rank, pulls.why(state, parked)) for parked in state.parked),
            dict(state.pushes),
            dict(state.staleness),
        )

    def record(self) -> ev.ShardRecord | None:
        """Return what this shard is beside its weights; None before the job is announced."""
        return records.record(self._state)

    def resume(self, record: ev.ShardRecord, cut: ev.Cut) -> None:
        """Become what another shard was; this one must be new.

        Args:
            record: of that shard, when it made the cut.
            cut: its weights and optimizer state.
        """
        records.resume(self._state, record, cut)
