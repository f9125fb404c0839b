"""The summary of a run, as a folder keeps it: made of how the job stood at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from paramserver.accounting import (
    GRADIENT_NAMES,
    SAMPLE_NAMES,
    account,
    clock_gap_bound,
    decided,
    merge_counters,
    shares,
    staleness_bound,
)
from paramserver.events import Counters, JobStatus, Score, Visits

EPOCHS_NAMED_MAX = 100
"""Of how many epochs that not every sample was seen in, or some twice, a summary says so."""

EIGHTHS = 8
"""A summary's percentages are whole eighths: binary floats hold them exactly, so that they sum to 100.0."""


def summarise(
    status: JobStatus,
    versions: Sequence[int],
    *,
    weights_sha256: str,
    wall_seconds: float,
    engine: str = "local",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the summary of a run, as JSON values.

    Args:
        status: how the job stands at its end; the counters of its members and its scores are summed up.
        versions: of each shard, in shard order.
        weights_sha256: of the final weights, as `paramserver.types.tensors_sha256` gives it.
        wall_seconds: from the moment when all had joined (or the loop began) to the last step.
        engine: ``local`` or ``sequential``.
        extra: further keys, which win over those made here: such as ``started_at``.

    Returns:
        A dictionary that `paramserver.storage.write_json` takes. ``accuracy`` and ``loss`` are those of the
        newest test score, null where there is none.
    """
    members = status.members
    total = merge_counters(member.counters for member in members)
    notes = [
        f"Replica {member.replica.rank} ({member.name}) accounts for more {what} than it computed."
        for member in members
        for what, counts in (("gradients", member.counters.gradients), ("samples", member.counters.samples))
        if decided(counts) > counts.get("computed", 0)
    ]
    job = status.job
    notes += _early_end(status)
    consistency = job.consistency if job else ""
    replicas = job.replicas if job else len(members)
    bound = clock_gap_bound(consistency)
    test, validation = _scores(status, "test"), _scores(status, "validation")
    samples = account(total.samples, SAMPLE_NAMES)
    summary: dict[str, Any] = {
        "outcome": "failed" if status.reason else "finished",
        "reason": status.reason,
        "engine": engine,
        "model": job.model if job else "",
        "consistency": consistency,
        "replicas": replicas,
        "servers": len(status.servers),
        "optimizer": job.optimizer if job else "",
        "learning_rate": job.learning_rate if job else None,
        "schedule": job.schedule if job else "",
        "learning_rate_rule": learning_rate_rule(status),
        "seed": job.seed if job else None,
        "job_fingerprint": job.fingerprint() if job else "",
        "accuracy": test[-1]["accuracy"] if test else None,
        "loss": test[-1]["loss"] if test else None,
        "auc": test[-1]["auc"] if test else None,
        "training_loss": total.loss,
        "wall_seconds": wall_seconds,
        "samples_per_second": samples["applied"] / wall_seconds if wall_seconds > 0 else None,
        "versions": list(versions),
        "rounds": status.rounds,
        "generation": status.generation,
        "gradients": account(total.gradients, GRADIENT_NAMES),
        "samples": samples,
        "visits": visitation(status),
        "staleness": {**_distribution(total.staleness), "bound": staleness_bound(consistency, replicas)},
        "clock_gap": {**_distribution(total.clock_gap), "bound": bound},
        "time_budget": _time_budget(status),
        "weights_sha256": weights_sha256,
        "validation": validation,
        "notes": notes,
    }
    return summary | dict(extra or {})


def visitation(status: JobStatus) -> dict[str, Any] | None:
    """Say of how many samples a gradient was applied, over all epochs of a job.

    Returns:
        ``share`` is ``seen`` over ``samples``, which is those of all epochs: 1.0 exactly where none was left
        out. ``unseen`` are the others, ``refused`` those among them whose gradient was dropped, ``repeated``
        those that were done again after the weights went back to a checkpoint. ``epochs`` names the epochs
        where one of these is not 0, the newest hundred of them. None where replicas chose their own samples.
    """
    job, visits = status.job, status.visits
    if job is None or not visits:
        return None
    samples, seen = job.epochs * visits[0].samples, sum(one.seen for one in visits)
    return {
        "epochs_begun": len(visits),
        "samples": samples,
        "seen": seen,
        "share": seen / samples,
        "unseen": samples - seen,
        "refused": sum(one.refused for one in visits),
        "repeated": sum(one.repeated for one in visits),
        "epochs": [visits_record(one) for one in visits if one.unseen or one.repeated][-EPOCHS_NAMED_MAX:],
    }


def visits_record(visits: Visits) -> dict[str, int | float]:
    """Return what became of one epoch's samples, as JSON values."""
    return {
        "epoch": visits.epoch,
        "samples": visits.samples,
        "seen": visits.seen,
        "share": visits.seen / visits.samples,
        "unseen": visits.unseen,
        "refused": visits.refused,
        "repeated": visits.repeated,
    }


def learning_rate_rule(status: JobStatus) -> str:
    """Say in a sentence what an update is made of and how far it goes; empty while there is no job."""
    job = status.job
    if job is None:
        return ""
    rate = f"{job.learning_rate:g}, constant"
    if job.schedule == "cosine":
        rate = f"{job.learning_rate:g}, by a cosine down to 0 over {job.versions_total} updates"
    elif job.schedule != "constant":
        rate = f"{job.learning_rate:g}, by the schedule {job.schedule} over {job.versions_total} updates"
    if job.consistency == "sync":
        gradient = "the mean of a round's gradients, weighted by their samples"
    else:
        gradient = "one replica's mean gradient, applied as it comes"
    return f"{job.optimizer}, learning rate {rate}; an update takes {gradient}."


def _early_end(status: JobStatus) -> list[str]:
    """Say why a job ended before its last step, if it did; gradients that were under way count as lost."""
    target = status.job.target_accuracy if status.job else 0.0
    reached = [
        score for score in status.scores if score.split == "validation" and score.accuracy >= target > 0
    ]
    if not reached or status.reason:
        return []
    first = reached[0]
    return [
        f"The job ended at version {first.version}, when the validation accuracy, {first.accuracy:.4f}, "
        f"reached the target {target:g}."
    ]


def _time_budget(status: JobStatus) -> dict[str, Any]:
    """Return, for each worker and in total, percent by phase, and the seconds that are 100 %."""
    by_worker: dict[str, list[Counters]] = {}
    for member in status.members:
        by_worker.setdefault(member.name.partition("/")[0], []).append(member.counters)
    merged = {worker: merge_counters(counters).seconds for worker, counters in by_worker.items()}
    total = merge_counters(member.counters for member in status.members).seconds
    return {
        "workers": {worker: _percent(merged[worker]) for worker in sorted(merged)},
        "total": _percent(total),
        "replica_seconds": math.fsum(total.values()),
    }


def _percent(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: units / EIGHTHS for phase, units in shares(seconds, 100 * EIGHTHS).items()}


def _distribution(histogram: Mapping[int, int]) -> dict[str, Any]:
    count = sum(histogram.values())
    return {
        "mean": sum(value * times for value, times in histogram.items()) / count if count else None,
        "max": max(histogram, default=None),
        "histogram": {str(value): histogram[value] for value in sorted(histogram)},
    }


def _scores(status: JobStatus, split: str) -> list[dict[str, Any]]:
    return [_score(score) for score in status.scores if score.split == split]


def _score(score: Score) -> dict[str, Any]:
    return {
        "version": score.version,
        "rounds": score.rounds,
        "loss": score.loss,
        "accuracy": score.accuracy,
        "auc": score.auc,
        "samples": score.samples,
    }
