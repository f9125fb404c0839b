"""Signals as something to look at, not as something that strikes in the middle of a line.

A handler only takes note. Whoever waits does so here, and is woken; so a process that is being started is
always either not started or in the list of those to be stopped.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818 - nothing has gone wrong
    """Somebody wants this process to end.

    Attributes:
        code: exit code by the shell's convention, 128 plus the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"Interrupted by {signal.Signals(number).name}.")
        self.code = 128 + number


class Interruption:
    """Takes note of SIGINT, SIGTERM and SIGHUP while it is entered; main thread only.

    Attributes:
        count: how many have come.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Interruption:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started with nohup
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_end)
        os.close(self._write_end)

    def check(self) -> None:
        """Raise if a signal has come.

        Raises:
            Interrupted: the first one that came.
        """
        if self._first is not None:
            raise Interrupted(self._first)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal comes.

        Raises:
            Interrupted: one has come.
        """
        self.check()
        select.select([self._read_end], [], [], seconds)
        self.check()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._first is None:
            self._first = number
            os.write(self._write_end, b"!")
