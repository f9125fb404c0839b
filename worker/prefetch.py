"""Batches made ahead of time: one thread makes them, a bounded queue holds them, a replica takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import Generic, TypeVar

from paramserver.errors import JobError, RequestError

DEPTH = 2
"""Batches that wait ready: one is enough to hide the making, the second evens it out."""

LOOK_SECONDS = 5.0
"""How long the maker waits for room before it looks whether it is still wanted; a stop wakes it at once."""

BatchT = TypeVar("BatchT")


class _Failed:
    """Takes the place of a batch that could not be made."""

    def __init__(self, error: RequestError | JobError) -> None:
        self.error = error


class Prefetch(Generic[BatchT]):
    """The batches of one replica, in order; use it in a ``with`` block.

    Args:
        batch_at: makes the batch of a step, None after the last one; called in the maker's thread alone.
        first: the first step.
        timeout_seconds: how long a batch may take.
    """

    def __init__(self, batch_at: Callable[[int], BatchT | None], first: int, timeout_seconds: float) -> None:
        self._make = batch_at
        self._first = first
        self._timeout_seconds = timeout_seconds
        self._ready: queue.Queue[tuple[int, BatchT | _Failed | None]] = queue.Queue(DEPTH)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetch[BatchT]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("This replica has ended.")
        self._thread.join(LOOK_SECONDS)

    def stop(self, reason: str) -> None:
        """Make no more batches, and wake who waits for one with this sentence; any thread may call."""
        self._stopped.set()
        with suppress(queue.Empty):
            while True:
                self._ready.get_nowait()  # so that the maker finds room, and sees that it is not wanted
        with suppress(queue.Full):
            self._ready.put_nowait((-1, _Failed(JobError(reason))))

    def batch_at(self, step: int) -> BatchT | None:
        """Take the batch of a step, None after the last; blocks until it is made. Steps come in order.

        Raises:
            RequestError: the data is to blame.
            JobError: it could not be made, or not in time, or nobody wants it any more.
        """
        try:
            found, batch = self._ready.get(timeout=self._timeout_seconds)
        except queue.Empty:
            raise JobError(
                f"The batch of step {step} was not ready within {self._timeout_seconds:g} s."
            ) from None
        if isinstance(batch, _Failed):
            raise batch.error
        assert found == step, f"Batch {found} is next, not {step}."
        return batch

    def _run(self) -> None:
        for step in count(self._first):
            batch = self._try(step)
            while not self._stopped.is_set():
                try:
                    self._ready.put((step, batch), timeout=LOOK_SECONDS)
                    break
                except queue.Full:
                    continue
            if self._stopped.is_set() or batch is None or isinstance(batch, _Failed):
                return

    def _try(self, step: int) -> BatchT | _Failed | None:
        try:
            return self._make(step)
        except (RequestError, JobError) as error:
            return _Failed(error)
        except Exception as error:
            failure = JobError(f"The batch of step {step} cannot be made: {type(error).__name__}: {error}.")
            failure.__cause__ = error
            return _Failed(failure)
