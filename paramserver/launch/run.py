"""One run from a job to its summary, whatever the engine."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramserver.chaos.plan import Asked
from paramserver.chaos.plan import Plan as Faults
from paramserver.errors import JobError, RequestError
from paramserver.job import Job
from paramserver.launch.cluster import check_cluster, run_cluster
from paramserver.launch.interruption import Interrupted, Interruption
from paramserver.launch.local import run_processes
from paramserver.launch.loop import run_loop
from paramserver.launch.outcome import read_summary
from paramserver.launch.plan import Exercise, Plan, make_plan
from paramserver.launch.programs import PROGRAMS, command
from paramserver.launch.progress import Reporter, Silence, count
from paramserver.launch.record import describe
from paramserver.launch.resumption import reopen
from paramserver.launch.telemetry import Telemetry
from paramserver.launch.virtual import run_virtual
from paramserver.launch.virtual_record import replay_command
from paramserver.sim import World
from paramserver.storage import RunFolder, create_run_folder
from paramserver.user_code import UserCode


class Bug(Exception):  # noqa: N818 - the name says what it is
    """Something failed that should not be able to; the message says where the traceback is.

    Attributes:
        is_written: there is such a place.
    """

    is_written = True


def run(
    job: Job,
    out: Path | None = None,
    reporter: Reporter | None = None,
    code: UserCode | None = None,
    world: World | None = None,
    telemetry: Telemetry | None = None,
    chaos: Asked | None = None,
    resume: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run a job on this machine, to its end.

    Blocks as long as the job takes. Only the main thread can call this, since it listens to signals.

    Args:
        job: what to train, and how.
        out: the run folder, new or empty; None: one with the time as its name in ``runs``.
        reporter: shows progress; None: nobody.
        code: the user's file, if the job has one.
        world: costs and faults, for the engine ``sim`` and for no other.
        telemetry: what the processes of the engine ``local`` tell; None: the usual.
        chaos: what goes wrong with them on purpose; None: nothing.
        resume: the folder of a run to go on with, in place of `out`; None: a new run.

    Returns:
        The summary, and the run folder.

    Raises:
        RequestError: the input is wrong; nothing was started.
        JobError: the job failed; the summary in the run folder says so, too.
        Interrupted: a signal came.
        Bug: neither is to blame, but this program.
    """
    reporter = reporter or Silence()
    # Nothing has to be ended yet, so a signal may strike here, also in code of the user's that never returns.
    telemetry = telemetry or Telemetry()
    plan = make_plan(job, code, world)
    telemetry.check(plan.job)
    faults = None if chaos is None else chaos.plan(plan.job)
    with Interruption() as interruption:
        for program in PROGRAMS:
            command(program)
        if plan.job.engine == "compose":
            check_cluster(plan.job)
        interruption.check()
        try:
            if resume is None:
                opened = create_run_folder(out, time.time())
            else:
                opened = reopen(resume, plan, reporter)
            with opened as folder:
                ways = _Ways(world, interruption, reporter, telemetry, faults, resume is not None)
                return _run(plan, folder, ways), folder.path
        finally:
            reporter.close()


@dataclass(frozen=True)
class _Ways:
    """How a plan is run."""

    world: World | None
    interruption: Interruption
    reporter: Reporter
    telemetry: Telemetry
    faults: Faults | None
    resumes: bool


def _run(plan: Plan, folder: RunFolder, ways: _Ways) -> dict[str, Any]:
    world, reporter = ways.world, ways.reporter
    started_at = time.time()
    folder.write_text("job.toml", plan.job.to_toml())
    reporter.note(_opening(plan, folder))
    if ways.faults is not None:
        folder.write_json("chaos.json", ways.faults.record())
        for sentence in ways.faults.sentences():
            reporter.note(sentence)
    details = {**describe(plan, started_at), "resumed": ways.resumes}
    if world is not None:
        details["replay"] = replay_command(plan, world, folder)
    try:
        summary = _run_engine(plan, folder, ways)
    except (JobError, RequestError, Interrupted) as error:
        outcome = "interrupted" if isinstance(error, Interrupted) else "failed"
        summary = {**read_summary(folder), **details, "outcome": outcome, "reason": str(error)}
        with suppress(JobError):  # why the job ended matters more than that there is no room to write it
            folder.write_json("summary.json", summary)
        if isinstance(error, Interrupted):
            raise
        if "replay" in details:
            raise JobError(f"{error} To see it again: {details['replay']}") from error
        if isinstance(error, RequestError):
            raise JobError(str(error)) from error
        raise
    except BrokenPipeError:
        raise  # nobody reads the output any more
    except Exception as error:
        log = folder.write_text("logs/launcher.log", traceback.format_exc())
        raise Bug(
            f"This is a bug in paramserver ({type(error).__name__}). The details are in {log}."
        ) from error
    summary |= details
    folder.write_json("summary.json", summary)
    return summary


def _run_engine(plan: Plan, folder: RunFolder, ways: _Ways) -> dict[str, Any]:
    interruption, reporter = ways.interruption, ways.reporter
    if ways.world is not None:
        return run_virtual(plan, ways.world, folder, interruption, reporter)
    assert not isinstance(plan, Exercise), "a problem is for virtual time"
    if plan.job.engine == "local":
        return run_processes(
            plan, folder, interruption, reporter, ways.telemetry, ways.faults, resumes=ways.resumes
        )
    if plan.job.engine == "compose":
        return run_cluster(plan, folder, interruption, reporter, ways.telemetry)
    return run_loop(plan, folder, interruption, reporter)


def _opening(plan: Plan, folder: RunFolder) -> str:
    job = plan.job
    if job.engine == "sequential":
        where = f"{job.replicas} replicas in one plain loop"
    else:
        where = (
            f"{count(job.workers, 'worker')} x {count(job.threads, 'thread')}, "
            f"{count(job.servers, 'server')} x {count(job.shards, 'shard')}"
        )
    what = (
        f"{plan.problem.name}"
        if isinstance(plan, Exercise)
        else f"{plan.model.spec} on {plan.splits.train.name}"
    )
    does = "Simulating" if job.engine == "sim" else "Training"
    return f"{does} {what}, {job.consistency}: {where}.\nThe run folder is {folder.path}."
