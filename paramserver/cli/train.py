"""The commands ``train`` and ``simulate``: options over job file over defaults, then one run."""

from __future__ import annotations

from typing import Any

from paramserver.cli.job_options import AsJson, JobFile, Out, Quiet, read_job_file, takes_job


@takes_job
def train(
    given: dict[str, Any],
    world_given: dict[str, Any],
    job_file: JobFile = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Train a model on this machine, evaluate it, and say what happened.

    Without any option it trains a small network on handwritten digits in synchronous mode.
    """
    text, source, given = read_job_file(job_file, given)
    from paramserver.cli.running import run_and_show

    return run_and_show(text, source, given, world_given, out, quiet, as_json)


@takes_job(without=("engine",))
def simulate(
    given: dict[str, Any],
    world_given: dict[str, Any],
    job_file: JobFile = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> int:
    """Train in virtual time, in a world whose costs and faults you name.

    The same training, servers and messages as in a real run, with real gradients; only time is virtual. The
    same seeds give the same run to the byte. It is the same as train --engine sim.
    """
    text, source, given = read_job_file(job_file, given)
    from paramserver.cli.running import run_and_show

    return run_and_show(text, source, {**given, "engine": "sim"}, world_given, out, quiet, as_json)
