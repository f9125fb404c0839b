"""The trace of one process as a file, and one trace of the files of all.

Every process counts from a moment of its own, and notes when that was on two clocks: the steady one, which
all processes of a machine share, and the calendar, which brings several machines together as well as theirs
agree.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from paramserver.errors import RequestError
from paramserver.storage.atomic import replacing
from paramserver.tracing import (
    Note,
    Record,
    Recorder,
    Row,
    chrome_trace,
    counted_from,
    moved,
    place,
    read_chrome_trace,
    read_trace_notes,
)

RECORDS_MAX = 200_000
"""Newest records that one process keeps: some 60 MB, and ten minutes of 100 steps a second."""

TRAINING = "training_began_ns"
"""The note of the process that knows when training began, in nanoseconds of its trace."""

MERGED_MAX = 1_000_000
"""Newest records that the trace of all processes keeps: some 200 MB, and 2 GB while it is made."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class TraceFile:
    """What one process records, written as a whole at its end.

    Each row has a ring of its own, which one thread at a time may write to.

    Args:
        path: of the file.
        rows: of this process, in the order in which they are shown.

    Attributes:
        recorders: by row.

    Raises:
        RequestError: there is no such folder.
    """

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        if not path.parent.is_dir():
            raise RequestError(
                f"The trace {path} cannot be written, since there is no folder {path.parent}. Make it, or "
                "name another file with --trace."
            )
        self.recorders = {row: Recorder(RECORDS_MAX // len(rows)) for row in rows}
        self._path = path
        self._origin = time.monotonic_ns()
        self._unix = time.time_ns()

    def now(self) -> int:
        """Return the time, in nanoseconds of this trace."""
        return time.monotonic_ns() - self._origin

    def write(self, training_began: float | None = None) -> None:
        """Write what has been recorded; blocks for about 3 seconds where that is the most there can be.

        Args:
            training_began: seconds of the machine's steady clock, where they are known.

        Raises:
            JobError: the disk refuses.
        """
        notes: dict[str, Note] = {
            "clock": _clock(),
            "monotonic_ns": self._origin,
            "unix_ns": self._unix,
            "forgotten": sum(recorder.forgotten for recorder in self.recorders.values()),
        }
        if training_began is not None:
            notes[TRAINING] = round(training_began * 1e9) - self._origin
        records = [record for recorder in self.recorders.values() for record in recorder.records()]
        with replacing(self._path) as file:
            file.write(chrome_trace(records, self.recorders, notes))


def merge_traces(files: Iterable[bytes], notes: Mapping[str, Note]) -> bytes:
    """Make one trace of the files of several processes.

    Time counts from the moment when training began, where the first of them knows it, else from the first
    record. What was over by then is left out.

    Args:
        files: what each process has written, in the order in which their rows are shown.
        notes: about the trace as a whole, beside how many records were forgotten.

    Returns:
        A file of Chrome trace events.

    Raises:
        RequestError: one is no such file.
    """
    rows: list[Row] = []
    records: list[Record] = []
    reference: Mapping[str, Note] | None = None
    forgotten = 0
    for data in files:
        found = read_trace_notes(data)
        more, recorded = read_chrome_trace(data)
        reference = found if reference is None else reference
        shift = _shift(found, reference)
        rows += more
        records += [moved(record, shift) for record in recorded]
        records.sort(key=place)
        forgotten += _whole(found, "forgotten") + len(records[:-MERGED_MAX])
        del records[:-MERGED_MAX]
    if reference is not None and TRAINING in reference:
        began = _whole(reference, TRAINING)
    else:
        began = place(records[0])[0] if records else 0
    return chrome_trace(counted_from(began, records), rows, {"time": "real", **notes, "forgotten": forgotten})


def _shift(found: Mapping[str, Note], reference: Mapping[str, Note]) -> int:
    """Return what to add to the times of a trace to get those of the trace of reference."""
    clock = "monotonic_ns" if found.get("clock") == reference.get("clock") else "unix_ns"
    return _whole(found, clock) - _whole(reference, clock)


def _whole(notes: Mapping[str, Note], name: str) -> int:
    found = notes.get(name)
    if not isinstance(found, int):
        raise RequestError(
            f"The trace has no whole number '{name}' among its notes. Expected the trace of one process, as "
            "'--trace' of the programs server and worker writes it."
        )
    return found


def _clock() -> str:
    """Name this machine's steady clock: by its latest start, which containers share, or by its name."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return platform.node()
