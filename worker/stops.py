"""How a worker ends early: SIGTERM, SIGINT, or the end of the process that started it.

Signals are blocked in every thread and taken by one that does nothing else. So no handler ever runs in the
middle of other code, and a process 1, for whom the kernel drops signals without a handler, gets them, too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

log = logging.getLogger("worker")

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""Exit codes by signal, as shells give them: 128 plus its number."""

LEAVE_SECONDS = 60.0
"""How long it may take to leave in good order, which is after the present step."""

STOP_SECONDS = 4.0
"""How long an orderly stop may take; then the process ends anyway. Less than a launcher waits to kill."""


class Stops:
    """The one way in which a worker learns that it has to stop. Make it before any other thread exists.

    Attributes:
        code: what the process has to exit with; 0 while nobody has asked it to stop.
        reason: why, as a sentence.
    """

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, CODES)
        self.code = 0
        self.reason = ""
        self._lock = threading.Lock()
        self._callback: Callable[[str], None] | None = None  # guarded by _lock
        self._seconds = STOP_SECONDS  # guarded by _lock

    def listen(self, exit_with_parent: bool) -> None:
        """Begin to listen; with ``exit_with_parent`` also for the end of standard input."""
        threading.Thread(target=self._take_signals, name="signals", daemon=True).start()
        if exit_with_parent:
            threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()

    def call(self, callback: Callable[[str], None], seconds: float = STOP_SECONDS) -> None:
        """Call this with the reason when a stop is asked for, or now if one has been.

        Until there is somebody to call, a stop ends the process at once: nothing has been begun.

        Args:
            callback: what to call.
            seconds: how long it may take to end then.
        """
        with self._lock:
            self._callback, self._seconds = callback, seconds
            reason = self.reason
        if reason:
            callback(reason)

    def _take_signals(self) -> None:
        while True:
            number = signal.Signals(signal.sigwait(CODES))
            self._stop(f"It was stopped by {number.name}.", CODES[number])

    def _watch_parent(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self._stop("The process that started it has ended.", 1)

    def _stop(self, reason: str, code: int) -> None:
        with self._lock:
            again = bool(self.reason)
            self.reason, self.code = self.reason or reason, self.code or code
            callback, seconds = self._callback, self._seconds
        if again or callback is None:
            self._exit(self.reason)
            return
        timer = threading.Timer(seconds, self._exit, [f"{reason} It did not end in time by itself."])
        timer.daemon = True
        timer.start()
        callback(reason)

    def _exit(self, sentence: str) -> None:
        log.warning("%s", sentence)
        logging.shutdown()
        os._exit(self.code)
