"""A job as processes on this machine: servers, workers and an evaluator, started, followed and ended."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from paramserver.chaos.plan import Plan
from paramserver.errors import JobError, RequestError
from paramserver.events import JobStatus, Standing
from paramserver.launch.addresses import remove_addresses, write_token
from paramserver.launch.blows import Blows
from paramserver.launch.children import Child, Children, names
from paramserver.launch.engine import start_all
from paramserver.launch.interruption import Interrupted, Interruption
from paramserver.launch.local_engine import EVALUATOR, LOOK_SECONDS, LocalEngine
from paramserver.launch.outcome import complete, read_summary
from paramserver.launch.processes import remove_processes
from paramserver.launch.programs import blas_environment
from paramserver.launch.progress import Reporter
from paramserver.launch.restarts import Restarts
from paramserver.launch.secrets import Secrets
from paramserver.launch.telemetry import Telemetry
from paramserver.launch.traces import Traces
from paramserver.storage import RunFolder
from paramserver.workload import Workload

if TYPE_CHECKING:
    from paramserver.launch.watch import Watch

POLL_SECONDS = 0.3

SETTLE_SECONDS = 5.0
"""Once something has failed, how long the others may take to say why: long enough for the coordinator to tell
everyone and to write its summary."""

FINISH_SECONDS = 420.0
"""From the job's end to that of its last process: the coordinator's 300 s for checkpoints, and the score."""

NOTICE_SECONDS = 3.0
"""Once the coordinator has ended, how long a process that was started again may take to end, too."""

SILENCE_SECONDS = 30.0
"""How much longer than it may take to come back the coordinator may leave questions unanswered."""

STANDSTILL_SECONDS = 60.0
"""How much longer than a step and a restart may take the job may stand still before it is given up."""


def run_processes(
    plan: Workload,
    folder: RunFolder,
    interruption: Interruption,
    reporter: Reporter,
    telemetry: Telemetry,
    chaos: Plan | None = None,
    *,
    resumes: bool = False,
) -> dict[str, Any]:
    """Run a job and return its summary; when this returns or raises, no process is left.

    Args:
        plan: the job.
        folder: where ``job.toml`` is, and where logs, checkpoint and summary go.
        interruption: entered.
        reporter: shows progress.
        telemetry: what the processes tell.
        chaos: what goes wrong on purpose; None for nothing.
        resumes: the job goes on with what is in the folder.

    Raises:
        JobError: the job failed, or one of its processes ended badly.
        Interrupted: a signal came.
    """
    traces = Traces(folder, plan.job.trace)
    restarts: Counter[str] = Counter()
    try:
        with Children(folder.logs, lambda: interruption.count > 1, telemetry.log_bytes_max) as children:
            launch = _Launch(
                plan, folder, children, traces, interruption, reporter, telemetry, chaos, resumes
            )
            restarts = launch.restarts.counts
            try:
                launch.start()
                launch.follow()
            finally:
                launch.end()
    except (JobError, Interrupted):
        with suppress(JobError, RequestError):  # why the job failed matters more
            traces.merge()
            folder.write_json("summary.json", read_summary(folder) | {"restarts": dict(restarts)})
        raise
    finally:
        remove_processes(folder)
    traces.merge()
    return complete(plan, folder) | {"restarts": dict(restarts)}


class _Launch:
    def __init__(
        self,
        plan: Workload,
        folder: RunFolder,
        children: Children,
        traces: Traces,
        interruption: Interruption,
        reporter: Reporter,
        telemetry: Telemetry,
        chaos: Plan | None,
        resumes: bool,
    ) -> None:
        self._blows = Blows(chaos, children, reporter)
        self._plan = plan
        self._folder = folder
        self._children = children
        self._interruption = interruption
        self._reporter = reporter
        self._secrets = Secrets()
        self._trouble = ""
        self._start_deadline = time.monotonic() + plan.job.start_timeout
        self._engine = LocalEngine(
            plan,
            folder,
            children,
            traces,
            telemetry,
            interruption,
            self._start_deadline,
            self._secrets,
            chaos,
            resumes=resumes,
        )
        self._over_at: float | None = None
        self.restarts = Restarts(plan.job, children, self._engine.restart, reporter.note)

    def start(self) -> None:
        """Start the coordinator, and once it listens all the others."""
        job = self._plan.job
        write_token(self._folder, self._secrets.token)
        start_all(self._engine, job.servers, job.workers, blas_environment(job.blas_threads))
        if self._engine.metrics:
            self._reporter.note(f"Metrics are served at {' and '.join(self._engine.metrics)}.")

    def follow(self) -> None:
        """Show how the job goes until every process has ended well.

        Raises:
            JobError: it does not go well.
            Interrupted: a signal came.
        """
        # Imported only now, and without its handlers of forks: processes are started beside it, and all that
        # these do is to become another program.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        from paramserver.launch.watch import Watch

        vigil = _Vigil(self._plan, self._start_deadline)
        with Watch(self._engine.address, access=self._secrets.access()) as watch:
            while self._awaited() or not self._is_over():
                self._interruption.wait(POLL_SECONDS)
                is_over = self._is_over()
                sighting = None if is_over else watch.ask()
                now = time.monotonic()
                if sighting is not None:
                    self._reporter.show(watch.overview(sighting))
                    vigil.see(sighting.job, now)
                    self._tell_of_trouble(sighting.job.trouble)
                self._blows.strike(now, vigil.trains)
                if is_over:
                    vigil.end(now)
                    self._tell_of_trouble("")  # the last one is kept, or the job would not be over
                    self._end_who_cannot_notice(vigil, now)
                elif vigil.reason or self._has_failed():
                    self._fail(watch, vigil)
                else:
                    self.restarts.look(vigil.status, now)
                    if self.restarts.final():
                        self._fail(watch, vigil)
                if complaint := vigil.complaint(time.monotonic()):
                    raise JobError(f"{complaint} Still running: {names(self._children.running())}.")

    def end(self) -> None:
        """Do nothing more to the processes, and say nothing more of where they are."""
        self._blows.end()
        remove_addresses(self._folder)

    def _tell_of_trouble(self, trouble: str) -> None:
        """Say what goes wrong although the training goes on, once, and when it is over."""
        if trouble and not self._trouble:
            self._reporter.note(trouble)
        elif self._trouble and not trouble:
            self._reporter.note("Checkpoints are kept again.")
        self._trouble = trouble

    def _is_over(self) -> bool:
        """Say whether the coordinator has finished the job: then all is done and written."""
        code = self._children.all[0].code
        return code == 0 or (code is not None and read_summary(self._folder).get("outcome") == "finished")

    def _has_failed(self) -> bool:
        """Say whether the coordinator has ended with the job's failure, and has written why."""
        return self._children.all[0].code == 1 and "outcome" in read_summary(self._folder)

    def _awaited(self) -> list[Child]:
        """Return the processes that run and should end by themselves.

        An evaluator that finds its coordinator gone looks for it for some seconds; it is not waited for.
        """
        is_gone = self._is_over() or self._has_failed()
        return [child for child in self._children.running() if not (is_gone and child.name == EVALUATOR)]

    def _end_who_cannot_notice(self, vigil: _Vigil, now: float) -> None:
        """End who would not notice that the job is over: the dead, and who was started again too late."""
        self._over_at = now if self._over_at is None else self._over_at
        members = vigil.status.members if vigil.status is not None else ()
        dead = {member.name.partition("/")[0] for member in members if member.standing is Standing.DEAD}
        for child in self._children.running():
            if child.name.replace(" ", "") in dead:
                child.signal(signal.SIGKILL)
            elif self.restarts.counts[child.name] and now >= self._over_at + NOTICE_SECONDS:
                child.stop()

    def _fail(self, watch: Watch, vigil: _Vigil) -> None:
        """Let the others say why, and end with the best sentence there is."""
        first = self.restarts.final()[:1]
        was_killed = bool(first) and (first[0].code or 0) < 0
        deadline = time.monotonic() + SETTLE_SECONDS
        # Of what was killed from outside, nobody else knows more.
        while self._awaited() and time.monotonic() < deadline and not was_killed:
            if not vigil.reason and (sighting := watch.ask()) is not None:
                vigil.see(sighting.job, time.monotonic())
            self._interruption.wait(LOOK_SECONDS)
        if self._is_over():
            return
        reason = vigil.reason or read_summary(self._folder).get("reason")
        if reason and not was_killed:
            raise JobError(reason)
        ending = self.restarts.epitaph((first or self._children.all)[0])
        raise JobError(f"{ending} The logs are in {self._folder.logs}.")


