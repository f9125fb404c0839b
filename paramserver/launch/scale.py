"""One job with more and more workers in virtual time, and what is left behind."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from paramserver.consistency import parse_consistency
from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.launch.interruption import Interruption
from paramserver.launch.judge import judge
from paramserver.launch.plan import Exercise, Plan, machines_of, make_plan
from paramserver.launch.virtual import task_of
from paramserver.scaling import Exertion, Point, measure
from paramserver.scaling.page import as_mapping, charts, page
from paramserver.sim import World
from paramserver.storage import RunFolder
from paramserver.user_code import UserCode

WORKER_STEPS = 10_000
"""Steps of all replicas together where none are given: some seconds for each number of workers."""

STEPS_LEAST = 3
"""Steps of each replica where none are given: with fewer the beginning would be most of it."""

STEPS_MOST = 1000
"""Steps of each replica where none are given: the chance in one worker's time, to which all speed-ups are
taken, is then some per cent."""


@dataclass(frozen=True)
class Scaling:
    """What is to be done.

    Attributes:
        job: whose number of workers is replaced; its engine is ``sim``.
        counts: numbers of workers, ascending.
        world: costs and faults.
        code: the user's file, if the job has one.
    """

    job: Job
    counts: Sequence[int]
    world: World
    code: UserCode | None = None

    @property
    def what(self) -> str:
        """What is run, as a phrase."""
        job = self.job
        trained = job.problem or f"{job.model} on {job.data}"
        return (
            f"{trained}, {job.consistency}, {job.servers} x {job.shards} shards, {job.threads} "
            f"thread{'s' * (job.threads > 1)} each"
        )


def scale(scaling: Scaling, on_point: Callable[[Point], object] = lambda point: None) -> list[Point]:
    """Run every number of workers, and one worker first, to which speed-ups are taken.

    Args:
        scaling: what is to be done.
        on_point: called with each point.

    Returns:
        The points; the first is that of one worker, wanted or not.

    Raises:
        RequestError: the job or the world cannot be; nothing has run.
        JobError: a run failed.
        Interrupted: a signal came.
    """
    counts = sorted({1, *scaling.counts})
    if scaling.world.faults.blows:
        raise RequestError(
            "What befalls a worker at a time means another thing with each number of workers. Leave "
            "crashes, pauses, partitions, joins and leaves out of --faults."
        )
    plans = {count: _plan(scaling, count) for count in (counts[0], counts[-1])}
    points = []
    with Interruption() as interruption:
        for count in counts:
            plan = plans.get(count) or _plan(scaling, count)
            point = measure(_exertion(plan, scaling.world, interruption.check))
            points.append(point)
            if count in scaling.counts:
                on_point(point)
    return points


def leave(scaling: Scaling, points: Sequence[Point], command: Sequence[str], folder: RunFolder) -> None:
    """Write ``scale.json``, ``scale.svg``, ``scale.html``, the job and the world.

    Args:
        scaling: what was done.
        points: as `scale` returned them.
        command: that did it, as words.
        folder: where to.
    """
    one, shown = points[0], [point for point in points if point.workers in scaling.counts]
    files = {"job.toml": scaling.job.to_toml(), "world.toml": scaling.world.to_toml()}
    for name, text in files.items():
        folder.write_text(name, text)
    told = {"what": scaling.what, "job": asdict(scaling.job), "command": shlex.join(command)}
    folder.write_json("scale.json", {**told, **as_mapping(shown, one)})
    folder.write_text("scale.svg", charts(shown, one, scaling.what)["speed-up"])
    folder.write_text("scale.html", page(shown, one, scaling.what, files, shlex.join(command)))


def _plan(scaling: Scaling, workers: int) -> Plan:
    job = replace(scaling.job, workers=workers)
    if job.problem and not job.steps:
        job = replace(job, steps=max(STEPS_LEAST, min(STEPS_MOST, WORKER_STEPS // job.replicas)))
    return make_plan(job, scaling.code, scaling.world)


def _exertion(plan: Plan, world: World, check: Callable[[], None]) -> Exertion:
    job = plan.job
    machines = machines_of(job)
    spec = plan.spec
    has_target = job.target_accuracy > 0
    enough = 0
    if isinstance(plan, Exercise) and not has_target and not parse_consistency(job.consistency).gathers:
        # The fast ones must not run out of steps before all together have made as many as were asked for.
        enough = job.steps * machines.replicas
        plan = replace(plan, job=replace(job, steps=8 * job.steps + 50))
    return Exertion(
        world,
        machines,
        spec,
        task_of(plan, machines),
        enough,
        (lambda weights, version, rounds: judge(plan, weights, "validation", version, rounds))
        if has_target
        else None,
        check,
    )
