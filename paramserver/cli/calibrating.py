"""One calibration as a person at a terminal sees it; imported only once one is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paramserver.calibration import busy_elsewhere, check_seconds, cores_here, measure, world_file
from paramserver.client.own_loop import check_address
from paramserver.errors import RequestError
from paramserver.job_file import read_job
from paramserver.launch.plan import make_plan
from paramserver.logs import complain
from paramserver.quantities import format_rate
from paramserver.sim.estimate import Measured, estimate
from paramserver.storage.atomic import write_text
from paramserver.workload import Workload

NOISE_CORES = 0.3
"""Above so many cores in use by other programs the figures say as much about those."""


def calibrate_and_show(
    text: str, source: str, given: Mapping[str, Any], out: Path, seconds: float, connect: str
) -> int:
    """Measure, write the world file, and say what is in it.

    Args:
        text: of the job file; may be empty.
        source: the job file's name.
        given: options of the command line, which win.
        out: the world file.
        seconds: how long to measure.
        connect: a server on another machine; empty for none.

    Returns:
        The exit code.

    Raises:
        RequestError: the input is wrong.
        JobError: a server cannot be started or reached, or the file cannot be written.
    """
    if out.exists():
        raise RequestError(f"{out} is there already. Name another file with --out, or remove it.")
    if not out.absolute().parent.is_dir():
        raise RequestError(f"There is no folder {out.absolute().parent} to write {out.name} into.")
    check_seconds(seconds)
    if connect:
        check_address(connect)
    job, code = read_job(text, source, given)
    if job.problem:
        raise RequestError("A problem has no gradients that take time. Calibrate with data and a model.")
    plan = make_plan(replace(job, workers=1, threads=1, servers=1, shards=1, engine="local"), code)
    assert isinstance(plan, Workload)
    busy = busy_elsewhere()
    if busy is not None and busy > NOISE_CORES:
        print(
            f"Other programs use {busy:.1f} of {cores_here()} cores now. What is measured beside them holds "
            "beside them."
        )
    try:
        print(f"Measuring for {seconds:g} s.", flush=True)
        measured = measure(plan, seconds, connect)
    except KeyboardInterrupt:
        complain("Interrupted by SIGINT. The servers have ended, and no world file was written.")
        return 130
    world = estimate(measured, plan.job.seed)
    write_text(out, world_file(plan.job, world, measured, connect))
    for line in _lines(measured, world.network.bandwidth):
        print(line)
    print(f"The world is in {out}. Run a job in it: paramserver simulate --world {out}")
    return 0


def _lines(measured: Measured, bandwidth: float) -> list[str]:
    step, small, many = measured.whole, measured.single, measured.several
    gradients = measured.gradients_ns
    mean = sum(gradients) / len(gradients)
    lines = [
        f"gradient    {mean / 1e6:8.2f} ms on average over {len(gradients):,}; "
        f"{measured.cpu:.0%} of it on a core",
        f"pull + push {step.wall_ns / 1e6:8.2f} ms with the job's {step.size:,} bytes, "
        f"{small.wall_ns / 1e6:.2f} ms with next to none, "
        f"{many.wall_ns / 1e6:.2f} ms with {many.requests} requests each",
        f"of which     {step.client_ns / 1e6:7.2f} ms of a core at the replica, "
        f"{step.server_ns / 1e6:.2f} ms at the server, {step.lock_ns / 1e6:.2f} ms of these under the lock",
    ]
    if measured.cores is not None:
        lines.append(f"cores        {measured.cores:7.2f} cores' worth of work, of {cores_here()}")
    if measured.trip_ns or measured.byte_ns:
        lines.append(
            f"link         {measured.trip_ns / 1e6:7.2f} ms longer one way, {format_rate(bandwidth)}"
        )
    return lines
