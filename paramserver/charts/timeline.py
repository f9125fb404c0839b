"""A trace as a picture: a row for each thread and shard, what it did when, and the ways of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from paramserver.charts.page import Page, row_name
from paramserver.charts.slices import choose_rows, rows_by_rank, ways, window_of
from paramserver.tracing import Record, Row, Span

ARROWS_MAX: Final = 160
"""With more of them one sees nothing but arrows."""

NAMED: Final = 3
"""So many of the rows that are left out are named."""


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a trace, and how large.

    Attributes:
        begin: nanoseconds; None: from the beginning.
        end: nanoseconds; None: to the end.
        rows_max: rows at most, >= 1.
        width: of the picture, in pixels.
    """

    begin: int | None = None
    end: int | None = None
    rows_max: int = 40
    width: int = 1200


@dataclass(frozen=True, slots=True)
class Timeline:
    """A picture, and what is not in it.

    Attributes:
        svg: an SVG document without a reference to anything outside.
        left_out: whole sentences; they stand in the picture, too.
    """

    svg: str
    left_out: tuple[str, ...]


def draw_timeline(
    rows: Sequence[Row],
    records: Sequence[Record],
    view: View,
    title: str = "",
    note: str = "",
    left_out: Sequence[str] = (),
) -> Timeline:
    """Draw what happened when.

    Args:
        rows: of the trace, in order.
        records: of the trace.
        view: what of it is shown.
        title: a line above.
        note: what kind of time it is, such as ``virtual time``.
        left_out: sentences on what the trace itself has not.

    Raises:
        RequestError: there is nothing to show.

    Example:
        >>> row = Row("worker0", "worker0/0")
        >>> picture = draw_timeline([], [Span(row, "compute", 0, 2_000_000)], View())
        >>> picture.svg.startswith("<svg"), picture.left_out
        (True, ())
    """
    window = window_of(records, view.begin, view.end)
    shown, hidden = choose_rows(rows, records, view.rows_max)
    drawn = ways(records, shown, window)
    sentences = list(left_out)
    if hidden:
        names = ", ".join(row_name(row) for row in hidden[:NAMED])
        sentences.append(
            f"{len(hidden)} of {len(shown) + len(hidden)} rows are left out ({names}"
            f"{', …' if len(hidden) > NAMED else ''}): --rows shows more."
        )
    if len(drawn) > ARROWS_MAX:
        sentences.append(
            f"The {len(drawn):,} arrows from push over apply to pull are left out: there are {ARROWS_MAX} at "
            "most, and --from and --to show a shorter time."
        )
        drawn = []
    page = Page(shown, window, view.width, rows_by_rank(records))
    by_row: dict[Row, list[Span]] = {row: [] for row in shown}
    for record in records:
        if isinstance(record, Span) and record.row in by_row:
            by_row[record.row].append(record)
    return Timeline(page.draw(by_row, drawn, title, note, sentences), tuple(sentences))
