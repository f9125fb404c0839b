"""What the coordinator knows: its servers, its job, and the orders that it has given."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from paramserver import events as ev
from paramserver.admission import check_job
from paramserver.consistency import Consistency
from paramserver.dealing import Dealing
from paramserver.errors import Fault, RequestError
from paramserver.joins import Joins
from paramserver.membership import Membership
from paramserver.order_log import OrderLog
from paramserver.placement import place
from paramserver.recovery import Recovery
from paramserver.rounds import Rounds

Effects = list[ev.CoordinatorEffect]

SCORES_MAX = 100
"""How many scores a status shows; the newest count."""


@dataclass(slots=True)
class JobState:
    """What is known once the first join has fixed the job.

    Attributes:
        spec: the job.
        rule: its consistency model.
        placement: which shard owns which rows.
        fixed_at: seconds; the start is timed from here.
        members: who counts.
        rounds: the open round, in a synchronous mode.
        recovery: checkpoints, lost servers and generations.
        joins: those that wait for shards to hear of them.
        dealing: who does what.
        sealed: the first weights are in place.
        staged: by initialiser, the shards that have its first weights.
    """

    spec: ev.JobSpec
    rule: Consistency
    placement: tuple[ev.Slice, ...]
    fixed_at: float
    members: Membership
    rounds: Rounds
    recovery: Recovery
    joins: Joins
    dealing: Dealing
    sealed: bool = False
    staged: dict[str, set[int]] = field(default_factory=dict)

    @property
    def updates(self) -> int:
        """How far the job has come, for the rhythm of its checkpoints."""
        return self.rounds.closed if self.rule.gathers else self.members.steps_done()

    @property
    def rounds_closed(self) -> int | None:
        """How many rounds are closed; None in a mode without."""
        return self.rounds.closed if self.rule.gathers else None

    @property
    def patience_seconds(self) -> float:
        """How long a lost server is waited for."""
        return self.spec.lease_seconds + self.spec.restart_timeout_seconds

    def slices(self, shard: int) -> tuple[ev.Slice, ...]:
        """Return the slices of one shard, in placement order."""
        return tuple(part for part in self.placement if part.shard == shard)


class CoordinatorState:
    """All that the coordinator knows.

    Args:
        servers: how many servers the job has, >= 1.
        shards_per_server: how many shards each of them owns, >= 1.
        recovers: checkpoints are kept, so the job survives the loss of a server.

    Attributes:
        servers_expected: how many servers the job has.
        shards_per_server: as above.
        shards: how many there are in all.
        recovers: as above.
        servers: those that are there, by index.
        job: None before the first join.
        orders: the number of the last order.
        scores: the newest.
        ended: why the job ended: a sentence if it failed, empty if it finished; None while it goes on.
        is_final_kept: what the job ends with is safe, or nothing is kept at all.
        has_news: something has changed that has to be written down.
        log: the orders that a shard may have to hear again, in a job with a journal.
        has_gap: a server has come back and knows nothing.
        trouble: why the newest checkpoint could not be kept, or used; empty if it could.
        grace_seconds: how much longer than a lease replicas may stay silent after this coordinator came back.
        wake_at: when the timer fires; None while it is not set.
    """

    def __init__(self, servers: int, shards_per_server: int, recovers: bool) -> None:
        self.servers_expected = servers
        self.shards_per_server = shards_per_server
        self.shards = servers * shards_per_server
        self.recovers = recovers
        self.servers: dict[int, ev.ServerRegistered] = {}
        self.job: JobState | None = None
        self.orders = 0
        self.scores: deque[ev.Score] = deque(maxlen=SCORES_MAX)
        self.ended: str | None = None
        self.is_final_kept = not recovers
        self.has_news = False
        self.log = OrderLog()
        self.has_gap = False
        self.trouble = ""
        self.grace_seconds = 0.0
        self.wake_at: float | None = None

    @property
    def has_journal(self) -> bool:
        """Whether what is decided has to be written down before anybody hears of it."""
        return self.recovers and self.job is not None and self.job.spec.has_journal

    def known_job(self) -> JobState:
        """Return the job.

        Raises:
            RequestError: there is none yet.
        """
        if self.job is None:
            raise RequestError("There is no job here yet. Join first.", Fault.PRECONDITION)
        return self.job

    def fix_job(self, spec: ev.JobSpec, now: float) -> JobState:
        """Make this the job.

        Raises:
            RequestError: it could not run.
        """
        rule = check_job(spec)
        members = Membership(spec)
        self.job = JobState(
            spec,
            rule,
            place(spec.tensors, self.shards),
            now,
            members,
            Rounds(rule, self.shards),
            Recovery(spec, self.shards, now, self.shards_per_server),
            Joins(self.shards),
            Dealing(spec, members, self.shards),
        )
        return self.job

    def next_order(self) -> int:
        """Return the number of the order that is given now."""
        self.orders += 1
        return self.orders

    def order_membership(self, job: JobState, rank: int) -> Effects:
        """Tell every shard how a rank stands; while a server is lost, its next generation says so."""
        self.has_news = True
        if job.recovery.waits:
            return []
        member = job.members.member(rank)
        order = ev.MembershipChanged(self.next_order(), (member,), job.members.started, job.spec.replicas)
        return [ev.Ordered(order)]

    def end(self, reason: str) -> Effects:
        """End the job, unless it has ended already: in good order (empty), or with a sentence."""
        if self.ended is not None:
            return []
        self.ended = reason
        waiting = self.job.joins.take_all() if self.job is not None else []
        return [
            ev.Ordered(ev.JobEnded(self.next_order(), reason)),
            *(ev.Ended(request, reason) for request, _ in waiting),
        ]

    def status(self, now: float) -> ev.JobStatus:
        """Say how the job stands."""
        job = self.job
        return ev.JobStatus(
            job.spec if job else None,
            job.recovery.generation if job else 0,
            tuple(self.servers[index] for index in sorted(self.servers)),
            self.servers_expected,
            job.members.started if job else False,
            job.sealed if job else False,
            self.ended is not None,
            self.ended or "",
            job.rounds.closed if job else 0,
            job.members.statuses(now) if job else (),
            tuple(self.scores),
            job.dealing.visits(job.rounds_closed) if job else (),
            self.trouble,
        )
