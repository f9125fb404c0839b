"""A job as one plain loop in this process: the host of `paramserver.sequential`."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from paramserver.accounting import merge_counters
from paramserver.consistency import parse_consistency
from paramserver.events import (
    Counters,
    JobStatus,
    MemberStatus,
    Phase,
    Replica,
    Score,
    Slice,
    Standing,
    Visits,
)
from paramserver.launch.interruption import Interruption
from paramserver.launch.progress import Moment, Reporter
from paramserver.launch.record import checkpoint_details
from paramserver.models import score
from paramserver.optim import build_optimizer
from paramserver.placement import rows_of
from paramserver.sequential import Contribution, Update, train_sequentially
from paramserver.storage import MetricsWriter, RunFolder, SliceValues, write_manifest, write_shard
from paramserver.summary import summarise
from paramserver.types import Array
from paramserver.workload import Workload

METRICS_SECONDS = 1.0
"""Between two lines of ``metrics.jsonl``, as the coordinator writes them."""

LOSS_DECAY = 0.9
"""The training loss that is shown is a moving average over some ten steps."""


def run_loop(
    plan: Workload, folder: RunFolder, interruption: Interruption, reporter: Reporter
) -> dict[str, Any]:
    """Train in this process, write the checkpoint, and return the summary.

    Args:
        plan: the job.
        folder: where checkpoint and metrics go.
        interruption: entered; looked at after each update.
        reporter: shows progress.

    Raises:
        JobError: training diverged, or the disk refuses.
        Interrupted: a signal came.
    """
    job = plan.job
    rule = parse_consistency(job.consistency)
    optimizer = build_optimizer(job.optimizer, job.lr, job.schedule, plan.spec.versions_total)
    replicas = [plan.step(rank) for rank in range(job.replicas)]
    with folder.open_metrics() as metrics:
        loop = _Loop(plan, metrics, reporter)
        for update in train_sequentially(rule, optimizer, plan.initial(), replicas, plan.steps):
            interruption.check()
            loop.take(update)
            if loop.has_reached_target:
                break
        return loop.finish(folder)


class _Loop:
    """Counts what the loop does, scores it once an epoch, and keeps the diary."""

    def __init__(self, plan: Workload, metrics: MetricsWriter, reporter: Reporter) -> None:
        self._plan = plan
        self._metrics = metrics
        self._reporter = reporter
        self._steps_per_epoch = max(plan.steps) // plan.job.epochs
        self._counts = [_Counts() for _ in plan.steps]
        self._visits: defaultdict[int, Counter[str]] = defaultdict(Counter)  # samples, by epoch
        self._scores: list[Score] = []
        self._update: Update | None = None
        self._rounds = 0
        self._began = self._mark = time.monotonic()
        self._next_metrics = self._began + METRICS_SECONDS

    def take(self, update: Update) -> None:
        """Count one update."""
        now = time.monotonic()
        for contribution in update.contributions:
            seconds = (now - self._mark) / len(update.contributions)
            self._counts[contribution.rank].add(contribution, seconds)
            epoch = update.clock // (self._plan.steps[contribution.rank] // self._plan.job.epochs)
            visit = "seen" if contribution.applied else "refused"
            self._visits[epoch][visit] += contribution.samples
        self._mark = now
        before, self._update = self._update, update
        if before is not None and update.clock > before.clock:
            self._rounds = update.clock
            if update.clock % self._steps_per_epoch == 0:
                self._score(before, "validation")
        self._reporter.update(self._moment())
        if now >= self._next_metrics:
            self._next_metrics = now + METRICS_SECONDS
            self._note_progress()

    @property
    def has_reached_target(self) -> bool:
        """Say whether the newest validation score is as good as the job wants it."""
        target = self._plan.job.target_accuracy
        return bool(target and self._scores and self._scores[-1].accuracy >= target)

    def finish(self, folder: RunFolder) -> dict[str, Any]:
        """Score the final weights, write the checkpoint, and return the summary."""
        update = self._update
        assert update is not None, "a job has at least one step"
        wall_seconds = time.monotonic() - self._began
        self._rounds = update.clock + 1
        self._note_progress()
        self._score(update, "validation")
        self._score(update, "test")
        for counts in self._counts:  # what was no step was scoring and writing
            counts.rest_seconds = max(0.0, wall_seconds / len(self._counts) - counts.seconds)
        sha256 = self._write_checkpoint(folder, update)
        status = self._status()
        return summarise(
            status, [update.version], weights_sha256=sha256, wall_seconds=wall_seconds, engine="sequential"
        )

    def _score(self, update: Update, split: str) -> None:
        data = getattr(self._plan.splits, split)
        found = score(self._plan.model, update.weights, data.inputs, data.labels)
        rounds = update.clock + 1 if self._plan.job.consistency == "sync" else -1
        judged = Score(split, update.version, rounds, found.loss, found.accuracy, found.samples, found.auc)
        self._scores.append(judged)
        self._metrics.append({"kind": "score", "seconds": self._seconds(), **asdict(judged)})
        self._mark = time.monotonic()

    def _note_progress(self) -> None:
        total = merge_counters(counts.counters() for counts in self._counts)
        self._metrics.append(
            {
                "kind": "progress",
                "seconds": self._seconds(),
                "rounds": self._rounds if self._plan.job.consistency == "sync" else 0,
                "clocks": [counts.steps for counts in self._counts],
                "gradients": total.gradients,
                "samples": total.samples,
                "loss": total.loss,
            }
        )

    def _seconds(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def _moment(self) -> Moment:
        done = sum(counts.steps for counts in self._counts)
        losses = [counts.loss for counts in self._counts if not math.isnan(counts.loss)]
        return Moment(
            fraction=done / sum(self._plan.steps),
            samples=sum(counts.samples["computed"] for counts in self._counts),
            loss=sum(losses) / len(losses) if losses else math.nan,
            accuracy=self._scores[-1].accuracy if self._scores else None,
        )

    def _status(self) -> JobStatus:
        """Return the standing of this job as a coordinator would give it."""
        return JobStatus(
            job=self._plan.spec,
            generation=0,
            servers=(),
            servers_expected=0,
            started=True,
            sealed=True,
            ended=True,
            reason="",
            rounds=self._rounds if self._plan.job.consistency == "sync" else 0,
            members=tuple(
                MemberStatus(
                    Replica(rank, 1),
                    f"loop/{rank}",
                    Standing.LEFT,
                    counts.steps,
                    counts.steps,
                    Phase.IDLE,
                    0.0,
                    counts.counters(),
                )
                for rank, counts in enumerate(self._counts)
            ),
            scores=tuple(self._scores),
            visits=tuple(
                Visits(epoch, self._plan.spec.samples, visits["seen"], visits["refused"])
                for epoch, visits in sorted(self._visits.items())
            ),
        )

    def _write_checkpoint(self, folder: RunFolder, update: Update) -> str:
        """Write the weights as one shard would, and return their hash."""
        slices = [
            SliceValues(Slice(key, 0, rows_of(value.shape), 0), value, _shaped(update.state[key], value))
            for key, value in update.weights.items()
        ]
        file = write_shard(folder.checkpoint, 0, 1, slices, update.version, 0)
        job = self._plan.spec
        details = {**checkpoint_details(self._status()), "rounds": self._rounds}
        manifest = write_manifest(folder.checkpoint, job.tensors, [file], 0, job.optimizer, details)
        return manifest.weights_sha256


class _Counts:
    """What one replica of the loop has done."""

    def __init__(self) -> None:
        self.steps = 0
        self.loss = math.nan
        self.gradients: Counter[str] = Counter()
        self.samples: Counter[str] = Counter()
        self.seconds = 0.0
        self.rest_seconds = 0.0

    def add(self, contribution: Contribution, seconds: float) -> None:
        """Count one step that took so long."""
        self.steps += 1
        verdict = "applied" if contribution.applied else "dropped"
        self.gradients.update(("computed", verdict))
        self.samples.update({"computed": contribution.samples, verdict: contribution.samples})
        self.seconds += seconds
        known = not math.isnan(self.loss)
        self.loss = (
            LOSS_DECAY * self.loss + (1 - LOSS_DECAY) * contribution.loss if known else contribution.loss
        )

    def counters(self) -> Counters:
        """Return what a replica's heartbeat would carry: nothing waits here, and nothing is stale."""
        return Counters(
            dict(self.gradients),
            dict(self.samples),
            {0: self.gradients["applied"]} if self.gradients["applied"] else {},
            {0: self.steps} if self.steps else {},
            {"compute": self.seconds, "rest": self.rest_seconds},
            self.loss,
        )


def _shaped(state: Mapping[str, Array], value: Array) -> dict[str, Array]:
    return {name: array.reshape(value.shape) for name, array in state.items()}
