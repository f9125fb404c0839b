"""A job as a person states it: the options of the command line, and of a job file.

A job says what is trained, on what, by how many, under which consistency. Each field is an option of
``paramserver train`` and a key of a TOML job file, under one name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

from paramserver.consistency import parse_consistency
from paramserver.data import parse_split
from paramserver.errors import RequestError, did_you_mean
from paramserver.events import JobSpec, TensorSpec
from paramserver.optim import OPTIMIZERS, build_optimizer, optimizer_name
from paramserver.quantities import NANOSECONDS, parse_duration
from paramserver.types import Shapes

ENGINES = ("local", "sequential", "sim", "compose")
ON_DEATH = ("auto", "restart", "drop")
DURABILITIES = ("checkpoint", "journal", "none")


@dataclass(frozen=True)
class Job:
    """What to train, and how.

    Attributes:
        data: a name such as ``digits`` or ``synthetic:spirals``, the path of an ``.npz`` or ``.csv`` file, or
            ``code``: what the function ``data`` of the user's file gives.
        data_dir: where data files are looked for; empty for the usual places.
        model: such as ``softmax``, ``mlp:H1,H2,…`` or ``cnn``, or ``code``: what the function ``model`` of
            the user's file gives.
        code: path of the user's Python file; empty for none. A job file that names one does not run it.
        code_sha256: of that file when the job was run, in hexadecimal; written, not given.
        split: how samples are dealt to replicas: ``iid``, ``by-label`` or ``dirichlet:A``.
        problem: in virtual time, what is trained in place of data and model: ``quadratic:H``,
            ``quadratic:H,NOISE``, ``logistic``, ``timing`` or ``timing:SIZE``; empty for data and model.
        steps: of each replica of a problem, which has no epochs; 0 for 100.
        consistency: ``sync``, ``async`` or ``ssp:N``.
        servers: server processes, >= 1.
        shards: shards of each server, >= 1.
        workers: worker processes, >= 1.
        threads: replicas (one thread each) of each worker, >= 1.
        replicas_max: how many replicas there may be in all, with those that join later; 0: 64 more than
            there are at the beginning.
        optimizer: such as ``sgd``, ``momentum:0.9`` or ``adam+decay:0.01``.
        lr: learning rate per update; 0 chooses the optimizer's usual one.
        schedule: such as ``constant``, ``cosine`` (down to 0 at the end of the job) or ``warmup:5%+cosine``.
        clip_norm: a gradient longer than this is scaled down to it before it is pushed; 0: none is.
        batch: samples of one replica's step, >= 1.
        epochs: passes over the training set, >= 1.
        target_accuracy: the job ends once the validation accuracy reaches it; 0: after its epochs.
        seed: of all chance, >= 0.
        engine: ``local`` (processes on this machine), ``sequential`` (one plain loop), ``sim`` (virtual
            time) or ``compose`` (containers).
        on_death: ``restart``, ``drop``, or ``auto``: restart for sync, drop for async and ssp.
        lease_seconds: a replica unheard of for this long is dead.
        step_timeout: seconds that one step may take.
        restart_timeout: seconds that a dead replica, or a lost server, is waited for.
        max_restarts: how often one worker, or one server, is started again before the job gives up.
        durability: ``checkpoint`` (servers come back with what the newest checkpoint has), ``journal`` (with
            all that they have answered) or ``none`` (the loss of a server ends the job).
        checkpoint_every: when checkpoints are made while the job runs: updates such as ``100``, a time such
            as ``30s`` or ``2m``, or ``never`` (only that of the first weights).
        checkpoint_keep: how many of those are kept, >= 1.
        start_timeout: seconds that all processes have to come up and join.
        blas_threads: threads of the linear-algebra library in each process; 0 leaves it alone.
        trace: what every thread and shard does is recorded, as ``trace.json`` in the run folder.
    """

    data: str = "digits"
    data_dir: str = ""
    model: str = "mlp:128"
    code: str = ""
    code_sha256: str = ""
    split: str = "iid"
    problem: str = ""
    steps: int = 0
    consistency: str = "sync"
    servers: int = 1
    shards: int = 2
    workers: int = 2
    threads: int = 2
    replicas_max: int = 0
    optimizer: str = "adam"
    lr: float = 0.0
    schedule: str = "cosine"
    clip_norm: float = 0.0
    batch: int = 32
    epochs: int = 50
    target_accuracy: float = 0.0
    seed: int = 0
    engine: str = "local"
    on_death: str = "auto"
    lease_seconds: float = 10.0
    step_timeout: float = 600.0
    restart_timeout: float = 30.0
    max_restarts: int = 3
    durability: str = "checkpoint"
    checkpoint_every: str = "30s"
    checkpoint_keep: int = 3
    start_timeout: float = 60.0
    blas_threads: int = 1
    trace: bool = False

    @property
    def replicas(self) -> int:
        """Return the number of replicas: workers times threads."""
        return self.workers * self.threads

    @property
    def has_journal(self) -> bool:
        """Whether servers answer only what the disk has; where there are no servers, nothing does."""
        return self.durability == "journal" and self.engine in ("local", "compose")

    def resolved(self) -> Job:
        """Return the job with every ``auto`` and 0 that means "the usual" replaced by its value.

        Raises:
            RequestError: a field is out of range, or a name is unknown.
        """
        _check(self)
        rule = parse_consistency(self.consistency)
        lr = self.lr or USUAL_LEARNING_RATE[optimizer_name(self.optimizer)]
        build_optimizer(self.optimizer, lr, self.schedule, 1)
        on_death = self.on_death
        if on_death == "auto":
            on_death = "restart" if rule.gathers else "drop"
        steps = self.steps or (USUAL_STEPS if self.problem else 0)
        return replace(self, lr=lr, on_death=on_death, steps=steps)

    def to_toml(self) -> str:
        """Return the job as a job file that ``job_from_toml`` reads."""
        lines = [f"{field.name} = {_toml(getattr(self, field.name))}" for field in fields(self)]
        return "\n".join(lines) + "\n"

    def spec(self, shapes: Shapes, steps: Sequence[int], tables: Collection[str] = ()) -> JobSpec:
        """Return what the replicas of this resolved job agree on with the servers.

        Args:
            shapes: of the model's tensors, by key.
            steps: the steps of each replica, in rank order.
            tables: keys of the tensors that are read row by row.
        """
        gathers = parse_consistency(self.consistency).gathers
        checkpoint_updates, checkpoint_seconds = parse_checkpoint_every(self.checkpoint_every)
        return JobSpec(
            tensors=tuple(TensorSpec(key, tuple(shapes[key]), table=key in tables) for key in sorted(shapes)),
            model=self.model,
            consistency=self.consistency,
            optimizer=self.optimizer,
            learning_rate=self.lr,
            schedule=self.schedule,
            versions_total=max(steps) if gathers else sum(steps),
            seed=self.seed,
            replicas=self.replicas,
            replicas_max=self.replicas_max or self.replicas + USUAL_NEWCOMERS,
            on_death=self.on_death,
            lease_seconds=self.lease_seconds,
            step_timeout_seconds=self.step_timeout,
            restart_timeout_seconds=self.restart_timeout,
            restarts_max=self.max_restarts,
            start_timeout_seconds=self.start_timeout,
            checkpoint_updates=checkpoint_updates,
            checkpoint_seconds=checkpoint_seconds,
            durability="journal" if self.has_journal else "checkpoint",
            target_accuracy=self.target_accuracy,
        )


CODE = "code"
"""As data or model: what the user's Python file gives."""

