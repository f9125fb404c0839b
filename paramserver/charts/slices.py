"""What is shown of a trace: rows that have room, a stretch of time, and nothing too thin to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from paramserver.charts.ticks import time_text
from paramserver.errors import RequestError
from paramserver.tracing import Arrow, Note, Record, Row, Span

NEAR: Final = 0.05
"""A trace that begins this early, as a share of its end, is shown from 0."""

NO_NOTES: Final[Mapping[str, Note]] = {}


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, in nanoseconds from the beginning of the trace.

    Attributes:
        begin: where it begins.
        end: where it ends, after the beginning.
    """

    begin: int
    end: int

    @property
    def length(self) -> int:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Slice:
    """One box of a row.

    Attributes:
        name: of the span, or of what took most of the time of several.
        begin: nanoseconds, inside the window.
        end: nanoseconds, inside the window.
        depth: how many others it lies in.
        notes: of the span; none where it stands for several.
        whole: how long the span lasts, in nanoseconds, also outside of the window.
        several: how long each kind took of those that it stands for; empty for a single one.
    """

    name: str
    begin: int
    end: int
    depth: int
    notes: Mapping[str, Note]
    whole: int
    several: Mapping[str, int] = field(default_factory=dict)


Way = tuple[Arrow, ...]
"""The stations of one arrow, in the order of time."""


def window_of(records: Sequence[Record], begin: int | None, end: int | None) -> Window:
    """Return the stretch of time that is shown.

    Args:
        records: of the trace.
        begin: nanoseconds; None: where the trace begins.
        end: nanoseconds; None: where it ends.

    Raises:
        RequestError: the trace is empty, or nothing of it lies there.
    """
    spans = [record for record in records if isinstance(record, Span)]
    if not spans:
        raise RequestError("The trace is empty: nothing was recorded, so there is nothing to draw.")
    first, last = min(span.begin for span in spans), max(span.end for span in spans)
    # An axis from 0 is easier to read than one from 0.2 ms.
    usual = 0 if 0 <= first <= last * NEAR else first
    window = Window(usual if begin is None else begin, last if end is None else end)
    if None not in (begin, end) and window.end <= window.begin:
        raise RequestError(
            f"A timeline goes from an earlier to a later time, but not from {time_text(window.begin)} to "
            f"{time_text(window.end)}. Exchange --from and --to."
        )
    for is_outside, where in (
        (window.begin >= last > first, f"after {time_text(window.begin)}"),
        (window.end <= first < last, f"before {time_text(window.end)}"),
    ):
        if is_outside:
            raise RequestError(
                f"The trace goes from {time_text(first)} to {time_text(last)}, so nothing of it is {where}."
                " Choose another --from or --to."
            )
    return window if window.length > 0 else Window(window.begin, window.end + 1)


def choose_rows(rows: Iterable[Row], records: Iterable[Record], rows_max: int) -> tuple[list[Row], list[Row]]:
    """Choose the rows that are shown.

    Args:
        rows: of the trace, in order.
        records: which may have more.
        rows_max: so many at most.

    Returns:
        The shown ones and the others, each in the order of the trace. Where not all have room, shards get at
        most half of it, and of shards and replicas the first ones are shown.
    """
    all_rows = list(dict.fromkeys([*rows, *sorted({record.row for record in records})]))
    if len(all_rows) <= rows_max:
        return all_rows, []
    applying = {record.row for record in records if isinstance(record, Span) and record.name == "apply"}
    shards = [row for row in all_rows if row in applying]
    others = [row for row in all_rows if row not in applying]
    shard_room = max(min(len(shards), rows_max // 2), rows_max - len(others))
    shown = {*shards[:shard_room], *others[: rows_max - shard_room]}
    return [row for row in all_rows if row in shown], [row for row in all_rows if row not in shown]


def slices_of(spans: Iterable[Span], window: Window, least: float) -> list[Slice]:
    """Cut the spans of one row to the window, nest them, and gather what is too thin to see.

    Args:
        spans: of one row, in any order.
        window: what is shown.
        least: nanoseconds; what is shorter is drawn together with its neighbours, in the colour of what took
            most of their time.

    Returns:
        Slices in the order of their depth and beginning.
    """
    open_ends: list[int] = []
    by_depth: dict[int, list[Slice]] = {}
    # What takes no time comes first: it is beside what begins then, not inside of it.
    for span in sorted(spans, key=lambda span: (span.begin, span.end > span.begin, -span.end)):
        while open_ends and open_ends[-1] <= span.begin:
            open_ends.pop()
        depth = len(open_ends)
        open_ends.append(span.end)
        begin, end = max(span.begin, window.begin), min(span.end, window.end)
        if begin <= end and span.end >= window.begin and span.begin <= window.end:
            piece = Slice(span.name, begin, end, depth, span.notes, span.end - span.begin)
            by_depth.setdefault(depth, []).append(piece)
    return [piece for depth in sorted(by_depth) for piece in _gathered(by_depth[depth], least)]


def ways(records: Iterable[Record], shown: Iterable[Row], window: Window) -> list[Way]:
    """Return the arrows of which at least two neighbouring stations are shown, by their beginning."""
    stations: dict[str, list[Arrow]] = {}
    rows = set(shown)
    for record in records:
        if isinstance(record, Arrow):
            stations.setdefault(record.name, []).append(record)
    order = ("leaves", "passes", "arrives")
    found = []
    for arrows in stations.values():
        arrows.sort(key=lambda arrow: (arrow.at, order.index(arrow.stage)))
        way = tuple(arrow for arrow in arrows if arrow.row in rows and window.begin <= arrow.at <= window.end)
        if len(way) > 1:
            found.append(way)
    return sorted(found, key=lambda way: way[0].at)


def rows_by_rank(records: Iterable[Record]) -> dict[int, Row]:
    """Return whose row each rank has, as far as pushes tell: their names begin with the rank."""
    found: dict[int, Row] = {}
    for record in records:
        if isinstance(record, Arrow) and record.stage == "leaves":
            rank = record.name.partition(".")[0]
            if rank.isascii() and rank.isdigit():
                found.setdefault(int(rank), record.row)
    return found


def _gathered(pieces: Sequence[Slice], least: float) -> list[Slice]:
    found: list[Slice] = []
    thin: list[Slice] = []
    for piece in pieces:
        is_thin = piece.end - piece.begin < least
        far = thin and (piece.begin - thin[0].begin >= least or piece.begin - thin[-1].end >= least)
        if thin and (far or not is_thin):
            found.append(_one_of(thin))
            thin = []
        if is_thin:
            thin.append(piece)
        else:
            found.append(piece)
    return [*found, _one_of(thin)] if thin else found


def _one_of(thin: Sequence[Slice]) -> Slice:
    """Make one slice of neighbours."""
    if len(thin) == 1:
        return thin[0]
    times: Counter[str] = Counter()
    for piece in thin:
        times[piece.name] += piece.end - piece.begin
    [(name, _)] = times.most_common(1)
    begin, end = thin[0].begin, max(piece.end for piece in thin)
    return Slice(name, begin, end, thin[0].depth, NO_NOTES, sum(times.values()), dict(times))
