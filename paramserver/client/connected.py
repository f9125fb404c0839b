"""One replica that a loop of one's own drives; ``own_loop`` makes it.

To the next editor: this is what a worker's thread does, turned inside out. There, ``training`` calls for
gradients; here, the caller's loop calls for weights. Heartbeats, push ids, retries and the account of every
gradient are the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, overload

import numpy as np

from paramserver.client.clients import ReplicaClient
from paramserver.client.heartbeats import Heartbeats
from paramserver.client.reading import FencedError, OnWaiting
from paramserver.errors import Fault, JobError, RequestError
from paramserver.events import (
    Beat,
    Counters,
    HeartbeatAnswered,
    Outcome,
    Phase,
    PullParked,
    Verdict,
)
from paramserver.rows import Gradient, RowGradient, RowsByKey
from paramserver.tally import Tally
from paramserver.training import count_refusals
from paramserver.types import AnyArray, Array


class ConnectedReplica:
    """One replica of a job, driven by a training loop of your own; ``connect`` makes it.

    Leaving its ``with`` block ends its part: after the last step in good order, after an exception with a
    sentence that ends the job for everyone. What is no ``Exception`` (Ctrl-C, ``sys.exit``) is to the job
    this replica's death, which ``on_death`` decides about.

    One thread uses it; for more replicas in one process connect once in each thread.

    Attributes:
        rank: the number of this replica, from 0.
        clock: its finished steps; above 0 at the beginning if it is a restart.
        versions: updates applied on each shard to the weights that were pulled last.
        verdict: what is known last of a push. In a synchronous mode ``push`` says that the gradient is kept
            for its round, and the next ``pull`` brings what became of it.
    """

    def __init__(self, client: ReplicaClient, steps: int) -> None:
        self.rank = client.rank
        self.clock = client.clock
        self.versions: tuple[int, ...] = client.session.versions
        self.verdict: Verdict | None = None
        self._client = client
        self._steps = steps
        self._refused = 0
        self._has_pulled = False
        self._has_left = False
        self._lock = threading.Lock()
        self._tally = Tally(time.monotonic())  # guarded by _lock
        self._heartbeats = Heartbeats(
            client.connection,
            client.heartbeat_seconds,
            lambda: [self._beat()],
            self._heard,
            client.connection.stop,
        )
        self._heartbeats.__enter__()

    def __enter__(self) -> ConnectedReplica:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.leave()
        elif isinstance(error, FencedError) or not isinstance(error, Exception):
            self._close()
        else:
            ours = isinstance(error, RequestError | JobError)
            self.leave(str(error) if ours else f"Its training loop raised {type(error).__name__}: {error}.")

    @overload
    def pull(self, on_waiting: OnWaiting | None = None, rows: None = None) -> dict[str, Array]: ...

    @overload
    def pull(self, on_waiting: OnWaiting | None = None, *, rows: RowsByKey) -> dict[str, Any]: ...

    def pull(self, on_waiting: OnWaiting | None = None, rows: RowsByKey | None = None) -> dict[str, Any]:
        """Read the weights; blocks while the consistency model makes this replica wait.

        Args:
            on_waiting: told for whom the read waits, about once a second, and None once it waits no more.
            rows: which rows of which tables suffice, ``(n,) int64``, ascending, each once, by key; all else
                is read whole.

        Returns:
            Fresh float32 arrays by key, which are yours; ``RowValues`` of the tables whose rows are named.

        Raises:
            RequestError: there are no such rows, or what has them is no table.
            FencedError: this replica counts no more; connect again under the same name to go on.
            JobError: a server did not answer, the job is over, or too many gradients in a row were dropped.
        """
        self._enter(Phase.PULL)

        def note(parked: PullParked | None) -> None:
            self._enter(Phase.PULL if parked is None else Phase.WAIT)
            if on_waiting is not None:
                on_waiting(parked)

        pulled = self._client.pull(self.clock, note, rows)
        self.versions = pulled.versions
        self.verdict = pulled.verdict or self.verdict
        with self._lock:
            self._tally.pulled(pulled.clock_gap, pulled.verdict)
            self._tally.enter(Phase.COMPUTE, time.monotonic())
        self._has_pulled = True
        if pulled.verdict is not None:
            self._refused = count_refusals(self._refused, pulled.verdict)
        return pulled.values

    def push(
        self, gradients: Mapping[str, AnyArray | RowGradient], samples: int, loss: float = math.nan
    ) -> Verdict:
        """Send the gradient at the weights that were pulled last; blocks until all shards have answered.

        They answer at once. A shard that did not answer is sent the same push again, and applies it once.

        Args:
            gradients: for each key the mean gradient over the samples, of the weights' shapes, float32 or
                rounded to it; of a table a ``RowGradient`` of the touched rows will do. One that is not
                finite is dropped, and the verdict says so.
            samples: how many samples it is the mean over, >= 1: its weight in the mean of a round.
            loss: mean loss over these samples, for those who watch the job.

        Returns:
            What became of it: applied at a version with a staleness, buffered for a round, or dropped, and
            why.

        Raises:
            FencedError: this replica counts no more; connect again under the same name to go on.
            RequestError: nothing was pulled since the last push, or a key, shape or number does not fit;
                nothing has been sent.
            JobError: a server did not answer, the job is over, or too many gradients in a row were dropped.
        """
        if not self._has_pulled:
            raise RequestError(
                "A push belongs to the weights it was computed from, so pull once before each push.",
                Fault.PRECONDITION,
            )
        tensors = {key: _rounded_gradient(key, value) for key, value in gradients.items()}
        self._enter(Phase.PUSH)
        try:
            verdict = self._client.push(self.clock, tensors, samples)
        except JobError:  # nobody knows whether it has been applied
            with self._lock:
                self._tally.computed(samples, loss, self.clock)
                self._tally.lost()
            raise
        with self._lock:
            self._tally.computed(samples, loss, self.clock)
            self._tally.decided(verdict)
            self._tally.enter(Phase.IDLE, time.monotonic())
        self._has_pulled = False
        self.verdict = verdict
        if verdict.outcome is Outcome.FENCED:
            raise FencedError(verdict.reason, verdict.generation, verdict.clock)
        self.clock += 1
        if verdict.round < 0:  # what becomes of a round's gradient, the next pull says
            self._refused = count_refusals(self._refused, verdict)
        return verdict

    def leave(self, failure: str = "") -> None:
        """End this replica's part, once; the ``with`` block does it.

        In a synchronous mode it first waits for what becomes of the last push.

        Args:
            failure: empty after the last step; else a sentence, and the job ends with it.

        Raises:
            JobError: the job has failed, or its coordinator does not answer; not after a failure.
        """
        if self._has_left:
            return
        self._has_left = True
        try:
            if not failure and self.verdict is not None and self.verdict.outcome is Outcome.BUFFERED:
                self.pull(rows=dict.fromkeys(self._client.session.tables, np.empty(0, np.int64)))
            with self._lock:
                self._tally.lost()
                self._tally.enter(Phase.IDLE, time.monotonic())
            # What the coordinator shows of a replica that has left is what it heard last.
            self._client.connection.heartbeat([self._beat()], repeat=True)
            self._client.leave(self._counters(), failure)
        except (JobError, RequestError):
            if not failure:
                raise
        finally:
            self._close()

    def _close(self) -> None:
        self._has_left = True
        self._heartbeats.stop()
        self._client.connection.close()

    def _beat(self) -> Beat:
        with self._lock:
            phase = self._tally.phase
        return Beat(self._client.replica, self.clock, self._steps, phase, self._counters())

    def _counters(self) -> Counters:
        with self._lock:
            return self._tally.counters(time.monotonic())

    def _enter(self, phase: Phase) -> None:
        with self._lock:
            self._tally.enter(phase, time.monotonic())

    def _heard(self, answer: HeartbeatAnswered) -> None:
        if answer.ended and answer.reason:
            self._client.connection.stop(answer.reason)


def _rounded_gradient(key: str, value: AnyArray | RowGradient) -> Gradient:
    if isinstance(value, RowGradient):
        return RowGradient(value.indices, rounded(key, value.rows), value.shape)
    return rounded(key, value)


def rounded(key: str, value: AnyArray) -> Array:
    """Return a float of any size as float32; what is too large for that becomes an infinity.

    Raises:
        RequestError: it is no float; the message names the key.
    """
    found = np.asarray(value)
    if found.dtype.kind != "f":
        raise RequestError(
            f"The tensor '{key}' is {found.shape} {found.dtype}, expected float32. Convert it with "
            f"astype(np.float32)."
        )
    with np.errstate(over="ignore"):
        return np.asarray(found, np.float32, order="C")