USUAL_LEARNING_RATE = {
    "sgd": 0.7,
    "momentum": 0.1,
    "nesterov": 0.15,
    "adagrad": 0.05,
    "rmsprop": 0.005,
    "adam": 0.005,
    "adamw": 0.01,
}
"""The learning rate of each optimizer where a job states none: measured on the digits with ``mlp:128``, 50
epochs and a cosine."""

EVERY_UPDATES_MAX = 1 << 40
"""No job has so many updates, and the wire carries more."""

USUAL_NEWCOMERS = 64
"""How many replicas may join beside those of the beginning where a job states no limit."""

USUAL_STEPS = 100
"""The steps of each replica of a problem where a job states none."""

_LEAST = {
    "steps": 0,
    "servers": 1,
    "shards": 1,
    "workers": 1,
    "threads": 1,
    "replicas_max": 0,
    "batch": 1,
    "epochs": 1,
    "seed": 0,
    "max_restarts": 0,
    "checkpoint_keep": 1,
    "blas_threads": 0,
}
_POSITIVE = ("lease_seconds", "step_timeout", "restart_timeout", "start_timeout")


def parse_checkpoint_every(text: str) -> tuple[int, float]:
    """Read how often a checkpoint is made.

    Args:
        text: updates such as ``100``, a time such as ``30s``, ``2m`` or ``1.5h``, or ``never`` or ``0``.

    Returns:
        Updates and seconds; what is 0 is no measure. Both are 0 for never.

    Raises:
        RequestError: it is none of these.

    Example:
        >>> parse_checkpoint_every("100"), parse_checkpoint_every("2m"), parse_checkpoint_every("never")
        ((100, 0.0), (0, 120.0), (0, 0.0))
    """
    if text in ("never", "0"):
        return 0, 0.0
    if text.isdecimal() and 0 < int(text) <= EVERY_UPDATES_MAX:
        return int(text), 0.0
    with suppress(RequestError):
        seconds = parse_duration(re.sub(r"(?<=\d)m$", "min", text), "checkpoint_every") / NANOSECONDS
        if 0 < seconds < math.inf:
            return 0, seconds
    raise RequestError(
        f"'checkpoint_every' is a number of updates such as 100, a time such as 30s or 2m, or never, but it "
        f"is '{text}'."
    )


