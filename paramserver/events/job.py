"""What all replicas of a job agree on, and the small nouns that every event uses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

PROTOCOL_VERSION = 1
"""Raised when an old client could misread a new server; Join compares it."""

FLOAT32_MAX = 3.4028234663852886e38
"""The largest float32, (2 - 2^-23) 2^127."""

NOBODY = -1
"""Instead of a rank: what ended a wait was no push, such as the start or a death."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the model.

    Attributes:
        key: its name, such as ``dense1/weight``.
        shape: its dimensions; axis 0 are the rows.
        dtype: ``float32``.
        table: it is read row by row, so single rows of it may be pulled and pushed. Whole it may be, too.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    table: bool = False


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What all replicas of a job agree on; the first Join fixes it.

    Attributes:
        tensors: the model's tensors in sorted key order.
        model: a name for people, such as ``mlp:128``; the shapes are what counts.
        consistency: ``sync``, ``async`` or ``ssp:N``.
        optimizer: such as ``adam`` or ``momentum:0.9``.
        learning_rate: per update, > 0.
        schedule: such as ``constant``, ``cosine`` or ``warmup:5%+cosine``.
        versions_total: updates after which a schedule has run its course, >= 1.
        seed: of the job, >= 0.
        replicas: how many replicas must have joined before anything begins, >= 1.
        replicas_max: ranks that may ever be given, >= replicas.
        on_death: ``restart`` (wait for the rank to come back) or ``drop`` (go on without it).
        lease_seconds: a replica unheard of for this long is dead.
        step_timeout_seconds: a replica that computes or pushes one step for longer is dead.
        restart_timeout_seconds: how long a dead rank is waited for under ``restart``.
        restarts_max: restarts of one rank before the job fails.
        start_timeout_seconds: how long the job waits for its replicas to join and for the first weights.
        checkpoint_updates: a checkpoint is made after so many updates (rounds, or else steps of all
            replicas); 0: not by updates.
        checkpoint_seconds: a checkpoint is made after so many seconds; 0: not by time.
        samples: of the training set, which the coordinator deals out; 0: each replica chooses its own.
        batch: samples of one step, >= 1.
        epochs: passes over the samples, >= 1.
        shares: samples of each place under a split whose shares do not change; empty for one that deals all
            samples anew in each epoch.
        target_accuracy: the job ends well once a validation score reaches it; 0: only after its last step.
        durability: ``checkpoint`` (after the loss of a server all go back to the newest checkpoint),
            ``journal`` (the lost server alone goes on, exactly where it was) or ``none``.
    """

    tensors: tuple[TensorSpec, ...]
    model: str = ""
    consistency: str = "sync"
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    schedule: str = "constant"
    versions_total: int = 1
    seed: int = 0
    replicas: int = 1
    replicas_max: int = 1
    on_death: str = "restart"
    lease_seconds: float = 10.0
    step_timeout_seconds: float = 600.0
    restart_timeout_seconds: float = 30.0
    restarts_max: int = 3
    start_timeout_seconds: float = 120.0
    target_accuracy: float = 0.0
    checkpoint_updates: int = 0
    checkpoint_seconds: float = 0.0
    durability: str = "checkpoint"
    samples: int = 0
    batch: int = 1
    epochs: int = 1
    shares: tuple[int, ...] = ()

    @property
    def has_journal(self) -> bool:
        """Whether nothing leaves a server before the disk has what it depends on."""
        return self.durability == "journal"

    def gradient_max(self, samples: int) -> float:
        """Return how large a gradient's values may be, so that the sum over a round is finite for certain.

        Args:
            samples: which it is the mean over.
        """
        if self.consistency != "sync":
            return FLOAT32_MAX
        # A thousandth is left for the rounding of products and sums.
        return 0.999 * FLOAT32_MAX / (max(samples, 1) * self.replicas_max)

    def fingerprint(self) -> str:
        """Return the SHA-256, in hexadecimal, of this job's canonical JSON."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, other: JobSpec) -> list[str]:
        """List ``field: ours != theirs`` for people, for each field that differs."""
        mine, theirs = self._named(), other._named()
        names = [*mine, *(name for name in theirs if name not in mine)]
        return [
            f"{name}: {mine.get(name, 'none')} != {theirs.get(name, 'none')}"
            for name in names
            if mine.get(name) != theirs.get(name)
        ]

    def _named(self) -> dict[str, str]:
        """Return every field, and every tensor for itself, by a name for people."""
        tensors = {
            f"tensor '{tensor.key}'": f"{tensor.shape} {tensor.dtype}{' table' if tensor.table else ''}"
            for tensor in self.tensors
        }
        plain = {field.name: repr(getattr(self, field.name)) for field in fields(self)}
        del plain["tensors"]
        return tensors | plain


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows ``row_begin <= i < row_end`` (axis 0) of one tensor, owned by one shard.

    A tensor of no dimensions has one row.
    """

    key: str
    row_begin: int
    row_end: int
    shard: int


@dataclass(frozen=True, slots=True)
class Replica:
    """Who asks: a rank and how many times it has been started (from 1)."""

    rank: int
    incarnation: int
