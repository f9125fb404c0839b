"""One JSON object per line, appended while a run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from paramserver.errors import Failure, JobError, RequestError
from paramserver.storage.atomic import json_text

LINE_BYTES_MAX = 1 << 20
"""Far more than any record takes; so much of the end is looked at for one that was torn."""


class MetricsWriter:
    """Append records to a ``.jsonl`` file.

    Each record goes out in one write to a file opened for appending, so lines of several threads or
    processes never mix, and a reader may follow the file while it grows. As a context manager it closes
    itself.

    Args:
        path: the file; it is created where it does not exist.

    Raises:
        JobError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            _cut_off_torn_line(self._handle)
        except OSError as error:
            raise JobError(f"{path} cannot be opened for writing: {error.strerror}.") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record; see `json_text` for what it may hold.

        Raises:
            JobError: the disk refuses, or the writer is closed.
        """
        if self._handle is None:
            raise JobError(f"{self.path} was closed before this record came.", Failure.ENDED)
        line = (json_text(record) + "\n").encode()
        try:
            written = os.write(self._handle, line)
        except OSError as error:
            raise JobError(f"{self.path} cannot be written: {error.strerror}. Free some space.") from error
        if written < len(line):
            _cut_off_torn_line(self._handle)
            raise JobError(
                f"{self.path} cannot be written: the disk took only part of a line. Free some space."
            )

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cut_off_torn_line(handle: int) -> None:
    """Cut off what follows the last whole line, so that the next one does not join it."""
    size = os.fstat(handle).st_size
    tail = os.pread(handle, LINE_BYTES_MAX, max(0, size - LINE_BYTES_MAX))
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(handle, size - torn)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all whole records; a last line that is still being written, or was torn by a crash, is left out.

    Raises:
        RequestError: the file cannot be read, or a line before the last is not a JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is no whole line
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise RequestError(f"{path}, line {number}, should be a JSON object, but it is {line[:40]!r}.")
        records.append(record)
    return records
