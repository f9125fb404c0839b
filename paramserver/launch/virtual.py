"""A job in virtual time, in this process: what a real run leaves in its folder, a simulated one leaves, too.

To the next editor: virtual seconds come from the simulation and go into every file; the wall clock of this
machine only paces the display, and says in the summary how long the simulation took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from paramserver.accounting import merge_counters
from paramserver.errors import JobError
from paramserver.events import JobStatus, Score
from paramserver.launch.interruption import Interrupted, Interruption
from paramserver.launch.judge import judge
from paramserver.launch.plan import Exercise, Plan, machines_of
from paramserver.launch.progress import Moment, Reporter
from paramserver.launch.virtual_record import notes_of, summarise_virtual, write_checkpoint
from paramserver.rows import Gradients
from paramserver.sim import Machines, Run, Simulation, Task, Watch, World
from paramserver.storage import MetricsWriter, RunFolder
from paramserver.training import Step
from paramserver.types import Tensors

NANOSECONDS = 1_000_000_000

TRACE_MAX = 200_000
"""Records of a trace that are kept, the newest: some 40 MB of JSON, which Perfetto opens in seconds."""

LOOKS_LEAST, LOOKS_MOST = 20, 100
"""How often the weights are judged in a run: once an epoch, within what makes a curve."""

REDRAW_SECONDS = 0.1
"""Of real time between two looks at the progress."""

LOSS_DECAY = 0.99
"""The training loss that is shown is a moving average over some hundred steps of all replicas."""


def run_virtual(
    plan: Plan, world: World, folder: RunFolder, interruption: Interruption, reporter: Reporter
) -> dict[str, Any]:
    """Run a job in virtual time, and return its summary.

    Args:
        plan: the job.
        world: costs and faults.
        folder: where world, metrics, checkpoint and trace go; if the run fails, its summary, too.
        interruption: entered; looked at before each gradient and every few thousand events.
        reporter: shows progress.

    Raises:
        JobError: the job failed, in the world or out of it.
        Interrupted: a signal came.
    """
    folder.write_text("world.toml", world.to_toml())
    with folder.open_metrics() as metrics:
        virtual = _Virtual(plan, world, metrics, interruption, reporter)
        try:
            run = virtual.simulation.run()
            if run.reason:
                raise JobError(run.reason)
        except (JobError, Interrupted):
            virtual.leave(folder, has_finished=False)
            raise
        return virtual.leave(folder, has_finished=True)


class _Virtual:
    """One simulation, and whoever looks at it.

    Attributes:
        simulation: yet to be run.
    """

    def __init__(
        self,
        plan: Plan,
        world: World,
        metrics: MetricsWriter,
        interruption: Interruption,
        reporter: Reporter,
    ) -> None:
        self._plan, self._world, self._metrics = plan, world, metrics
        self._interruption, self._reporter = interruption, reporter
        self._began = self._next_display = time.monotonic()
        self._steps = self._samples = 0
        self._loss = math.nan
        self._judged = -1
        self._accuracy: float | None = None
        self._gap = max(1.0, plan.spec.versions_total / _looks(plan))
        self._first_ns = max(1_000_000, round(world.compute.law.mean))
        self.simulation = Simulation(
            world,
            machines_of(plan.job),
            plan.spec,
            task_of(plan, machines_of(plan.job), self._counted),
            trace_max=TRACE_MAX if plan.job.trace else 0,
            keep_steps=False,
            watch=Watch(self._first_ns, self._look, self._next_look),
            keeps=plan.job.durability != "none",
            check=self._check,
        )

    def leave(self, folder: RunFolder, has_finished: bool) -> dict[str, Any]:
        """Write everything but the summary of a run that has finished, and return that."""
        run = self.simulation.result()
        self._note_progress(run.status)
        status = self._judge_at_the_end(run) if has_finished else run.status
        write_checkpoint(folder, run)
        folder.write_text("logs/world.log", "".join(f"{note}\n" for note in notes_of(run)))
        if self._plan.job.trace:
            (folder.path / "trace.json").write_bytes(run.chrome_trace())
        summary = summarise_virtual(run, status, self._world, time.monotonic() - self._began)
        if not has_finished:
            folder.write_json("summary.json", summary)
        return summary

    def _counted(self, step: Step[Any]) -> Step[Any]:
        """Return the same work, looked at."""
        trains = not (isinstance(self._plan, Exercise) and self._plan.problem.solution is None)

        def gradient(values: Mapping[str, Any], batch: Any) -> tuple[float, Gradients, int]:
            self._check()
            loss, gradients, samples = step.gradient(values, batch)
            self._steps += 1
            self._samples += samples
            known = not math.isnan(self._loss)
            if trains:
                self._loss = LOSS_DECAY * self._loss + (1 - LOSS_DECAY) * loss if known else loss
            return loss, gradients, samples

        return replace(step, gradient=gradient)

    def _check(self) -> None:
        self._interruption.check()
        now = time.monotonic()
        if now < self._next_display:
            return
        self._next_display = now + REDRAW_SECONDS
        self._reporter.update(
            Moment(
                fraction=min(1.0, self._steps / sum(self._plan.steps)),
                samples=self._samples,
                loss=self._loss,
                accuracy=self._accuracy,
                virtual_seconds=self.simulation.now_ns / NANOSECONDS,
            )
        )

    def _look(self, weights: Tensors, version: int, rounds: int) -> Score | None:
        """Judge the weights as they are at this instant."""
        self._note_progress(self.simulation.status())
        if version == self._judged:
            return None
        self._judged = version
        return self._judge(weights, "validation", version, rounds)

    def _next_look(self, now: int, version: int) -> int:
        """Return when, at the present speed, the weights have got on by as much as lies between two looks."""
        began = self.simulation.began_ns
        passed = now - (0 if began is None else began)
        if version == 0:
            return now + max(passed, self._first_ns)
        # A slow beginning says little about the speed: the next look is at most as far off as the start.
        return now + max(1, min(round(passed * self._gap / version), max(passed, self._first_ns)))

    def _judge(self, weights: Tensors, split: str, version: int, rounds: int) -> Score | None:
        rounds = rounds if self._plan.job.consistency == "sync" else -1
        judged = judge(self._plan, weights, split, version, rounds)
        if judged is not None:
            self._accuracy = judged.accuracy
            self._metrics.append({"kind": "score", "seconds": self._seconds(), **asdict(judged)})
        return judged

    def _judge_at_the_end(self, run: Run) -> JobStatus:
        """Return how the job stands, with the scores of the final weights."""
        version, rounds = max(run.versions), run.status.rounds
        splits = ["test"] if version == self._judged else ["validation", "test"]
        found = [self._judge(run.weights, split, version, rounds) for split in splits]
        scores = (*run.status.scores, *(score for score in found if score is not None))
        return replace(run.status, scores=scores)

    def _note_progress(self, status: JobStatus) -> None:
        total = merge_counters(member.counters for member in status.members)
        self._metrics.append(
            {
                "kind": "progress",
                "seconds": self._seconds(),
                "rounds": status.rounds,
                "clocks": [member.clock for member in status.members],
                "gradients": dict(total.gradients),
                "samples": dict(total.samples),
                "loss": total.loss,
            }
        )

    def _seconds(self) -> float:
        """Return the virtual seconds since training began."""
        began = self.simulation.began_ns
        return 0.0 if began is None else (self.simulation.now_ns - began) / NANOSECONDS


def _looks(plan: Plan) -> int:
    """Return how often the weights are to be judged."""
    if isinstance(plan, Exercise):
        return LOOKS_MOST
    epochs = max(plan.job.epochs, LOOKS_LEAST)
    # Where a target ends the job, its end is found to the epoch, as in the plain loop.
    return epochs if plan.job.target_accuracy else min(epochs, LOOKS_MOST)


def task_of(
    plan: Plan, machines: Machines, counted: Callable[[Step[Any]], Step[Any]] = lambda step: step
) -> Task:
    """Return what the replicas of a plan do in virtual time.

    Args:
        plan: the job.
        machines: who takes part.
        counted: puts something around the work of each rank.
    """
    if isinstance(plan, Exercise):
        task = plan.problem.task(plan.job.steps, machines)
        return replace(task, step=lambda rank: counted(plan.problem.step(rank)))
    return Task(
        plan.steps,
        lambda rank: counted(plan.step(rank)),
        plan.initial,
        dealt_step=lambda rank, next_part: counted(plan.step(rank, next_part)),
    )
