"""What happened when, for eyes: spans on rows, and arrows between them.

A row is a replica's thread or a shard's handler. A replica's row has ``pull``, with ``wait`` inside it,
``compute`` and ``push``; a shard's has ``apply``. An arrow goes from a push to where it is applied and on
to the first pull that sees it. Real and virtual time record the same, and `chrome_trace` writes both in the
Chrome trace event format, which Perfetto (https://ui.perfetto.dev) opens.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Note = str | int | float

COLOURS = {
    "compute": "thread_state_running",
    "pull": "rail_load",
    "push": "rail_response",
    "wait": "thread_state_uninterruptible",
    "apply": "rail_animation",
}
"""Names of Chrome's own palette, so that a kind of span looks the same in every trace."""

_STAGES = {"leaves": "s", "passes": "t", "arrives": "f"}


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """Whose time it is: a thread, or a shard's handler, and the process that it belongs to."""

    process: str
    thread: str


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted.

    Attributes:
        row: whose time it took.
        name: one of `COLOURS`.
        begin: nanoseconds from the beginning of the trace.
        end: nanoseconds, not before the beginning.
        notes: more about it, by name.
    """

    row: Row
    name: str
    begin: int
    end: int
    notes: Mapping[str, Note] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arrow:
    """One station of an arrow between spans.

    Attributes:
        name: of the arrow; its stations share it.
        stage: ``leaves``, ``passes`` or ``arrives``.
        row: of the span that it touches here.
        at: nanoseconds, inside that span.
    """

    name: str
    stage: Literal["leaves", "passes", "arrives"]
    row: Row
    at: int


Record = Span | Arrow


class Recorder:
    """Keeps the newest records.

    Args:
        records_max: so many; older ones are forgotten. 0 records nothing.

    Attributes:
        forgotten: how many are no longer kept.
    """

    def __init__(self, records_max: int) -> None:
        self.forgotten = 0
        self._records: deque[Record] = deque(maxlen=records_max)

    def add(self, record: Record) -> None:
        """Record something."""
        self.forgotten += len(self._records) == self._records.maxlen
        self._records.append(record)

    def records(self) -> tuple[Record, ...]:
        """Return what is kept, in the order in which it was recorded."""
        return tuple(self._records)


def chrome_trace(records: Iterable[Record], rows: Iterable[Row] = ()) -> bytes:
    """Write records as a file of Chrome trace events.

    Args:
        records: in any order.
        rows: to be shown in this order, before any others that the records have.

    Returns:
        JSON, the same bytes for the same arguments. Times are in microseconds with up to three decimals.

    Example:
        >>> row = Row("worker0", "worker0/0")
        >>> text = chrome_trace([Span(row, "compute", 1500, 4000)]).decode()
        >>> '"name":"compute","cat":"compute","cname":"thread_state_running","ts":1.5,"dur":2.5' in text
        True
    """
    records = list(records)
    known = list(dict.fromkeys([*rows, *sorted({record.row for record in records})]))
    processes = {name: number for number, name in enumerate(dict.fromkeys(row.process for row in known), 1)}
    places = {row: {"pid": processes[row.process], "tid": number} for number, row in enumerate(known, 1)}
    events: list[dict[str, Any]] = []
    for process, pid in processes.items():
        events.append(_named("process_name", {"pid": pid}, {"name": process}))
        events.append(_named("process_sort_index", {"pid": pid}, {"sort_index": pid}))
    for row, place in places.items():
        events.append(_named("thread_name", place, {"name": row.thread}))
        events.append(_named("thread_sort_index", place, {"sort_index": place["tid"]}))
    events += [_event(record, places[record.row]) for record in records]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return f'{{"displayTimeUnit":"ms","traceEvents":[\n{lines}\n]}}\n'.encode()


def _named(what: str, place: Mapping[str, int], arguments: Mapping[str, Note]) -> dict[str, Any]:
    return {"ph": "M", "name": what, **place, "args": arguments}


def _event(record: Record, place: Mapping[str, int]) -> dict[str, Any]:
    if isinstance(record, Span):
        colour = {"cname": COLOURS[record.name]} if record.name in COLOURS else {}
        return {
            "ph": "X",
            "name": record.name,
            "cat": record.name,
            **colour,
            "ts": record.begin / 1000,
            "dur": (record.end - record.begin) / 1000,
            **place,
            "args": dict(record.notes),
        }
    arrow = {"ph": _STAGES[record.stage], "name": "update", "cat": "update", "id": record.name}
    # An arrow ends at the span around it, not at the next one that begins.
    ending = {"bp": "e"} if record.stage == "arrives" else {}
    return {**arrow, **ending, "ts": record.at / 1000, **place}
