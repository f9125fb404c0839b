"""Who counts: join, rank, leave, lease, incarnation, fencing.

A member is a rank with a name. It is *live* while it is heard of in time; *dead* once its lease or its step
time has run out; *left* when it has said that it is done. What a death means is the job's ``on_death``:

* ``restart``: the rank still counts, so its round and everyone bounded by its clock wait for its next
  incarnation; until ``restart_timeout_seconds`` have passed, and no more than ``restarts_max`` times.
* ``drop``: it counts no more, at once.

Where the coordinator deals out samples, whoever joins after the start does not count before it *enters*: when
there is something for it to do.

Either way the dead incarnation is fenced: if it wakes up, nothing that it sends has an effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from paramserver.errors import Fault, RequestError
from paramserver.events import (
    Beat,
    Counters,
    JobSpec,
    Member,
    MemberRecord,
    MemberStatus,
    Phase,
    Replica,
    Standing,
)
from paramserver.membership.rank import Rank


@dataclass(frozen=True, slots=True)
class Death:
    """A replica whose time ran out, and the sentence that says so."""

    rank: int
    reason: str


class Membership:
    """The ranks of one job.

    Args:
        job: gives the number of ranks, the times and what a death means.
    """

    def __init__(self, job: JobSpec) -> None:
        self._job = job
        self._ranks: dict[int, Rank] = {}
        self._by_name: dict[str, int] = {}
        self._counting: set[int] = set()  # see `counts`
        self.started = False

    def __len__(self) -> int:
        return len(self._ranks)

    def join(self, name: str, attempt: str, now: float, incarnation: int = 0) -> tuple[Replica, bool]:
        """Give a rank to a newcomer, or the next incarnation to one who comes again.

        Args:
            name: who it is; ranks go by name.
            attempt: a retry of one join repeats it, and gets the same answer.
            now: seconds.
            incarnation: which it was when it was fenced; 0 for one that starts.

        Returns:
            The replica, and whether anything has changed.

        Raises:
            RequestError: the job has all the ranks that it may have; or who was fenced finds another one in
                its place.
        """
        rank = self._by_name.get(name)
        if rank is None:
            return Replica(self._newcomer(name, attempt, now), 1), True
        member = self._ranks[rank]
        member.rewound = False
        if member.attempt == attempt and member.standing is not Standing.DEAD:
            member.heard = now
            return Replica(rank, member.incarnation), False
        if incarnation and member.standing is Standing.LIVE:
            raise RequestError(
                f"'{name}' was fenced as incarnation {incarnation}, and incarnation {member.incarnation} has "
                "taken its place since. Nothing is left to do here.",
                Fault.PRECONDITION,
            )
        fenced = incarnation
        if member.standing is Standing.DEAD:
            member.late = self.started and (self._job.on_death == "drop" or not member.entered)
            # Its incarnation was raised when it died.
            if attempt == member.attempt:
                fenced = member.incarnation - 1
        else:
            member.late = self.started and (member.standing is Standing.LEFT or not member.entered)
            member.fence()
        if fenced in member.earlier:  # the very process that was fenced goes on counting where it was
            member.counters = member.earlier.pop(fenced)
        member.entered = not (member.late and self._job.samples)
        member.attempt, member.heard, member.moved = attempt, now, now
        member.phase = Phase.IDLE
        self._stand(member, Standing.LIVE)
        return Replica(rank, member.incarnation), True

    def check(self, replica: Replica) -> None:
        """Refuse who is no member.

        Raises:
            RequestError: there is no such replica, or it is fenced.
        """
        self._known(replica)

    def enter(self, rank: int) -> None:
        """Let a newcomer count from now on."""
        member = self._ranks[rank]
        member.entered = True
        self._stand(member, member.standing)

    def leave(self, replica: Replica, counters: Counters, clock: int = 0, goes: bool = False) -> bool:
        """Note that a replica is done; return False if it had left before.

        Args:
            replica: who.
            counters: what it has done.
            clock: its finished steps, if it was not heard of them before.
            goes: it leaves before its last step, and does not come back to do anything again.

        Raises:
            RequestError: there is no such replica, or it is fenced.
        """
        member = self._known(replica)
        if member.standing is Standing.LEFT:
            return False
        member.counters, member.phase = counters, Phase.IDLE
        member.clock = max(member.clock, clock)
        member.went = goes
        if goes:
            member.steps = max(member.steps, member.clock + 1)  # whatever it has done, it is not all
        self._stand(member, Standing.LEFT)
        return True

    def beat(self, beat: Beat, now: float) -> bool:
        """Note a sign of life; return False if the sender counts no more."""
        member = self._ranks.get(beat.replica.rank)
        if member is None or member.incarnation != beat.replica.incarnation:
            return False
        if member.standing is Standing.LIVE:
            member.hear(beat, now)
        return member.standing is not Standing.DEAD

    def expire(self, now: float) -> list[Death]:
        """Declare dead whoever's time has run out, and fence them."""
        deaths = []
        for member in self._living():
            if now < member.deadline(self._job):
                continue
            reason = member.why_dead(self._job, now)
            member.died = now
            self._stand(member, Standing.DEAD)
            member.fence()
            deaths.append(Death(member.rank, reason))
        return deaths

    def overdue(self, now: float) -> str:
        """Return why the job cannot wait for a restart any longer, as a sentence; empty if it can."""
        if self._job.on_death != "restart":
            return ""
        for member in (self._ranks[rank] for rank in self.required()):
            who = f"replica {member.rank} ({member.name})"
            if member.restarts > self._job.restarts_max:
                return f"The job gave up: {who} needed more than {self._job.restarts_max} restarts."
            waited = now - member.died
            if member.standing is Standing.DEAD and waited >= self._job.restart_timeout_seconds:
                return f"The job gave up: {who} died and was not restarted within {waited:.1f} s."
        return ""

    def next_deadline(self) -> float | None:
        """Return the earliest time at which somebody can expire or a restart is overdue; None for never."""
        times = [member.deadline(self._job) for member in self._living()]
        if self._job.on_death == "restart":
            times += [
                member.died + self._job.restart_timeout_seconds
                for member in self._ranks.values()
                if member.standing is Standing.DEAD and member.entered
            ]
        return min(times, default=None)

    def grant_fresh_leases(self, now: float) -> None:
        """Begin all times anew, after a pause in which nobody could be heard or come back."""
        for member in self._living():
            member.heard = member.moved = now
        for rank in self.dropped():
            self._ranks[rank].died = now

    def records(self) -> tuple[MemberRecord, ...]:
        """Return every rank, to be written down."""
        return tuple(member.record() for member in self._ranks.values())

    def restore(self, records: Iterable[MemberRecord], now: float) -> None:
        """Take over ranks that were written down; there must be none yet."""
        for record in records:
            self._ranks[record.rank] = Rank.of(record, now)
            self._by_name[record.name] = record.rank
            self._stand(self._ranks[record.rank], record.standing)
        self.started = len(self._ranks) >= self._job.replicas

    def revive(self, clocks: Mapping[int, int], now: float, grace_seconds: float) -> None:
        """Begin all times anew, after the job went back to a checkpoint.

        Whoever had finished, and has something to do again, counts again. Whoever had left before its last
        step does not, and others do what of its work has to be done again.

        Args:
            clocks: of each rank in the checkpoint.
            now: seconds.
            grace_seconds: how much longer than a lease they may stay silent, this once.
        """
        for member in self._ranks.values():
            clock = clocks.get(member.rank, 0)
            if member.standing is Standing.LEFT and member.went:
                member.clock = min(member.clock, clock)
            elif member.standing is Standing.LEFT and (not member.steps or clock < member.steps):
                self._stand(member, Standing.LIVE)
            if member.standing is not Standing.LEFT:
                member.clock, member.phase = clock, Phase.IDLE
                member.rewound = True
            member.heard = member.moved = member.died = now + grace_seconds

    def steps_done(self) -> int:
        """Return how many steps all ranks together were heard to have finished."""
        return sum(member.clock for member in self._ranks.values())

    def required(self) -> list[int]:
        """Return the ranks that count: the live ones, and under ``restart`` the dead ones, too."""
        return sorted(self._counting)

    def waiting(self) -> list[int]:
        """Return the ranks that live and have not entered, ascending."""
        return sorted(member.rank for member in self._living() if not member.entered)

    def present(self) -> list[int]:
        """Return the ranks that take part in what begins now, ascending: before the start all expected."""
        if not self.started:
            return list(range(self._job.replicas))
        return sorted(self._counting.union(self.waiting()))

    def clocks(self) -> dict[int, int]:
        """Return the clock of every rank, as it was heard."""
        return {member.rank: member.clock for member in self._ranks.values()}

    @property
    def required_count(self) -> int:
        """How many ranks count."""
        return len(self._counting)

    def counts(self, rank: int) -> bool:
        """Say whether rounds and readers wait for this rank."""
        return rank in self._counting

    def finished(self) -> bool:
        """Say whether no rank is left that could do another step."""
        return self.started and not self._counting

    def dropped(self) -> list[int]:
        """Return the ranks that died and have not come back."""
        return [member.rank for member in self._ranks.values() if member.standing is Standing.DEAD]

    def expect_the_dead(self) -> None:
        """Take whoever is dead for alive again: all replicas start anew, and have their time to come."""
        for rank in self.dropped():
            self._stand(self._ranks[rank], Standing.LIVE)

    def members(self) -> tuple[Member, ...]:
        """Return every rank as shards should see it."""
        return tuple(self.member(rank) for rank in self._ranks)

    def member(self, rank: int) -> Member:
        """Return one rank as shards should see it."""
        member = self._ranks[rank]
        return Member(rank, member.incarnation, self.counts(rank), member.late)

    def statuses(self, now: float) -> tuple[MemberStatus, ...]:
        """Return every rank, for people."""
        return tuple(member.status(now) for member in self._ranks.values())

    def _newcomer(self, name: str, attempt: str, now: float) -> int:
        if len(self._ranks) >= self._job.replicas_max:
            raise RequestError(
                f"The job has its {self._job.replicas_max} replicas already, so '{name}' has no place in it.",
                Fault.EXHAUSTED,
            )
        rank = len(self._ranks)
        member = Rank(rank, name, attempt, 1, heard=now, late=self.started, moved=now)
        member.entered = not (member.late and self._job.samples)
        self._ranks[rank] = member
        self._by_name[name] = rank
        self._stand(member, Standing.LIVE)
        if len(self._ranks) == self._job.replicas:
            self.started = True
        return rank

    def _stand(self, member: Rank, standing: Standing) -> None:
        member.standing = standing
        waits = standing is Standing.LIVE or (standing is Standing.DEAD and self._job.on_death == "restart")
        (self._counting.add if waits and member.entered else self._counting.discard)(member.rank)

    def _known(self, replica: Replica) -> Rank:
        member = self._ranks.get(replica.rank)
        if member is None or replica.incarnation != member.incarnation or member.standing is Standing.DEAD:
            raise RequestError(
                f"Replica {replica.rank}, incarnation {replica.incarnation}, is not a member of this job.",
                Fault.UNKNOWN,
            )
        return member

    def _living(self) -> Iterator[Rank]:
        return (member for member in self._ranks.values() if member.standing is Standing.LIVE)