class _Vigil:
    """The deadlines of a job that is under way.

    Attributes:
        status: the newest that the coordinator gave.
    """

    def __init__(self, plan: Workload, start_deadline: float) -> None:
        self._job = plan.job
        self._start_deadline = start_deadline
        self._heard: float | None = None
        self._clocks: list[int] = []
        self._moved = start_deadline
        self._ended: float | None = None
        self.status: JobStatus | None = None

    @property
    def reason(self) -> str:
        """Return why the job failed, by the coordinator; empty if it did not."""
        return self.status.reason if self.status is not None else ""

    @property
    def trains(self) -> bool:
        """Say whether training has begun."""
        return self.status is not None and self.status.started and self.status.sealed

    def see(self, status: JobStatus, now: float) -> None:
        """Take in an answer of the coordinator."""
        if self.status is not None and status.generation > self.status.generation:
            # It may have to begin anew, and then everybody has as much time again.
            self._start_deadline = now + self._job.start_timeout
        self.status, self._heard = status, now
        clocks = [member.clock for member in status.members]
        if clocks != self._clocks:
            self._clocks, self._moved = clocks, now
        if status.ended:
            self.end(now)
        else:
            self._ended = None  # a server was lost before all was written, so the job goes on

    def end(self, now: float) -> None:
        """Take in that the job is over."""
        if self._ended is None:
            self._ended = now

    def complaint(self, now: float) -> str:
        """Return which deadline has passed, as a sentence; empty if none has."""
        job, status = self._job, self.status
        if self._ended is not None:
            late = now > self._ended + FINISH_SECONDS
            return f"The job was over, but not all had ended {FINISH_SECONDS:g} s later." if late else ""
        if status is None or not self.trains:
            if now < self._start_deadline:
                return ""
            joined = 0 if status is None else len(status.members)
            return (
                f"Only {joined} of {job.replicas} replicas were ready within {job.start_timeout:g} s. "
                "Give more --start-timeout, or fewer workers."
            )
        patience = job.lease_seconds + job.restart_timeout
        if self._heard is not None and now > self._heard + patience + SILENCE_SECONDS:
            return f"The coordinator has not answered for {now - self._heard:.0f} s."
        if now > self._moved + job.step_timeout + patience + STANDSTILL_SECONDS:
            return f"No replica has finished a step for {now - self._moved:.0f} s."
        return ""
