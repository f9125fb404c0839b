"""What happened when, for eyes: spans on rows, and arrows between them.

A row is a replica's thread or a shard's handler. A replica's row has ``pull``, with ``wait`` inside it,
``compute`` and ``push``; a shard's has ``apply``. An arrow goes from a push to where it is applied and on
to the first pull that sees it. Real and virtual time record the same; `chrome_trace` writes both in the
Chrome trace event format, which Perfetto (https://ui.perfetto.dev) opens, and `read_chrome_trace` reads them
back.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from paramserver.errors import RequestError

Note = str | int | float

COLOURS = {
    "compute": "thread_state_running",
    "pull": "rail_load",
    "push": "rail_response",
    "wait": "thread_state_uninterruptible",
    "apply": "rail_animation",
}
"""Names of Chrome's own palette, so that a kind of span looks the same in every trace."""

Stage = Literal["leaves", "passes", "arrives"]
_STAGES: dict[Stage, str] = {"leaves": "s", "passes": "t", "arrives": "f"}
_STAGE_OF = {letter: stage for stage, letter in _STAGES.items()}


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
    stage: Stage
    row: Row
    at: int


Record = Span | Arrow
Trace = tuple[tuple[Row, ...], tuple[Record, ...]]
"""Rows in the order in which they are shown, and records in any."""


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


def place(record: Record) -> tuple[int, int]:
    """Return what records are sorted by: when they begin, and of two at once the longer first."""
    return (record.begin, -record.end) if isinstance(record, Span) else (record.at, 0)


def moved(record: Record, shift: int) -> Record:
    """Return a record so many nanoseconds later."""
    if isinstance(record, Span):
        return replace(record, begin=record.begin + shift, end=record.end + shift)
    return replace(record, at=record.at + shift)


def counted_from(began: int, records: Iterable[Record]) -> list[Record]:
    """Count time from a moment, in nanoseconds, and leave out what was over by then.

    Example:
        >>> row = Row("worker0", "worker0/0")
        >>> counted_from(10, [Span(row, "push", 5, 9), Span(row, "pull", 9, 12)])
        [Span(row=Row(process='worker0', thread='worker0/0'), name='pull', begin=0, end=2, notes={})]
    """
    kept: list[Record] = []
    for record in records:
        if isinstance(record, Span) and record.begin < began <= record.end:
            kept.append(replace(record, begin=0, end=record.end - began))
        elif place(record)[0] >= began:
            kept.append(moved(record, -began))
    return kept


def chrome_trace(
    records: Iterable[Record],
    rows: Iterable[Row] = (),
    notes: Mapping[str, Note] = MappingProxyType({}),
) -> bytes:
    """Write records as a file of Chrome trace events.

    Args:
        records: in any order.
        rows: to be shown in this order, before any others that the records have.
        notes: about the trace as a whole, by name.

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
    other = f'"otherData":{json.dumps(dict(notes), separators=(",", ":"))},' if notes else ""
    return f'{{"displayTimeUnit":"ms",{other}"traceEvents":[\n{lines}\n]}}\n'.encode()


def read_chrome_trace(data: bytes) -> Trace:
    """Read a file that `chrome_trace` wrote.

    Args:
        data: the whole file.

    Returns:
        The rows in the order in which they are shown, and the records in the order of the file.

    Raises:
        RequestError: it is no such file.

    Example:
        >>> row = Row("server0", "shard 0")
        >>> read_chrome_trace(chrome_trace([Span(row, "apply", 1500, 4000)]))[1]
        (Span(row=Row(process='server0', thread='shard 0'), name='apply', begin=1500, end=4000, notes={}),)
    """
    events = _load(data)["traceEvents"]
    rows, records = dict[tuple[int, int], Row](), list[Record]()
    processes: dict[int, str] = {}
    for number, event in enumerate(events, 1):
        try:
            match event["ph"]:
                case "M" if event["name"] == "process_name":
                    processes[event["pid"]] = _text(event["args"]["name"])
                case "M" if event["name"] == "thread_name":
                    place = event["pid"], event["tid"]
                    rows[place] = Row(processes[event["pid"]], _text(event["args"]["name"]))
                case "M":
                    pass
                case _:
                    records.append(_record(event, rows[event["pid"], event["tid"]]))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise RequestError(
                f"Event {number} of the trace is none that paramserver writes: {json.dumps(event)[:100]}. "
                f"{_EXPECTED}"
            ) from None
    return tuple(rows.values()), tuple(records)


def read_trace_notes(data: bytes) -> dict[str, Note]:
    """Read what a file that `chrome_trace` wrote says about the trace as a whole.

    Raises:
        RequestError: it is no such file.

    Example:
        >>> read_trace_notes(chrome_trace([], notes={"forgotten": 3}))
        {'forgotten': 3}
    """
    try:
        return _notes(_load(data).get("otherData", {}))
    except TypeError:
        raise RequestError(
            f"The notes of the trace ('otherData') are no texts and numbers. {_EXPECTED}"
        ) from None


_EXPECTED = "Expected a trace.json that 'paramserver train --trace' or 'paramserver simulate --trace' wrote."


def _load(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The trace is not JSON: {error}. {_EXPECTED}") from None
    if not isinstance(found, dict) or not isinstance(found.get("traceEvents"), list):
        raise RequestError(f"The file is JSON, but it has no list 'traceEvents'. {_EXPECTED}")
    return found


def _record(event: Mapping[str, Any], row: Row) -> Record:
    at = _nanoseconds(event["ts"])
    if event["ph"] in _STAGE_OF:
        return Arrow(_text(event["id"]), _STAGE_OF[event["ph"]], row, at)
    name, duration = _text(event["name"]), _nanoseconds(event["dur"])
    if event["ph"] != "X" or event["cat"] != name or duration < 0:
        raise ValueError
    return Span(row, name, at, at + duration, _notes(event["args"]))


def _nanoseconds(microseconds: float) -> int:
    if not isinstance(microseconds, int | float):
        raise TypeError
    return round(microseconds * 1000)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _notes(value: object) -> dict[str, Note]:
    if not isinstance(value, dict) or not all(isinstance(note, Note) for note in value.values()):
        raise TypeError
    return value


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
