"""What a job's coordinator has left in the run folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from paramserver.errors import JobError
from paramserver.events import Score
from paramserver.models import score
from paramserver.storage import RunFolder, read_checkpoint
from paramserver.workload import Workload


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """Read the summary that a coordinator has written; empty if there is none."""
    try:
        summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return summary


def complete(plan: Workload, folder: RunFolder) -> dict[str, Any]:
    """Return the summary, with a score of the checkpoint where the evaluator came too late to give one.

    Raises:
        JobError: there is no summary.
    """
    summary = read_summary(folder)
    if not summary:
        raise JobError(f"The coordinator left no summary. The logs are in {folder.logs}.")
    if summary.get("accuracy") is None:
        test, checkpoint = plan.splits.test, read_checkpoint(folder.checkpoint)
        found = score(plan.model, checkpoint.weights, test.inputs, test.labels)
        summary |= {"accuracy": found.accuracy, "loss": found.loss, "auc": found.auc}
        rounds = summary["rounds"] if plan.job.consistency == "sync" else -1
        version = max(checkpoint.versions)
        judged = Score("test", version, rounds, found.loss, found.accuracy, found.samples, found.auc)
        with folder.open_metrics() as metrics:
            metrics.append({"kind": "score", "seconds": summary["wall_seconds"], **asdict(judged)})
    return summary
