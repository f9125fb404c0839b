"""Going on with a run that ended before its last step, from its newest checkpoint.

The servers find that checkpoint themselves. Here it is found out, before any of them is started, whether
they will, and whoever wants it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from paramserver.consistency import parse_consistency
from paramserver.errors import Fault, RequestError
from paramserver.events import JobEnded, Kept
from paramserver.launch.outcome import read_summary
from paramserver.launch.plan import Plan
from paramserver.launch.progress import Reporter
from paramserver.storage import (
    RunFolder,
    checkpoint_folder,
    has_job_record,
    load_manifest,
    newest_checkpoint,
    read_job_record,
    read_kept,
    read_metrics,
    remove_partial,
    remove_unfinished,
    reopen_run_folder,
)
from paramserver.storage.journal import read_decisions

METRICS = "metrics.jsonl"


def reopen(run: Path, plan: Plan, reporter: Reporter) -> RunFolder:
    """Hold the folder of a run that is to go on, and say from where.

    Args:
        run: the folder.
        plan: of its job.
        reporter: told which checkpoint is taken, and which cannot be.

    Raises:
        RequestError: the run has finished, is still going on, has nothing to go on from, or was another job.
    """
    folder = reopen_run_folder(run)
    try:
        _check(folder, plan)
        number, problems = newest_checkpoint(run, read_job_record(run))
        kept = read_kept(run, number)
        after = _what_came_after(folder, plan, kept)
    except BaseException:
        folder.close()
        raise
    for problem in problems:
        reporter.note(f"{problem} The checkpoint before it is used.")
    done, steps = sum(kept.clocks.values()), sum(plan.steps)
    reporter.note(f"The run goes on from checkpoint {number}, which has {done:,} of {steps:,} steps.{after}")
    folder.remove("summary.json")  # it tells of an end that is none any more
    remove_unfinished(run)
    for place in (run, folder.checkpoint):
        remove_partial(place)
    return folder


def _what_came_after(folder: RunFolder, plan: Plan, kept: Kept) -> str:
    """Say what becomes of the steps that were done after a checkpoint was made; empty if there were none."""
    manifest = load_manifest(checkpoint_folder(folder.path, kept.checkpoint))
    decided = read_decisions(folder.path) if plan.job.has_journal else None
    ended = decided is not None and any(
        isinstance(each.order, JobEnded) and each.order.reason for each in decided[1]
    )
    if decided is not None and not ended and len(manifest.files) == plan.job.servers * plan.job.shards:
        return " What came after it is in its journal."
    undone = _steps_done(folder, plan) - _steps(plan, kept.rounds, kept.clocks.values())
    return f" What came after it, about {undone:,} steps, is done again." if undone > 0 else ""


def _steps_done(folder: RunFolder, plan: Plan) -> int:
    """Return how many steps had been done when the run was heard of last."""
    with suppress(RequestError):
        for line in reversed(read_metrics(folder.path / METRICS)):
            if line.get("kind") == "progress":
                return _steps(plan, line["rounds"], line["clocks"])
    return 0


def _steps(plan: Plan, rounds: int, clocks: Iterable[int]) -> int:
    """Count steps; in a round that is open none is done."""
    gathers = parse_consistency(plan.spec.consistency).gathers
    return sum(min(clock, rounds) if gathers else clock for clock in clocks)


def _check(folder: RunFolder, plan: Plan) -> None:
    run = folder.path
    if plan.job.engine != "local":
        raise RequestError(
            f"Only a run of the engine 'local' can go on, and that of {run} is '{plan.job.engine}'. Its seed "
            "gives the same run again.",
            Fault.PRECONDITION,
        )
    if read_summary(folder).get("outcome") == "finished":
        raise RequestError(
            f"The run in {run} has finished, so there is nothing to go on with. Its figures are in "
            f"{run / 'summary.json'}.",
            Fault.PRECONDITION,
        )
    if not has_job_record(run):
        raise RequestError(
            f"The run in {run} ended before its first checkpoint was made (or was told --durability none), "
            "so there is nothing to go on from. Train anew, with another --out.",
            Fault.PRECONDITION,
        )
    record = read_job_record(run)
    if record.over:
        raise RequestError(
            f"The run in {run} had done its last step, so there is nothing to go on with. Its weights are in "
            f"{folder.checkpoint}.",
            Fault.PRECONDITION,
        )
    if differences := plan.spec.differences(record.job):
        raise RequestError(
            f"The run in {run} was another job than its job file gives now (now != then): "
            f"{'; '.join(differences[:3])}. Have its data and its code changed since?",
            Fault.PRECONDITION,
        )
