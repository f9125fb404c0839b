"""A job in the cluster of compose.yaml: brought up, followed, its run folder brought back, taken down."""

from __future__ import annotations

import json
import math
import shutil
import time
import uuid
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from paramserver.datasets import NAMES
from paramserver.datasets.fashion_mnist import NAME as FASHION_MNIST
from paramserver.datasets.fashion_mnist import find_folder
from paramserver.errors import JobError, RequestError
from paramserver.job import CODE, Job
from paramserver.launch.containers import (
    LOOK_SECONDS,
    RUN,
    Container,
    Containers,
    find_compose_file,
    find_tools,
    servers_of,
)
from paramserver.launch.engine import start_all
from paramserver.launch.interruption import Interruption
from paramserver.launch.outcome import complete, read_summary
from paramserver.launch.processes import remove_processes, write_containers
from paramserver.launch.progress import Moment, Reporter
from paramserver.launch.restarts import Restarts
from paramserver.launch.telemetry import Telemetry
from paramserver.storage import RunFolder
from paramserver.workload import Workload

POLL_SECONDS = 1.0
"""Between two looks: the coordinator writes its diary as often."""

SETTLE_SECONDS = 8.0
"""Once a container has failed, how long the others may take to say why and to save the run."""

DIARY = f"/runs/{RUN}/metrics.jsonl"
DIARY_LINES = "50"


def check_cluster(job: Job) -> None:
    """See that a job can run in a cluster here, before anything is made.

    Raises:
        RequestError: it cannot.
    """
    find_tools()
    there = servers_of(path := find_compose_file())
    if job.servers > there:
        raise RequestError(
            f"{path} has {there} servers, and the job wants {job.servers}. Ask for fewer with --servers, or "
            "add services like server1 to it."
        )
    if job.trace:
        raise RequestError("--engine compose records no trace. Use --engine local or sim for one.")


def run_cluster(
    plan: Workload, folder: RunFolder, interruption: Interruption, reporter: Reporter, telemetry: Telemetry
) -> dict[str, Any]:
    """Run a job in containers and return its summary; when this returns or raises, none is left.

    Args:
        plan: the job.
        folder: where logs, checkpoint and summary go.
        interruption: entered.
        reporter: shows progress.
        telemetry: what the containers tell.

    Raises:
        RequestError: there is no container engine any more.
        JobError: the job failed, or the engine did.
        Interrupted: a signal came; the run so far is in the folder.
    """
    job = plan.job
    with TemporaryDirectory(prefix="paramserver-") as stage:
        project = f"paramserver-{uuid.uuid4().hex[:8]}"
        containers = Containers(find_tools(), find_compose_file(), project, job.workers, interruption.wait)
        environment = {
            "PARAMSERVER_JOB": stage,
            "PARAMSERVER_CODE": Path(job.code).name,
            "PARAMSERVER_WORKERS": str(job.workers),
            "PARAMSERVER_SERVERS": str(job.servers),
            "PARAMSERVER_START_TIMEOUT": f"{job.start_timeout:g}",
            "PARAMSERVER_RUN": RUN,
            "PARAMSERVER_RESTART": "no",  # it is done here, where it is counted
            "PARAMSERVER_SERVER_OPTIONS": " ".join(telemetry.options()),
            "PARAMSERVER_WORKER_OPTIONS": " ".join(telemetry.options()),
        }
        _stage(job, Path(stage))
        try:
            try:
                containers.build(environment)
                start_all(containers, job.servers, job.workers, environment)
                containers.name_workers()
                write_containers(folder, containers.all)
                restarts = Restarts(job, containers, Container.start_again, reporter.note)
                _follow(plan, containers, restarts, interruption, reporter)
            finally:
                remove_processes(folder)
                _bring_back(containers, plan, folder)
        except JobError as error:
            summary = read_summary(folder)
            # What was interrupted here, because of the error, has no better reason than the error.
            reason = summary.get("reason") if summary.get("outcome") == "failed" else ""
            raise JobError(reason or f"{error} The logs are in {folder.logs}.") from error
    return complete(plan, folder) | {"restarts": dict(restarts.counts)}


