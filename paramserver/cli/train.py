"""The command ``train``: options over job file over defaults, then one run."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from paramserver.errors import RequestError

_WHAT = "What is trained"
_WHO = "By how many"
_HOW = "How"
_RUN = "The run"


def _option(name: str, default: object, text: str, panel: str, metavar: str = "N") -> Any:
    """Declare an option without a value of its own, so that one knows whether it was given."""
    return typer.Option(
        f"--{name}",
        help=f"{text} (default: {default})",
        show_default=False,
        rich_help_panel=panel,
        metavar=metavar,
    )


def train(
    job_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[JOB.toml|CODE.py]",
            help="A job file, whose keys are the options below, or Python with a model or data of your own.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        _option(
            "data",
            "digits",
            "Data set: a name (see paramserver data list), FILE.npz or FILE.csv.",
            _WHAT,
            "NAME",
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        _option("data-dir", "the usual places", "Folder in which data files are looked for.", _WHAT, "DIR"),
    ] = None,
    model: Annotated[
        str | None,
        _option(
            "model", "mlp:128", "Model, such as cnn or mlp:256,128; see paramserver models.", _WHAT, "MODEL"
        ),
    ] = None,
    code: Annotated[
        str | None,
        _option("code", "none", "Python file with a model, data or both of your own.", _WHAT, "FILE.py"),
    ] = None,
    split: Annotated[
        str | None,
        _option(
            "split",
            "iid",
            "How samples are dealt to replicas: iid, by-label or dirichlet:A.",
            _WHAT,
            "HOW",
        ),
    ] = None,
    consistency: Annotated[
        str | None,
        _option("consistency", "sync", "Consistency model: sync, async or ssp:N.", _HOW, "MODEL"),
    ] = None,
    servers: Annotated[int | None, _option("servers", 1, "Server processes.", _WHO)] = None,
    shards: Annotated[int | None, _option("shards", 2, "Shards of each server.", _WHO)] = None,
    workers: Annotated[int | None, _option("workers", 2, "Worker processes.", _WHO)] = None,
    threads: Annotated[
        int | None, _option("threads", 2, "Threads of each worker; each is a replica.", _WHO)
    ] = None,
    optimizer: Annotated[
        str | None,
        _option(
            "optimizer",
            "adam",
            "Optimizer, such as sgd, momentum:0.8 or adam+decay:0.001; see paramserver optimizers.",
            _HOW,
            "NAME",
        ),
    ] = None,
    lr: Annotated[
        float | None, _option("lr", "the optimizer's usual one", "Learning rate per update.", _HOW, "RATE")
    ] = None,
    schedule: Annotated[
        str | None,
        _option(
            "schedule",
            "cosine",
            "Learning rate over time, such as constant, cosine or warmup:5%+cosine; see optimizers.",
            _HOW,
            "NAME",
        ),
    ] = None,
    clip_norm: Annotated[
        float | None,
        _option("clip-norm", "none", "Longest gradient that is not scaled down to this.", _HOW, "NORM"),
    ] = None,
    batch: Annotated[int | None, _option("batch", 32, "Samples of one replica's step.", _HOW)] = None,
    epochs: Annotated[int | None, _option("epochs", 50, "Passes over the training set.", _HOW)] = None,
    target_accuracy: Annotated[
        float | None,
        _option("target-accuracy", "none", "Validation accuracy at which the job ends early.", _HOW, "SHARE"),
    ] = None,
    seed: Annotated[int | None, _option("seed", 0, "Seed of all chance, from 0.", _HOW)] = None,
    engine: Annotated[
        str | None,
        _option(
            "engine",
            "local",
            "local (processes on this machine) or sequential (one plain loop).",
            _RUN,
            "NAME",
        ),
    ] = None,
    on_death: Annotated[
        str | None,
        _option(
            "on-death",
            "auto",
            "What the death of a replica means: restart, drop, or auto (sync restarts, others drop).",
            _RUN,
            "WHAT",
        ),
    ] = None,
    lease_seconds: Annotated[
        float | None,
        _option(
            "lease-seconds", 10, "A replica unheard of for this long, in seconds, is dead.", _RUN, "SECONDS"
        ),
    ] = None,
    step_timeout: Annotated[
        float | None, _option("step-timeout", 600, "Seconds that one step may take.", _RUN, "SECONDS")
    ] = None,
    start_timeout: Annotated[
        float | None,
        _option("start-timeout", 60, "Seconds that all processes have to come up and join.", _RUN, "SECONDS"),
    ] = None,
    blas_threads: Annotated[
        int | None,
        _option("blas-threads", 1, "Threads of linear algebra in each process; 0 leaves them alone.", _RUN),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Run folder, new or empty. (default: runs/<UTC time>-<n>)",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", metavar="", help="Show no progress.", rich_help_panel=_RUN)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="Print the summary as one JSON document instead of tables.",
            rich_help_panel=_RUN,
        ),
    ] = False,
) -> int:
    """Train a model on this machine, evaluate it, and say what happened.

    Without any option it trains a small network on handwritten digits in synchronous mode.
    """
    if job_file is not None and job_file.suffix == ".py":
        if code is not None:
            raise RequestError(f"{job_file} and --code {code} are both Python files. Give one.")
        code, job_file = str(job_file), None
    text, source = _read(job_file)
    given = {
        "data": data,
        "data_dir": data_dir,
        "model": model,
        "code": code,
        "split": split,
        "consistency": consistency,
        "servers": servers,
        "shards": shards,
        "workers": workers,
        "threads": threads,
        "optimizer": optimizer,
        "lr": lr,
        "schedule": schedule,
        "clip_norm": clip_norm,
        "batch": batch,
        "epochs": epochs,
        "target_accuracy": target_accuracy,
        "seed": seed,
        "engine": engine,
        "on_death": on_death,
        "lease_seconds": lease_seconds,
        "step_timeout": step_timeout,
        "start_timeout": start_timeout,
        "blas_threads": blas_threads,
    }
    given = {name: value for name, value in given.items() if value is not None}
    _fix_blas_threads(text, given)
    from paramserver.cli.running import run_and_show

    return run_and_show(text, source, given, out, quiet, as_json)


def _read(job_file: Path | None) -> tuple[str, str]:
    """Return the text of a job file, and its name; an empty text where there is none."""
    if job_file is None:
        return "", ""
    try:
        return job_file.read_text(encoding="utf-8"), str(job_file)
    except OSError as error:
        raise RequestError(f"The job file {job_file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RequestError(f"The job file {job_file} is not UTF-8 text, as TOML has to be.") from None


def _fix_blas_threads(text: str, given: dict[str, Any]) -> None:
    """Set the threads of linear algebra while numpy is not imported yet; later it would have no effect."""
    from paramserver.launch.programs import blas_environment

    try:
        wanted = {"blas_threads": 1, **tomllib.loads(text), **given}["blas_threads"]
    except tomllib.TOMLDecodeError:
        return  # whoever reads the whole job says so
    if isinstance(wanted, int):
        os.environ.update(blas_environment(wanted))
