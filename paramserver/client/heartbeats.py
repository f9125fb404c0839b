"""A thread that says that replicas are alive, and hears whether the job is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from paramserver.client.connection import Connection
from paramserver.errors import JobError, RequestError
from paramserver.events import Beat, HeartbeatAnswered

log = logging.getLogger("client")

SILENCE_BEATS = 30
"""So many heartbeats without an answer mean that the coordinator is gone."""

HURRIED_SECONDS = 0.2
"""Between two heartbeats of somebody who only waits for the end."""

LAST_ATTEMPTS, LAST_SECONDS = 3, 1.0
"""How often, and for how long each time, it is said that the job's end was heard."""

LATE_SECONDS = 5.0
"""How long an answer may take before the next heartbeat is sent."""


class Heartbeats:
    """Sends heartbeats from a thread of its own until stopped; use it in a ``with`` block.

    Args:
        connection: to the coordinator.
        seconds: from one heartbeat to the next; a join's ``heartbeat_seconds``.
        beats: returns what to say of each replica; called in the thread.
        on_answer: told what the coordinator says; called in the thread.
        on_silence: told a sentence once the coordinator has not answered for long; called in the thread.
        patience_seconds: how long that is at least.
    """

    def __init__(
        self,
        connection: Connection,
        seconds: float,
        beats: Callable[[], Sequence[Beat]],
        on_answer: Callable[[HeartbeatAnswered], None] = lambda answer: None,
        on_silence: Callable[[str], None] = lambda sentence: None,
        patience_seconds: float = 0.0,
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self._beats = beats
        self._on_answer = on_answer
        self._on_silence = on_silence
        self._silence_seconds = max(seconds * SILENCE_BEATS, patience_seconds)
        self._changed = threading.Condition()
        self._hurries = False  # guarded by _changed
        self._stopped = False  # guarded by _changed
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> Heartbeats:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def hurry(self) -> None:
        """Send more of them from now on, to hear of the job's end soon after it has come."""
        with self._changed:
            if not self._hurries:
                self._hurries, self._seconds = True, min(self._seconds, HURRIED_SECONDS)
                self._changed.notify_all()

    def stop(self) -> None:
        """Send no more; blocks for a moment where one is under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(self._seconds)

    def _run(self) -> None:
        answered = time.monotonic()
        while not self._stopped:
            try:
                answer = self._connection.heartbeat(self._beats(), max(self._seconds, LATE_SECONDS))
            except (JobError, RequestError) as error:
                log.debug("A heartbeat failed: %s", error)
                if time.monotonic() > answered + self._silence_seconds:
                    self._on_silence(str(error))
                    return
            else:
                answered = time.monotonic()
                if answer.ended:
                    self._say_that_it_was_heard()
                self._on_answer(answer)
                if answer.ended:
                    return
            self._pause()

    def _say_that_it_was_heard(self) -> None:
        """Let the coordinator go, which stays until everyone has heard of the end."""
        for _ in range(LAST_ATTEMPTS):
            try:
                self._connection.heartbeat(self._beats(), LAST_SECONDS, heard_end=True)
                return
            except (JobError, RequestError) as error:
                log.debug("The last heartbeat failed: %s", error)

    def _pause(self) -> None:
        """Wait for the next one's time, or until there is a hurry."""
        with self._changed:
            hurried = self._hurries
            self._changed.wait_for(lambda: self._stopped or self._hurries > hurried, self._seconds)
