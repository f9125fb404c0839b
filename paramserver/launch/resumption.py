"""Going on with a run that ended before its last step, from its newest checkpoint.

The servers find that checkpoint themselves. Here it is found out, before any of them is started, whether
they will, and whoever wants it is told.
"""

from __future__ import annotations

from pathlib import Path

from paramserver.errors import Fault, RequestError
from paramserver.launch.outcome import read_summary
from paramserver.launch.plan import Plan
from paramserver.launch.progress import Reporter
from paramserver.storage import (
    RunFolder,
    has_job_record,
    newest_checkpoint,
    read_job_record,
    read_kept,
    reopen_run_folder,
)


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
    except BaseException:
        folder.close()
        raise
    for problem in problems:
        reporter.note(f"{problem} The checkpoint before it is used.")
    done, steps = sum(kept.clocks.values()), sum(plan.steps)
    reporter.note(f"The run goes on from checkpoint {number}, which has {done:,} of {steps:,} steps.")
    folder.remove("summary.json")  # it tells of an end that is none any more
    return folder


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
