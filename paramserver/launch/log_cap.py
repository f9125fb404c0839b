"""Logs that do not fill the disk: one thread looks at the sizes of all logs, and cuts what is too long."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

LOOK_SECONDS = 0.2
"""Between two looks: what a process writes in this time is how far a log can exceed its limit."""

LOG_BYTES_MAX = 64 << 20
"""Of each log, where nobody says otherwise: hours of one line for each refused call."""

LOG_BYTES_MIN = 1 << 16


class LogCap:
    """Keeps the newest half of each log that has grown too long; use it in a ``with`` block.

    Whoever writes the logs has to append (``O_APPEND``), so that they go on at the new end.

    Args:
        bytes_max: of each log.
    """

    def __init__(self, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._paths: list[Path] = []  # appended to by the owner alone
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log cap", daemon=True)

    def __enter__(self) -> LogCap:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        self.look()

    def watch(self, path: Path) -> None:
        """Look at this log from now on."""
        if path not in self._paths:
            self._paths.append(path)

    def look(self) -> None:
        """Cut what is too long now."""
        for path in tuple(self._paths):
            try:
                if path.stat().st_size > self._bytes_max:
                    self._cut(path)
            except OSError:
                continue  # it is gone, or the disk is full: there is nothing better to do for a log

    def _cut(self, path: Path) -> None:
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            file.seek(size - self._bytes_max // 2)
            kept = file.read(self._bytes_max // 2)
            kept = kept[kept.find(b"\n") + 1 :]
            file.truncate(0)
        told = f"--- {size - len(kept):,} bytes are left out here: see --log-bytes-max ---\n"
        with path.open("ab") as file:
            file.write(told.encode() + kept)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self.look()