def _toml(value: str | int | float | bool) -> str:
    # JSON and TOML write texts and numbers alike, but TOML knows no surrogate pairs and escapes DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check(job: Job) -> None:
    for name, least in _LEAST.items():
        value = getattr(job, name)
        if value < least:
            raise RequestError(f"'{name}' must be {least} or more, but it is {value}.")
    for name in _POSITIVE:
        value = getattr(job, name)
        if not (math.isfinite(value) and value > 0):
            raise RequestError(f"'{name}' must be a number of seconds above 0, but it is {value}.")
    if not (math.isfinite(job.lr) and job.lr >= 0):
        raise RequestError(f"'lr' must be a number above 0 (or 0 for the usual one), but it is {job.lr}.")
    for name, allowed in (("engine", ENGINES), ("on_death", ON_DEATH), ("durability", DURABILITIES)):
        value = getattr(job, name)
        if value not in allowed:
            raise RequestError(
                f"'{name}' is one of {', '.join(allowed)}, not '{value}'.{did_you_mean(value, allowed)}"
            )
    if job.problem and job.engine != "sim":
        raise RequestError(
            f"The problem '{job.problem}' is for virtual time, but the engine is {job.engine}. Choose the "
            "engine sim, or train data and a model."
        )
    if job.steps and not job.problem:
        raise RequestError(
            "'steps' are those of a problem; data are passed over in epochs. Give epochs, or a problem."
        )
    if job.trace and job.engine == "sequential":
        raise RequestError(
            "The sequential engine has no threads or shards whose work could be recorded. Leave 'trace' "
            "out, or choose another engine."
        )
    if 0 < job.replicas_max < job.replicas:
        raise RequestError(
            f"'replicas_max' must be at least the {job.replicas} replicas of the beginning (workers times "
            f"threads), or 0 for the usual limit, but it is {job.replicas_max}."
        )
    parse_split(job.split)
    parse_checkpoint_every(job.checkpoint_every)
    if not 0 <= job.target_accuracy <= 1:
        raise RequestError(
            f"'target_accuracy' must be from 0 to 1, such as 0.95, but it is {job.target_accuracy}."
        )
    if not (math.isfinite(job.clip_norm) and job.clip_norm >= 0):
        raise RequestError(
            f"'clip_norm' must be a number above 0 (or 0 for no clipping), but it is {job.clip_norm}."
        )
    for name in ("data", "model"):
        if getattr(job, name) == CODE and not job.code:
            raise RequestError(
                f"The {name} of this job is that of a Python file, but no file is named. Name it with --code."
            )
    optimizer = optimizer_name(job.optimizer)
    if optimizer not in OPTIMIZERS:
        raise RequestError(
            f"Unknown optimizer '{optimizer}': expected one of {', '.join(OPTIMIZERS)}."
            f"{did_you_mean(optimizer, OPTIMIZERS)}"
        )
