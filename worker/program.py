"""One worker process, from its job file to its last sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from paramserver.client import Connection
from paramserver.client.channels import OpenChannel
from paramserver.diaries import replica_row
from paramserver.errors import Failure, JobError, RequestError
from paramserver.job_file import read_job
from paramserver.security.channels import open_channel
from paramserver.storage.trace_file import TraceFile
from paramserver.toml_file import read_text
from paramserver.workload import Workload, load_workload
from worker.evaluate import evaluate
from worker.options import Options
from worker.pool import Pool
from worker.replica import Task
from worker.stops import LEAVE_SECONDS, Stops

log = logging.getLogger("worker")


def run(options: Options, stops: Stops) -> int:
    """Do what a worker does, and say in one sentence why if it cannot.

    Args:
        options: what it was told.
        stops: listening.

    Returns:
        The exit code: 0 done, 1 it or the job failed (0 where it restarts and the job is over), 2 the input
        cannot be used, 130 or 143 interrupted.
    """
    code = 2
    try:
        # Only a file that somebody has named for this process is run, whatever the job file says.
        given = {} if options.code is None else {"code": str(options.code)}
        job, own = read_job(read_text(options.job, "job file"), str(options.job), given)
        job = job.resolved()
        workload = load_workload(job, own)
        spec, task = workload.spec, task_of(workload)
        names = [f"{options.name}/{thread}" for thread in range(options.threads or job.threads)]
        with (
            _recording(options.trace, names) as trace,
            _network(options) as opens,
            Connection(options.connect, access=options.access, opens=opens) as connection,
        ):
            code = 1
            if options.evaluate:
                stops.call(connection.stop)
                seconds = options.join_timeout_seconds
                model, splits = workload.model, workload.splits
                evaluate(connection, model, splits.validation, splits.test, options.name, seconds)
            else:
                pool = Pool(connection, spec, task, names, options.join_timeout_seconds, trace)
                if options.leave_on_stop:
                    stops.call(pool.leave, LEAVE_SECONDS)
                else:
                    stops.call(pool.stop)
                pool.run()
                if options.leave_on_stop:  # it was asked to leave, and did
                    return 0
        return stops.code
    except (RequestError, JobError) as error:
        log.debug("The worker ends.", exc_info=True)
        if stops.reason:
            log.warning("%s", stops.reason)
        else:
            log.error("%s", error)
        if options.restarts and isinstance(error, JobError) and error.failure is Failure.ENDED:
            code = 0
        return stops.code or code
    except Exception as error:
        log.debug("The worker ends.", exc_info=True)
        log.error("The worker failed inside: %s: %s.", type(error).__name__, error)
        return stops.code or 1


def task_of(workload: Workload) -> Task:
    """Return what each replica has to do."""
    return Task(workload.step, workload.initial)


@contextmanager
def _recording(path: Path | None, names: Sequence[str]) -> Iterator[TraceFile | None]:
    """Give a trace of replicas, and write it at the end, whatever that is."""
    if path is None:
        yield None
        return
    trace = TraceFile(path, [replica_row(name) for name in names])
    try:
        yield trace
    finally:
        try:
            trace.write()
        except JobError as error:
            log.error("%s", error)


@contextmanager
def _network(options: Options) -> Iterator[OpenChannel]:
    """Give what opens channels; where something is to go wrong on them, say at the end what has."""
    if not options.chaos:
        yield open_channel
        return
    from paramserver.chaos.network import FaultyNetwork
    from paramserver.chaos.plan import WORKER, parse_own_faults

    faults, position = parse_own_faults(options.chaos), (WORKER, options.index or 0)
    with FaultyNetwork(faults, options.chaos_seed, position) as network:
        try:
            yield network.open
        finally:
            log.info("Gone wrong on purpose: %s.", network.account())
