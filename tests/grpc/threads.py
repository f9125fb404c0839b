"""Several replicas of one process, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from raw import SECONDS


def in_threads(*loops: Callable[[], None]) -> None:
    """Run each loop in a thread; raise what the first of them raised."""
    raised: list[BaseException] = []

    def run(loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    if raised:
        raise raised[0]
