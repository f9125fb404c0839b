"""What ends a server before its job does: signals, the end of its parent, a failure inside."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True, slots=True)
class Stop:
    """Something ends this server before the job does.

    Attributes:
        sentence: why, for people.
        code: exit code of the process.
        number: the signal, if it was one: then the run is saved first.
    """

    sentence: str
    code: int
    number: signal.Signals | None = None


class Stops:
    """What ends this server, as it comes; signals are caught from now on.

    Args:
        exit_with_parent: the server ends, too, when standard input is closed.
    """

    def __init__(self, exit_with_parent: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Stop] = asyncio.Queue()
        for number, code in INTERRUPTED.items():
            stop = Stop(f"The server was stopped by {number.name}.", code, number)
            self._loop.add_signal_handler(number, self._queue.put_nowait, stop)
        if exit_with_parent:
            threading.Thread(target=self._watch_parent, name="parent", daemon=True).start()

    def fail(self, sentence: str) -> None:
        """End this server, since something has failed inside."""
        self._queue.put_nowait(Stop(sentence, 1))

    def fail_from_thread(self, sentence: str) -> None:
        """Do the same from any thread."""
        on_loop(self._loop, lambda: self.fail(sentence))

    async def before(self, running: asyncio.Task[int]) -> Stop | None:
        """Wait for what ends this server before its own end; None where that comes first."""
        stopping = asyncio.create_task(self._queue.get())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            return stopping.result()
        stopping.cancel()
        return None

    def _watch_parent(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self.fail_from_thread("The process that started this server has ended.")


def on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have something done on an event loop, from any thread; nothing happens once the loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)
