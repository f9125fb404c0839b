"""What goes into the coordinator and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paramserver.events.job import JobSpec, Replica, Slice
from paramserver.events.orders import Order, Report
from paramserver.events.parts import PartAsked, PartGiven, Visits
from paramserver.events.record import JobRecord, Kept, Standing
from paramserver.events.replica import Counters, Phase, Score
from paramserver.events.shard import Ended, Refused, Unavailable


@dataclass(frozen=True, slots=True)
class ServerRegistered:
    """A server is up: its index, the address that clients use, and how many shards it owns.

    ``orders``: of each of its shards the last order that it has, where it goes on from its journal; None
    where it knows nothing.
    """

    server: int
    address: str
    shards: int
    orders: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ServerLost:
    """The link to a server broke."""

    server: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """Every shard's cut of a checkpoint has been written, and it is about to become whole.

    Whoever goes on from it has to know what was dealt to the replicas by then, so that is written down first.
    """


@dataclass(frozen=True, slots=True)
class CheckpointKept:
    """A checkpoint is whole and safe: every shard's cut of it has been written.

    Attributes:
        kept: the checkpoint; None for the one that is made once the job has ended.
    """

    kept: Kept | None


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """A checkpoint could not be kept; the training goes on, and later another one is tried.

    Attributes:
        checkpoint: its number; None for the final one, without which the job has failed after all.
        reason: why, as a sentence.
    """

    checkpoint: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointLost:
    """What was kept is torn, or has been changed, as a shard has found that was to go on from it.

    Attributes:
        checkpoint: its number.
        reason: why it cannot be used, as a sentence.
        kept: the newest one before it that is whole; None where there is none.
    """

    checkpoint: int
    reason: str
    kept: Kept | None


@dataclass(frozen=True, slots=True)
class JoinReceived:
    """A replica or an observer asks to take part.

    Attributes:
        request: the host's number for it.
        name: who it is, such as ``worker0/1``; the same name coming again is the next incarnation.
        attempt: a random text that retries of this one join repeat, so that a lost reply costs no
            incarnation.
        job: what the replica wants to train; None for an observer.
        scores: this observer will send the final score, so its server should not end before.
        incarnation: which the replica was when it was fenced; 0 for one that starts.
        stays: after it has left it sends heartbeats until it hears that the job is over.
    """

    request: int
    name: str
    attempt: str
    job: JobSpec | None
    scores: bool = False
    incarnation: int = 0
    stays: bool = False


@dataclass(frozen=True, slots=True)
class LeaveReceived:
    """A replica is done (no failure) or gives up (a sentence, which ends the job).

    ``generation``: the one that it has worked for; in another one it is not done. ``goes``: it leaves before
    its last step, so what it has not done is for others. ``clock``: the steps that it has done.
    """

    request: int
    replica: Replica
    counters: Counters
    failure: str = ""
    generation: int = 0
    goes: bool = False
    clock: int = 0


@dataclass(frozen=True, slots=True)
class Beat:
    """One replica's part of a heartbeat; ``steps`` is how many it means to do in all (0: not known)."""

    replica: Replica
    clock: int
    steps: int
    phase: Phase
    counters: Counters


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """A worker's replicas are alive; one message for all of them."""

    request: int
    beats: tuple[Beat, ...]


@dataclass(frozen=True, slots=True)
class ScoreReceived:
    """An observer has scored some weights."""

    request: int
    score: Score


@dataclass(frozen=True, slots=True)
class StatusReceived:
    """Somebody asks how the job stands."""

    request: int


@dataclass(frozen=True, slots=True)
class EndAsked:
    """Whoever runs the servers wants the job to end now; ``reason`` is a sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time that the coordinator asked for with WakeAt has come."""


CoordinatorEvent = (
    ServerRegistered
    | ServerLost
    | CheckpointWritten
    | CheckpointKept
    | CheckpointFailed
    | CheckpointLost
    | JoinReceived
    | LeaveReceived
    | PartAsked
    | HeartbeatReceived
    | ScoreReceived
    | StatusReceived
    | EndAsked
    | TimerFired
    | Report
)


@dataclass(frozen=True, slots=True)
class JoinGranted:
    """Answer a join: who you are, where to begin, and where everything lies.

    ``replica`` is None for an observer. ``addresses`` has the address of each shard's server, by shard.
    ``recovers`` says that a server which is lost may come back.
    """

    request: int
    replica: Replica | None
    generation: int
    clock: int
    job: JobSpec
    placement: tuple[Slice, ...]
    addresses: tuple[str, ...]
    sealed: bool
    recovers: bool = False

    @property
    def patience_seconds(self) -> float:
        """How long a server that does not answer is to be asked again before it is given up."""
        return self.job.lease_seconds + self.job.restart_timeout_seconds if self.recovers else 0.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Answer a leave or a score."""

    request: int


@dataclass(frozen=True, slots=True)
class HeartbeatAnswered:
    """Answer a heartbeat: which of its replicas are fenced, and whether the job is over and why."""

    request: int
    generation: int
    fenced: tuple[Replica, ...]
    ended: bool
    reason: str


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One rank, for people: who it is, how it stands, what it does, and what it has done.

    ``heard_seconds`` is the age of its newest heartbeat.
    """

    replica: Replica
    name: str
    standing: Standing
    clock: int
    steps: int
    phase: Phase
    heard_seconds: float
    counters: Counters


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How the job stands.

    ``rounds`` counts closed rounds (synchronous modes), ``reason`` says why it failed, ``visits`` what became
    of the samples of each epoch that was begun, and ``trouble`` what goes wrong though the training goes on.
    """

    job: JobSpec | None
    generation: int
    servers: tuple[ServerRegistered, ...]
    servers_expected: int
    started: bool
    sealed: bool
    ended: bool
    reason: str
    rounds: int
    members: tuple[MemberStatus, ...]
    scores: tuple[Score, ...]
    visits: tuple[Visits, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class StatusAnswered:
    """Answer a status."""

    request: int
    status: JobStatus


@dataclass(frozen=True, slots=True)
class Ordered:
    """Bring this order to this shard, or to every shard (None), after all earlier ones.

    ``again``: it has been given before.
    """

    order: Order
    shard: int | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send TimerFired at this time (seconds, the host's ``now``); a newer WakeAt replaces an older one."""

    when: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that a person who watches the job should read, as a sentence for the log.

    ``rank``: of the replica that it is about, if it is about one.
    """

    message: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Remember:
    """Write this down, to go on from should this process end; the effects after it have to wait for that."""

    record: JobRecord


CoordinatorEffect = (
    JoinGranted
    | PartGiven
    | Acknowledged
    | StatusAnswered
    | HeartbeatAnswered
    | Refused
    | Unavailable
    | Ended
    | Ordered
    | WakeAt
    | Noted
    | Remember
)
