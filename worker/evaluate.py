"""The evaluator: an observer that scores the newest weights while others train, and the final ones once."""

from __future__ import annotations

import logging
import time

from paramserver.client import Connection, ObserverClient
from paramserver.consistency import parse_consistency
from paramserver.data import Dataset
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import Score
from paramserver.models import Trainable, score
from paramserver.session import Pulled

log = logging.getLogger("worker")

LOOK_SECONDS = 0.25
"""Between two looks whether the job is over; each costs a millisecond."""

SILENCE_SECONDS = 1.0
"""After so long without an answer servers are gone that cannot come back."""

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
        follower = _Follower(connection, observer, model, validation, test)
        _follow(follower, connection, max(SILENCE_SECONDS, observer.granted.patience_seconds))
    except JobError as error:
        log.warning("There is nothing more to evaluate. %s", error)


def _follow(follower: _Follower, connection: Connection, patience_seconds: float) -> None:
    """Look again and again until the job is over; ride out the loss of a server that may come back."""
    lost: float | None = None  # since when nothing is heard
    while True:
        try:
            if follower.look():
                return
            lost = None
        except JobError as error:
            now = time.monotonic()
            lost = now if lost is None else lost
            if error.failure is Failure.ENDED or now >= lost + patience_seconds:
                raise
            log.debug("The job cannot be looked at: %s", error)
        connection.pause(LOOK_SECONDS)


class _Follower:
    """Scores one job as it goes."""

    def __init__(
        self,
        connection: Connection,
        observer: ObserverClient,
        model: Trainable,
        validation: Dataset,
        test: Dataset,
    ) -> None:
        self._connection = connection
        self._observer = observer
        self._model = model
        self._validation = validation
        self._test = test
        self._scored: tuple[int, ...] | None = None
        self._next_at = time.monotonic()

    def look(self) -> bool:
        """Score the weights if it is time to; return True, after the final score, once the job is over.

        Raises:
            JobError: a server does not answer.
        """
        status = self._connection.status(repeat=False).job
        if status is None:
            where = self._connection.coordinator
            raise JobError(f"The server at {where} is not the first one of its job.", Failure.ENDED)
        if status.ended:
            if status.reason:
                log.info("The job failed: %s", status.reason)
            elif status.sealed:
                self._score(self._observer.pull(), self._test, "test")
            return True
        began, used = time.monotonic(), time.process_time()
        if status.sealed and began >= self._next_at:
            pulled = self._observer.pull()
            if pulled.versions != self._scored:
                self._score(pulled, self._validation, "validation")
                self._scored = pulled.versions
            used = time.process_time() - used
            self._next_at = began + max(SCORE_SECONDS, used / CORE_SHARE)
        return False

    def _score(self, pulled: Pulled, data: Dataset, split: str) -> None:
        found = score(self._model, pulled.values, data.inputs, data.labels)
        gathers = parse_consistency(self._observer.job.consistency).gathers
        rounds = pulled.rounds if gathers else -1
        version = max(pulled.versions)
        self._connection.score(
            Score(split, version, rounds, found.loss, found.accuracy, found.samples, found.auc)
        )
        log.info("At version %d: %s accuracy %.4f, loss %.4f.", version, split, found.accuracy, found.loss)


def _observe(connection: Connection, name: str, seconds: float) -> ObserverClient | None:
    """Join; None if the job is over already."""
    try:
        return connection.observe(name, seconds, scores=True)
    except JobError as error:
        if error.failure is not Failure.ENDED:
            raise
        log.info("There is nothing to evaluate. %s", error)
        return None