def _stage(job: Job, stage: Path) -> None:
    """Lay what the containers need into the folder that they see as /job: copies that anybody may read."""
    if job.code:
        for path in {Path(job.code), *Path(job.code).parent.glob("*.py")}:
            shutil.copyfile(path, stage / path.name)
    data, data_dir = job.data, ""
    if data == FASHION_MNIST:
        data_dir = "data"
        shutil.copytree(find_folder(Path(job.data_dir) if job.data_dir else None), stage / data_dir)
    elif data != CODE and data not in NAMES and Path(data).is_file():
        data = Path(data).name
        shutil.copyfile(job.data, stage / data)
    (stage / "job.toml").write_text(replace(job, data=data, data_dir=data_dir).to_toml())
    for path in (stage, *stage.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _follow(
    plan: Workload,
    containers: Containers,
    restarts: Restarts[Container],
    interruption: Interruption,
    reporter: Reporter,
) -> None:
    """Show how the job goes until every container has ended well, and start those again that have not.

    Raises:
        JobError: one has not.
        Interrupted: a signal came.
    """
    first = containers.all[0]
    while first.code != 0 and not _has_failed(containers) and not restarts.final():
        interruption.wait(POLL_SECONDS)
        restarts.look(None, time.monotonic())
        moment = moment_of(first.run("tail", "-n", DIARY_LINES, DIARY), sum(plan.steps))
        if moment is not None:
            reporter.update(moment)
    _settle(containers, interruption)
    if first.code != 0:
        failed = restarts.final() or containers.failed()
        raise JobError(restarts.epitaph(failed[0]))


def _has_failed(containers: Containers) -> bool:
    """Say whether a server has ended with a sentence: then the job has, too."""
    codes = [each.code for each in containers.all if each.name.startswith("server")]
    return any(code is not None and code > 0 for code in codes)


def _settle(containers: Containers, interruption: Interruption) -> None:
    """Let those that still run end by themselves, for a while."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while containers.running() and time.monotonic() < deadline:
        interruption.wait(LOOK_SECONDS)


def _bring_back(containers: Containers, plan: Workload, folder: RunFolder) -> None:
    """Stop what runs, keep logs and the run folder of the volume, and remove everything else."""
    if containers.running():
        containers.end()
    for container in containers.all:
        folder.write_text(f"logs/{container.name.replace(' ', '')}.log", container.logs())
    if containers.all:
        containers.fetch(containers.all[0], f"/runs/{RUN}", folder.path)
    folder.write_text("job.toml", plan.job.to_toml())  # with this machine's paths, not those in containers
    containers.remove()


def moment_of(diary: str, steps: int) -> Moment | None:
    """Return what progress shows of the end of a diary; None where it says nothing yet.

    Args:
        diary: lines of ``metrics.jsonl``; the first one may be cut.
        steps: of all replicas together.

    Example:
        >>> line = '{"kind": "progress", "clocks": [3, 2], "samples": {"computed": 160}, "loss": 0.5}'
        >>> moment_of(line, steps=10)
        Moment(fraction=0.5, samples=160, loss=0.5, accuracy=None, virtual_seconds=None)
    """
    progress: dict[str, Any] = {}
    accuracy = None
    for line in diary.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["kind"] == "progress":
            progress = record
        elif record["kind"] == "score" and record["split"] == "validation":
            accuracy = record["accuracy"]
    if not progress:
        return None
    loss = progress["loss"]
    return Moment(
        fraction=min(1.0, sum(progress["clocks"]) / steps),
        samples=progress["samples"].get("computed", 0),
        loss=math.nan if loss is None else loss,
        accuracy=accuracy,
    )
