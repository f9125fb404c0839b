"""The options that every command with a job has, declared once.

A new key of a job is one line here, and all commands have it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

WHAT = "What is trained"
WHO = "By how many"
HOW = "How"
RUN = "The run"
WORLD = "The world, in virtual time"


@dataclass(frozen=True, slots=True)
class JobOption:
    """One key of a job, or of a world, as an option.

    Attributes:
        name: of the field of `paramserver.job.Job`.
        kind: of its value; a bool is a flag.
        default: as the help names it; None: not at all.
        text: of the help.
        panel: of the help.
        metavar: what stands for the value.
    """

    name: str
    kind: type[str] | type[int] | type[float] | type[bool]
    default: str | int | None
    text: str
    panel: str
    metavar: str = "N"

    def parameter(self) -> inspect.Parameter:
        """Return it as a command's parameter, which is None where the option was not given."""
        told = "" if self.default is None else f" (default: {self.default})"
        option = typer.Option(
            f"--{self.name.replace('_', '-')}",
            help=f"{self.text}{told}",
            show_default=False,
            rich_help_panel=self.panel,
            metavar=self.metavar,
        )
        annotation: Any = Annotated[self.kind | None, option]
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )


JOB_OPTIONS = (
    JobOption(
        "data",
        str,
        "digits",
        "Data set: a name (see paramserver data list), FILE.npz or FILE.csv.",
        WHAT,
        "NAME",
    ),
    JobOption("data_dir", str, "the usual places", "Folder in which data files are looked for.", WHAT, "DIR"),
    JobOption(
        "model", str, "mlp:128", "Model, such as cnn or mlp:256,128; see paramserver models.", WHAT, "MODEL"
    ),
    JobOption("code", str, "none", "Python file with a model, data or both of your own.", WHAT, "FILE.py"),
    JobOption(
        "split", str, "iid", "How samples are dealt to replicas: iid, by-label or dirichlet:A.", WHAT, "HOW"
    ),
    JobOption(
        "problem",
        str,
        "none",
        "In virtual time, in place of data and model: quadratic:H[,NOISE], logistic or timing[:SIZE].",
        WHAT,
        "NAME",
    ),
    JobOption("steps", int, 100, "Steps of each replica of a problem, which has no epochs.", WHAT),
    JobOption("consistency", str, "sync", "Consistency model: sync, async or ssp:N.", HOW, "MODEL"),
    JobOption("servers", int, 1, "Server processes.", WHO),
    JobOption("shards", int, 2, "Shards of each server.", WHO),
    JobOption("workers", int, 2, "Worker processes.", WHO),
    JobOption("threads", int, 2, "Threads of each worker; each is a replica.", WHO),
    JobOption(
        "replicas_max",
        int,
        0,
        "Replicas there may be in all, with those that join later; 0: 64 more than at the beginning.",
        WHO,
    ),
    JobOption(
        "optimizer",
        str,
        "adam",
        "Optimizer, such as sgd, momentum:0.8 or adam+decay:0.001; see paramserver optimizers.",
        HOW,
        "NAME",
    ),
    JobOption("lr", float, "the optimizer's usual one", "Learning rate per update.", HOW, "RATE"),
    JobOption(
        "schedule",
        str,
        "cosine",
        "Learning rate over time, such as constant, cosine or warmup:5%+cosine; see optimizers.",
        HOW,
        "NAME",
    ),
    JobOption("clip_norm", float, "none", "Longest gradient that is not scaled down to this.", HOW, "NORM"),
    JobOption("batch", int, 32, "Samples of one replica's step.", HOW),
    JobOption("epochs", int, 50, "Passes over the training set.", HOW),
    JobOption(
        "target_accuracy", float, "none", "Validation accuracy at which the job ends early.", HOW, "SHARE"
    ),
    JobOption("seed", int, 0, "Seed of all chance, from 0.", HOW),
    JobOption(
        "engine",
        str,
        "local",
        "local (processes here), sequential (one plain loop), sim (virtual time) or compose (containers).",
        RUN,
        "NAME",
    ),
    JobOption(
        "on_death",
        str,
        "auto",
        "What the death of a replica means: restart, drop, or auto (sync restarts, others drop).",
        RUN,
        "WHAT",
    ),
    JobOption(
        "lease_seconds",
        float,
        10,
        "A replica unheard of for this long, in seconds, is dead.",
        RUN,
        "SECONDS",
    ),
    JobOption("step_timeout", float, 600, "Seconds that one step may take.", RUN, "SECONDS"),
    JobOption(
        "restart_timeout",
        float,
        30,
        "Seconds that a dead replica, or a lost server, is waited for.",
        RUN,
        "SECONDS",
    ),
    JobOption(
        "max_restarts", int, 3, "Restarts of one worker, or of one server, before the job gives up.", RUN
    ),
    JobOption(
        "durability",
        str,
        "checkpoint",
        "What servers come back with: checkpoint, journal (all they have answered) or none.",
        RUN,
        "WHAT",
    ),
    JobOption(
        "checkpoint_every",
        str,
        "30s",
        "Checkpoints while the job runs, by updates (100) or time (30s, 2m), or never.",
        RUN,
        "EVERY",
    ),
    JobOption("checkpoint_keep", int, 3, "How many of those checkpoints are kept.", RUN),
    JobOption(
        "start_timeout", float, 60, "Seconds that all processes have to come up and join.", RUN, "SECONDS"
    ),
    JobOption("blas_threads", int, 1, "Threads of linear algebra in each process; 0 leaves them alone.", RUN),
    JobOption(
        "trace",
        bool,
        None,
        "Record what every thread and shard does, as trace.json in the run folder.",
        RUN,
        "",
    ),
)

WORLD_OPTIONS = (
    JobOption(
        "world", str, "none", "World file, whose keys are the options below; they win.", WORLD, "FILE.toml"
    ),
    JobOption(
        "compute",
        str,
        "none; it must be given",
        "Time of a gradient, such as 20ms or 'exponential:20ms w3=x4'.",
        WORLD,
        "LAW",
    ),
    JobOption(
        "network",
        str,
        "none; it must be given",
        "Costs of messages and locks, such as ideal or 'latency=100us bandwidth=1Gbit/s …'.",
        WORLD,
        "COSTS",
    ),
    JobOption("faults", str, "none", "What goes wrong, such as 'lose=1% crash=w1@3s+2s'.", WORLD, "FAULTS"),
    JobOption("world_seed", int, "the job's seed", "Seed of all chance in the world.", WORLD),
)

OPTIONS = {"given": JOB_OPTIONS, "world_given": WORLD_OPTIONS}
"""What a command's parameter stands for."""


JobFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[JOB.toml|CODE.py]",
        help="A job file, whose keys are the options below, or Python with a model or data of your own.",
        show_default=False,
    ),
]
"""The job file, or the Python file, that a command with a job takes as its argument."""

Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Run folder, new or empty. (default: runs/<UTC time>-<n>)",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", metavar="", help="Show no progress.", rich_help_panel=RUN)]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar="",
        help="Print the summary as one JSON document instead of tables.",
        rich_help_panel=RUN,
    ),
]
