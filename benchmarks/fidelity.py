"""Predicted beside measured: the same jobs in a calibrated world and as real processes on this machine.

The world is measured with one replica against one shard (``paramserver calibrate``), which is none of the
cells: those have two shards for each server, and most of them more replicas and servers. Nothing is fitted to
them. A round runs every cell once, so that a slow quarter of an hour of the machine falls on all cells.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks import real_run
from paramserver.calibration import busy_elsewhere, measure, world_file
from paramserver.job_file import read_job
from paramserver.launch.plan import make_plan
from paramserver.sim import Machines, Simulation, Task, World, parse_compute, parse_network
from paramserver.sim.estimate import estimate
from paramserver.summary import summarise
from paramserver.training import Step
from paramserver.workload import Workload

RULES = ("sync", "async", "ssp:2")
RUNS = 5
CALIBRATION_SECONDS = 20.0
TRAIN_SECONDS = 6.0
"""About how long a run trains: starting and joining take another two."""

STEP_BAND, STALENESS_BAND, WAIT_BAND = 0.15, 0.2, 10.0
"""Of step time and samples/s as a share, of staleness in versions (or 15 %), of wait share in points."""

LINK_MBIT = 80
SLOW = 3

KINDS = {
    "CPU-bound": {"PADDING_MS": "0", "PADDING_HIDDEN": "512,256"},
    "padded": {"PADDING_MS": "20", "PADDING_HIDDEN": "128"},
}
"""What the replicas compute, as variables of ``padded.py``."""


@dataclass(frozen=True)
class Cell:
    """One arrangement."""

    kind: str
    rule: str
    servers: int
    replicas: int
    slow: bool = False
    link: bool = False

    @property
    def name(self) -> str:
        """Return what it is called in the table."""
        servers = "1 server" if self.servers == 1 else f"{self.servers} servers"
        replicas = "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"
        more = f", one slowed {SLOW}x" * self.slow + f", one behind {LINK_MBIT} Mbit/s" * self.link
        return f"{self.rule}, {servers}, {replicas}{more}"


@dataclass(frozen=True)
class Figures:
    """What a run, real or simulated, comes to.

    Attributes:
        step_ms: of one replica, on average.
        samples: per second, all replicas together.
        staleness: mean, in versions.
        wait: percent of the replicas' time.
    """

    step_ms: float
    samples: float
    staleness: float
    wait: float


@dataclass
class Row:
    """A cell with what was predicted and what was measured."""

    cell: Cell
    predicted: Figures
    measured: list[Figures] = field(default_factory=list)
    skipped: str = ""

    def median(self, name: str) -> float:
        """Return the median of a figure."""
        return statistics.median(getattr(figures, name) for figures in self.measured)

    def spread(self, name: str) -> float:
        """Return the interquartile spread of a figure; 0 where there are too few runs."""
        values = [getattr(figures, name) for figures in self.measured]
        if len(values) < 3:
            return 0.0
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return high - low

    def misses(self) -> list[str]:
        """Return what lies outside its band."""
        found = []
        for name, title in (("step_ms", "step time"), ("samples", "samples/s")):
            middle = self.median(name)
            if abs(getattr(self.predicted, name) - middle) > max(STEP_BAND * middle, 2 * self.spread(name)):
                found.append(title)
        middle = self.median("staleness")
        if abs(self.predicted.staleness - middle) > max(STEP_BAND * middle, STALENESS_BAND):
            found.append("staleness")
        if abs(self.predicted.wait - self.median("wait")) > WAIT_BAND:
            found.append("wait share")
        return found


@dataclass(frozen=True)
class Result:
    """All that a page is made of.

    Attributes:
        rows: one for each cell.
        worlds: the world file of each kind of job.
        busy: how many cores other programs used before each run, where that is known.
    """

    rows: list[Row]
    worlds: dict[str, str]
    busy: list[float]


def cells(quick: bool) -> list[Cell]:
    """Return all arrangements, or a few."""
    if quick:
        return [
            Cell("CPU-bound", "sync", 1, 2),
            Cell("CPU-bound", "async", 2, 2),
            Cell("padded", "sync", 1, 4),
            Cell("padded", "async", 1, 4, slow=True),
            Cell("CPU-bound", "sync", 1, 2, link=True),
        ]
    plain = [
        Cell(kind, rule, servers, replicas)
        for kind, counts in (("CPU-bound", (1, 2)), ("padded", (3, 4)))
        for rule in RULES
        for servers in (1, 2)
        for replicas in counts
    ]
    return [
        *plain,
        *(Cell("padded", rule, 1, 4, slow=True) for rule in RULES),
        *(Cell("CPU-bound", rule, 1, 2, link=True) for rule in RULES),
    ]


def calibrate(kind: str, seconds: float = CALIBRATION_SECONDS) -> tuple[World, str]:
    """Measure the world of a kind of job; return it, and as a file."""
    plan = _plan(Cell(kind, "async", 1, 1))
    measured = measure(plan, seconds)
    world = estimate(measured)
    return world, world_file(replace(plan.job, code=real_run.CODE.name), world, measured)


def predict(cell: Cell, world: World) -> Figures:
    """Run a cell in virtual time. Gradients are zeros: what matters is when they come."""
    plan = _plan(cell)
    network = f"{world.network} w0.bandwidth={LINK_MBIT}Mbit/s" if cell.link else str(world.network)
    compute = f"{world.compute} w0=x{SLOW}" if cell.slow else str(world.compute)
    world = replace(world, network=parse_network(network), compute=parse_compute(compute))
    zeros = {key: np.zeros(shape, np.float32) for key, shape in plan.model.shapes.items()}
    step: Step[Any] = Step(lambda clock: clock, lambda values, clock: (0.0, zeros, plan.job.batch))
    machines = Machines(cell.servers, plan.job.shards, cell.replicas, 1)
    task = Task(plan.steps, lambda rank: step, plan.initial)
    run = Simulation(world, machines, plan.spec, task, keep_steps=False).run()
    summary = summarise(run.status, run.versions, weights_sha256="", wall_seconds=run.seconds, engine="sim")
    return _figures(summary, plan)


def measure_once(cell: Cell, hosts: Any) -> Figures:
    """Run a cell for real."""
    plan = _plan(cell)
    environments = {-1: KINDS[cell.kind]}
    if cell.slow:
        environments[0] = {"PADDING_FACTOR": str(SLOW)}
    return _figures(real_run.run(plan.job, environments, hosts if cell.link else None), plan)


def run(
    quick: bool,
    runs: int,
    report: Callable[[str], object] = lambda line: None,
    only: Sequence[int] = (),
) -> Result:
    """Calibrate, predict and measure; blocks for some ten seconds for each cell and run.

    Args:
        quick: a few cells only.
        runs: real runs of each cell.
        report: told what happens.
        only: cells by number; none for all.
    """
    wanted = [cell for number, cell in enumerate(cells(quick)) if not only or number in only]
    worlds, files = {}, {}
    for kind in dict.fromkeys(cell.kind for cell in wanted):
        report(f"calibrating with the {kind} job")
        worlds[kind], files[kind] = calibrate(kind)
        report(files[kind])
    rows = [Row(cell, predict(cell, worlds[cell.kind])) for cell in wanted]
    busy: list[float] = []
    with ExitStack() as stack:
        hosts, why = _hosts(stack) if any(cell.link for cell in wanted) else (None, "")
        for number in range(runs):
            for row in rows:
                if row.cell.link and hosts is None:
                    row.skipped = why
                    continue
                others = busy_elsewhere()
                busy += [] if others is None else [others]
                row.measured.append(measure_once(row.cell, hosts))
                told = "" if others is None else f" (others use {others:.1f} cores)"
                report(f"{number + 1}/{runs} {row.cell.kind}: {row.cell.name}{told}")
                report(f"    predicted {row.predicted}\n    measured  {row.measured[-1]}")
    return Result(rows, files, busy)


def _plan(cell: Cell) -> Workload:
    os.environ.update(KINDS[cell.kind])  # the code reads them when it is loaded
    steps = _STEPS[cell.kind] // (SLOW if cell.slow else 1) // (8 if cell.link else 1)
    samples, batch = 8192 * 0.72, 128
    epochs = max(1, round(steps * cell.replicas * batch / samples))
    given = {
        "code": str(real_run.CODE),
        "consistency": cell.rule,
        "servers": cell.servers,
        "workers": cell.replicas,
        "epochs": epochs,
    }
    job, code = read_job("", "", given)
    plan = make_plan(job, code)
    assert isinstance(plan, Workload)
    return plan


_STEPS = {"CPU-bound": 600, "padded": 240}
"""Of each replica: some six seconds of training."""


def _figures(summary: dict[str, Any], plan: Workload) -> Figures:
    if summary["outcome"] != "finished":
        raise RuntimeError(summary["reason"])
    return Figures(
        summary["wall_seconds"] * 1000 * plan.job.replicas / sum(plan.steps),
        len(plan.splits.train) * plan.job.epochs / summary["wall_seconds"],
        summary["staleness"]["mean"] or 0.0,
        summary["time_budget"]["total"]["wait"],
    )


def _hosts(stack: ExitStack) -> tuple[Any, str]:
    """Return two hosts with a slow cable, or None and why there are none."""
    try:
        from tests.hosts import NoHostsError, two_hosts
    except ImportError:
        return None, "the tests, which know how to make two hosts, are not here"
    try:
        hosts = stack.enter_context(two_hosts())
        hosts.limit(LINK_MBIT)
    except NoHostsError as error:
        return None, str(error)
    return hosts, ""
