"""The evaluator: an observer that scores the newest weights while others train, and the final ones once."""

from __future__ import annotations

import logging
import time

from paramserver.client import Connection, ObserverClient
from paramserver.consistency import parse_consistency
from paramserver.data import Dataset
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import JobStatus, Score
from paramserver.models import Trainable, score
from paramserver.session import Pulled

log = logging.getLogger("worker")

LOOK_SECONDS = 0.25
"""Between two looks whether the job is over; each costs a millisecond."""

LOOKS_MAX = 4
"""After so many looks without an answer the servers are gone."""

SCORE_SECONDS = 1.0
"""Least time between two scores."""

CORE_SHARE = 0.2
"""The evaluator uses at most this share of one core, since those who train need them."""


def evaluate(
    connection: Connection,
    model: Trainable,
    validation: Dataset,
    test: Dataset,
    name: str,
    join_timeout_seconds: float,
) -> None:
    """Score the validation set while the job runs and the test set once when it has finished.

    Blocks until the job is over. A job that fails, or servers that are gone, are no failure of the evaluator:
    it says so and returns.

    Args:
        connection: to the servers.
        model: what the weights belong to.
        validation: scored again and again.
        test: scored once.
        name: who this is, for people.
        join_timeout_seconds: how long to try while there is no job.

    Raises:
        RequestError: the job trains another model.
        JobError: there was no job in time, or the connection was stopped.
    """
    observer = _observe(connection, name, join_timeout_seconds)
    if observer is None:
        return
    if observer.session.shapes != dict(model.shapes):
        raise RequestError(
            f"The job at {connection.coordinator} does not train the model '{model.spec}'. Evaluate with the "
            "job file that its workers have.",
            Fault.PRECONDITION,
        )
    try:
        _follow(connection, observer, model, validation, test)
    except JobError as error:
        log.warning("There is nothing more to evaluate. %s", error)


def _follow(
    connection: Connection, observer: ObserverClient, model: Trainable, validation: Dataset, test: Dataset
) -> None:
    scored: tuple[int, ...] | None = None
    next_at = time.monotonic()
    while not (status := _status(connection)).ended:
        began, used = time.monotonic(), time.process_time()
        if status.sealed and began >= next_at:
            pulled = observer.pull()
            if pulled.versions != scored:
                _score(connection, observer, model, pulled, validation, "validation")
                scored = pulled.versions
            used = time.process_time() - used
            next_at = began + max(SCORE_SECONDS, used / CORE_SHARE)
        connection.pause(LOOK_SECONDS)
    if status.reason:
        log.info("The job failed: %s", status.reason)
    elif status.sealed:
        _score(connection, observer, model, observer.pull(), test, "test")


def _observe(connection: Connection, name: str, seconds: float) -> ObserverClient | None:
    """Join; None if the job is over already."""
    try:
        return connection.observe(name, seconds, scores=True)
    except JobError as error:
        if error.failure is not Failure.ENDED:
            raise
        log.info("There is nothing to evaluate. %s", error)
        return None


def _status(connection: Connection) -> JobStatus:
    """Return how the job stands; give up soon, for a job that fails takes its servers with it."""
    for attempt in range(LOOKS_MAX):
        try:
            job = connection.status(repeat=False).job
            break
        except JobError as error:
            if error.failure is Failure.ENDED or attempt + 1 == LOOKS_MAX:
                raise
        connection.pause(LOOK_SECONDS)
    if job is None:
        raise JobError(f"The server at {connection.coordinator} is not the first one of its job.")
    return job


def _score(
    connection: Connection,
    observer: ObserverClient,
    model: Trainable,
    pulled: Pulled,
    data: Dataset,
    split: str,
) -> None:
    found = score(model, pulled.values, data.inputs, data.labels)
    rounds = pulled.rounds if parse_consistency(observer.job.consistency).gathers else -1
    version = max(pulled.versions)
    connection.score(Score(split, version, rounds, found.loss, found.accuracy, found.samples, found.auc))
    log.info("At version %d: %s accuracy %.4f, loss %.4f.", version, split, found.accuracy, found.loss)
