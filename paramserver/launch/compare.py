"""One job under several consistency models and seeds, one run after the other, and what is left behind."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paramserver import __version__
from paramserver.comparison import (
    Comparison,
    Outcome,
    Point,
    Target,
    choose_target,
    comparison_page,
    measure,
    spreads,
)
from paramserver.errors import JobError, RequestError
from paramserver.job import Job
from paramserver.launch.interruption import Interrupted
from paramserver.launch.plan import Exercise, make_plan
from paramserver.launch.progress import Reporter, count
from paramserver.launch.run import Bug, run
from paramserver.sim import World
from paramserver.storage import RunFolder, create_run_folder, read_metrics
from paramserver.user_code import UserCode

RUNS_MAX = 1000
"""Runs of one comparison: more is a misprint, or a study that wants a script."""

TURNS = "The runs followed one another on this machine, each with the whole of it."


@dataclass(frozen=True)
class Series:
    """What is to be compared.

    Attributes:
        job: whose consistency and seed each run replaces, and which runs to its end whatever the accuracy.
        rules: consistency models, each once.
        seeds: each once.
        target_accuracy: to which times are taken; 0: chosen once all have run.
        code: the user's file, if the job has one.
        world: gives the world of a job with its seed; None of a job that runs in none.
    """

    job: Job
    rules: Sequence[str]
    seeds: Sequence[int]
    target_accuracy: float
    code: UserCode | None
    world: Callable[[Job], World | None]

    @property
    def planned(self) -> list[tuple[str, int]]:
        """The runs in their order: all rules with one seed, then the next, so that an early end is fair."""
        return [(rule, seed) for seed in self.seeds for rule in self.rules]

    def job_of(self, rule: str, seed: int) -> Job:
        """Return the job of one run."""
        return replace(self.job, consistency=rule, seed=seed, target_accuracy=0.0)


class Listener:
    """Hears of a comparison as it goes on; does nothing by itself."""

    def reporter(self) -> Reporter | None:
        """Return what shows the progress of the next run; None for nothing."""
        return None

    def began(self, what: str, folder: Path, runs: int) -> None:
        """Take note that it has begun."""

    def begins(self, rule: str, seed: int, number: int) -> None:
        """Take note that a run begins, counted from 1."""

    def ended(self, outcome: Outcome, number: int) -> None:
        """Take note that a run has ended."""


def compare(series: Series, out: Path | None, listener: Listener) -> tuple[Comparison, Path, int]:
    """Run everything, and leave ``compare.json`` and ``compare.html`` in a folder with all run folders.

    Blocks as long as all runs take. A run that fails is noted, and the next one follows; a signal ends the
    comparison, which is then made of what has finished.

    Args:
        series: what is to be compared.
        out: the folder, new or empty; None: one with the time as its name in ``runs``.
        listener: hears how it goes.

    Returns:
        The comparison, its folder, and the exit code: 0, 1 if a run failed, 128 plus the signal.

    Raises:
        RequestError: something cannot be run; nothing was begun.
        JobError: the disk refuses.
    """
    if len(series.planned) > RUNS_MAX:
        raise RequestError(
            f"{count(len(series.rules), 'rule')} with {count(len(series.seeds), 'seed')} are "
            f"{len(series.planned):,} runs, and a comparison has at most {RUNS_MAX:,}. Give fewer --seeds."
        )
    series, what = _check(series)
    # Virtual time is not shared with anybody.
    notes = [] if series.job.engine == "sim" else [TURNS]
    outcomes: list[Outcome] = []
    code = 0
    with create_run_folder(out, time.time()) as folder:
        folder.logs.rmdir()  # each run has logs of its own
        _write_inputs(series, folder)
        listener.began(what, folder.path, len(series.planned))
        try:
            for number, (rule, seed) in enumerate(series.planned, 1):
                listener.begins(rule, seed, number)
                outcome = _run_one(series, rule, seed, folder, listener)
                outcomes.append(outcome)
                listener.ended(outcome, number)
                _write(folder, series, _comparison(series, folder, what, notes, outcomes))
        except Interrupted as interrupted:
            code = interrupted.code
        except KeyboardInterrupt:  # between two runs, or while one reads its data
            code = 130
        comparison = _comparison(series, folder, what, notes, outcomes)
        _write(folder, series, comparison)
        failed = any(outcome.reason for outcome in outcomes)
        return comparison, folder.path, code or (1 if failed else 0)


def _check(series: Series) -> tuple[Series, str]:
    """Refuse what cannot run before anything does, make paths absolute, and say what is compared."""
    for rule in series.rules:
        job = series.job_of(rule, series.seeds[0])
        plan = make_plan(job, series.code, series.world(job))
    job = plan.job
    what = (
        plan.problem.name if isinstance(plan, Exercise) else f"{plan.model.spec} on {plan.splits.train.name}"
    )
    told = [
        what,
        f"{count(job.workers, 'worker')} x {count(job.threads, 'thread')}",
        f"{count(job.servers, 'server')} x {count(job.shards, 'shard')}",
        *(["in virtual time"] if job.engine == "sim" else []),
        count(len(series.seeds), "seed"),
    ]
    # Of the plan's job only the paths: what "auto" means differs from rule to rule.
    return replace(series, job=replace(series.job, data=job.data, data_dir=job.data_dir)), ", ".join(told)


def _run_one(series: Series, rule: str, seed: int, folder: RunFolder, listener: Listener) -> Outcome:
    name = f"{rule.replace(':', '-')}-seed{seed}"
    job = series.job_of(rule, seed)
    try:
        world = series.world(job)
        summary, path = run(job, folder.path / name, listener.reporter(), series.code, world)
    except (JobError, RequestError, Bug) as error:
        return Outcome(rule, seed, name, reason=str(error))
    return Outcome(rule, seed, name, summary=summary, curve=_curve(path))


def _curve(path: Path) -> list[Point]:
    records = [
        record
        for record in read_metrics(path / "metrics.jsonl")
        if record["kind"] == "score" and record["split"] == "validation"
    ]
    return [
        Point(record["seconds"], record["version"], record["accuracy"], record["loss"]) for record in records
    ]


def _comparison(
    series: Series, folder: RunFolder, what: str, notes: Sequence[str], outcomes: Sequence[Outcome]
) -> Comparison:
    finished = [outcome for outcome in outcomes if not outcome.reason]
    target = (
        choose_target(finished, series.target_accuracy) if finished else Target(None, "No run has finished.")
    )
    files = {name: (folder.path / name).read_text() for name in _inputs(series)}
    return Comparison(
        what=what,
        rules=series.rules,
        runs=tuple(outcomes),
        planned=len(series.planned),
        target=target,
        is_virtual=series.job.engine == "sim",
        notes=notes,
        files=files,
        repeat=_repeat(series, folder),
    )


def _inputs(series: Series) -> dict[str, str]:
    job = series.job_of(series.rules[0], series.seeds[0])
    world, other = series.world(job), series.world(replace(job, seed=job.seed + 1))
    if world is None or other is None:
        return {"job.toml": job.to_toml()}
    text = world.to_toml()
    if world.seed != other.seed:  # it follows the job's, and would not if the file said one
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("seed ="))
    return {"job.toml": job.to_toml(), "world.toml": text}


def _write_inputs(series: Series, folder: RunFolder) -> None:
    for name, text in _inputs(series).items():
        folder.write_text(name, text)


def _repeat(series: Series, folder: RunFolder) -> str:
    """Return the command that compares the same again."""
    path = folder.path.absolute()
    words = ["paramserver", "compare", *series.rules, str(path / "job.toml")]
    if series.world(series.job) is not None:
        words += ["--world", str(path / "world.toml")]
    if series.code is not None:
        words += ["--code", series.job.code]
    words += ["--seeds", ",".join(map(str, series.seeds)) + ("," if len(series.seeds) == 1 else "")]
    if series.target_accuracy:
        words += ["--target-accuracy", f"{series.target_accuracy:g}"]
    return shlex.join(words)


def _write(folder: RunFolder, series: Series, comparison: Comparison) -> None:
    folder.write_json("compare.json", as_json(comparison, series))
    folder.write_text("compare.html", comparison_page(comparison))


def as_json(comparison: Comparison, series: Series) -> dict[str, Any]:
    """Return everything of a comparison, as JSON values."""
    target = comparison.target
    return {
        "what": comparison.what,
        "planned": comparison.planned,
        "target_accuracy": target.accuracy,
        "target_why": target.why,
        "time": "virtual" if comparison.is_virtual else "real",
        "notes": list(comparison.notes),
        "rules": {
            rule: {
                name: asdict(spread) for name, spread in spreads(comparison.finished(rule), target).items()
            }
            for rule in comparison.rules
        },
        "runs": [
            {
                "rule": outcome.rule,
                "seed": outcome.seed,
                "folder": outcome.folder,
                "outcome": "failed" if outcome.reason else "finished",
                "reason": outcome.reason,
                **({} if outcome.reason else measure(outcome, target)),
                "weights_sha256": outcome.summary.get("weights_sha256"),
                "curve": [asdict(point) for point in outcome.curve],
            }
            for outcome in comparison.runs
        ],
        "seeds": list(series.seeds),
        "job": asdict(series.job),
        "files": dict(comparison.files),
        "repeat": comparison.repeat,
        "software": {"python": platform.python_version(), "paramserver": __version__},
        "machine": {"system": platform.platform(terse=True), "cores": os.cpu_count()},
    }
