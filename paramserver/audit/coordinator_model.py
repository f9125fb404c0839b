"""What the coordinator may know: a small model of it, which hears the same reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from paramserver import events as ev
from paramserver.audit.interruption import Interruption
from paramserver.audit.violation import Violation


@dataclass(slots=True)
class Announced:
    """A change of membership that some shards have not handled yet."""

    rank: int
    shards: set[int]  # still to come
    clocks: list[int] = field(default_factory=list)
    leaves: bool = False


class CoordinatorModel:
    """What is known of the coordinator, over all generations and processes; `CoordinatorAudit` judges by it.

    Args:
        shards: how many the job has.
        recovers: checkpoints are kept, so the job survives the loss of a server.

    Attributes:
        rounds: closed rounds.
        orders: the number of the newest order.
        generation: of the job's weights.
        started: everyone who was expected has joined.
        ended: why the job is over, empty if it finished; None while it is not.
    """

    def __init__(self, shards: int, *, recovers: bool = False) -> None:
        self.rounds = self.orders = self.generation = 0
        self.ended: str | None = None
        self._shards = shards
        self._job: ev.JobSpec | None = None
        self.started = self._sealed = False
        self._recovers = recovers
        self._interruption = Interruption(shards)
        self._skips = False  # the next order may have any higher number
        self._members: dict[int, ev.Member] = {}
        self._dead: set[int] = set()
        self._begins: dict[int, int] = {}  # latecomers: their first round
        self._staged: dict[str, set[int]] = {}
        self._announced: dict[int, Announced] = {}  # by order
        self._contributed: dict[int, set[int]] = {}  # to the open round
        self._refused: set[int] = set()
        self._left_out: dict[tuple[int, int], set[int]] = {}  # (round, rank) -> shards that had it too late
        self._joining: set[int] = set()  # requests
        self._found: list[Violation] = []

    def resume(self, record: ev.JobRecord, log: Sequence[ev.Ordered] = ()) -> None:
        """Begin with a coordinator that goes on with what an earlier one has written down.

        Args:
            record: that it was given.
            log: the orders that it was given, in a job with a journal; without one it begins to count anew,
                somewhere higher.
        """
        job = self._job = record.job
        self._recovers, self._skips = True, not job.has_journal
        self.generation, self.orders, self.rounds = record.generation, record.orders, record.rounds
        self.started = len(record.members) >= job.replicas
        self._sealed = record.sealed
        if record.over:
            self.ended = ""
        elif job.has_journal:
            self.ended = record.ended
        for one in record.members:
            is_dead = one.standing is ev.Standing.DEAD
            gone = one.standing is ev.Standing.LEFT or (is_dead and job.on_death == "drop")
            live = one.entered and not gone
            self._members[one.rank] = ev.Member(one.rank, one.incarnation, live, one.late)
            if is_dead:
                self._dead.add(one.rank)
        self._begins = dict(record.begins)
        for rank, order in record.leavers:
            self._announced[order] = Announced(rank, set(range(self._shards)), leaves=True)
        self._interruption.resume(record)
        for each in log:
            if each.order.number <= self.orders:
                continue
            self.orders = each.order.number
            self._interruption.order(each.order)
            if isinstance(each.order, ev.RoundClosed):
                self.rounds = each.order.round + 1
            if isinstance(each.order, ev.JobEnded):
                self.ended = each.order.reason

    def _note(self, event: ev.CoordinatorEvent) -> list[Announced]:
        """Take a report; return the changes of membership that every shard has handled with it."""
        interruption = self._interruption
        match event:
            case ev.JoinReceived(job=job) if self._job is None:
                self._job = job
            case ev.ServerRegistered():
                interruption.register(event)
            case ev.ServerLost() if self._recovers and self._job is not None and self._may_go_on():
                interruption.lose(event.server, self._job.has_journal)
                if not self._job.has_journal:
                    self.ended = None
            case ev.CheckpointKept():
                interruption.keep(event.kept)
            case ev.CheckpointFailed():
                interruption.fail(event.checkpoint)
            case ev.CheckpointLost():
                interruption.replace(event.checkpoint, event.kept)
            case ev.Contributed() | ev.Staged() | ev.OrderHandled() | ev.CaughtUp():
                if not interruption.is_void(event):
                    return self._report(event)
        return []

    def _may_go_on(self) -> bool:
        return self.ended is None or (self.ended == "" and not self._interruption.is_final_kept)

    def _report(self, report: ev.Report) -> list[Announced]:
        self._interruption.handle(report)
        match report:
            case ev.Staged():
                self._staged.setdefault(report.initialiser, set()).add(report.shard)
            case ev.Contributed() if self._gathers:  # without rounds it is a refusal, which is only counted
                self._contribute(report)
            case ev.OrderHandled():
                return self._handled(report, [report.number])
            case ev.CaughtUp():  # it may have reported all of these in vain
                return self._handled(report, [n for n in self._announced if n <= report.number])
        return []

    def _handled(self, report: ev.OrderHandled | ev.CaughtUp, numbers: list[int]) -> list[Announced]:
        settled = []
        for number in numbers:
            announced = self._announced.get(number)
            if announced is None or report.shard not in announced.shards:
                continue
            announced.shards.discard(report.shard)
            announced.clocks.append(report.clocks.get(announced.rank, 0))
            if not announced.shards:
                settled.append(self._announced.pop(number))
        return settled

    def _contribute(self, report: ev.Contributed) -> None:
        if report.round > self.rounds:
            self._say("round", f"round {report.round} has a gradient before it is open", report.round)
        if report.round == self.rounds:
            self._contributed.setdefault(report.rank, set()).add(report.shard)
            if report.refusal:
                self._refused.add(report.rank)
            return
        where = self._left_out.get((report.round, report.rank))
        if where is None or report.refusal:
            return
        where.add(report.shard)
        if len(where) == self._shards and self._members[report.rank].incarnation == 1:
            self._say(
                "round",
                f"round {report.round} was closed without replica {report.rank}, which every shard had",
                report.round,
            )

    @property
    def _gathers(self) -> bool:
        return self._job is not None and self._job.consistency == "sync"

    def _live(self) -> list[int]:
        return [rank for rank, member in self._members.items() if member.live]

    def _leaving(self) -> list[int]:
        """Return who has left while some shard may still report a gradient of theirs."""
        return [a.rank for a in self._announced.values() if a.leaves] if self._gathers else []

    def _required(self) -> list[int]:
        """Return those without whom the open round cannot be closed."""
        return [r for r in self._live() if self._begins.get(r, 0) <= self.rounds] + self._leaving()

    def _complete(self, rank: int) -> bool:
        return len(self._contributed.get(rank, ())) == self._shards

    def _is_new(self, replica: ev.Replica) -> bool:
        member = self._members.get(replica.rank)
        return member is not None and member.incarnation == replica.incarnation

    def _say(self, name: str, message: str, round: int = -1) -> None:
        self._found.append(Violation(name, f"Coordinator: {message}.", round=round))
