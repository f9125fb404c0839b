"""Columns of text that fit a width: what is less important is left out, what is left is cut at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.text import Text

Row = TypeVar("Row")

WIDE_CELLS = 72
"""From this width on there are two cells between columns and whole words above them."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        title: above it.
        cell: returns a row's text.
        short: above it where there is little room; empty: the title.
        from_cells: the least width of the whole at which it is shown.
        right: whether its texts end at the right.
        style: returns the style of a row's text; None: plain.
    """

    title: str
    cell: Callable[[Row], str]
    short: str = ""
    from_cells: int = 0
    right: bool = False
    style: Callable[[Row], str] | None = None


def lines(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> list[Text]:
    """Lay out rows under their titles.

    Args:
        columns: from left to right; the last one gets what room there is.
        rows: from top to bottom.
        width: of the whole, in cells; no line is longer.

    Example:
        >>> columns = [Column("rank", str, right=True), Column("square", lambda row: str(row * row))]
        >>> [line.plain for line in lines(columns, [7, 12], width=11)]
        ['rank square', '   7 49', '  12 144']
    """
    shown = [column for column in columns if width >= column.from_cells]
    wide = width >= WIDE_CELLS
    table = [[Text(column.title if wide else column.short or column.title, "bold") for column in shown]]
    for row in rows:
        table.append(
            [Text(printable(column.cell(row)), column.style(row) if column.style else "") for column in shown]
        )
    widths = [max(line[index].cell_len for line in table) for index in range(len(shown))]
    gap = "  " if wide else " "
    laid = []
    for line in table:
        for text, cells, column in zip(line[:-1], widths[:-1], shown[:-1], strict=True):
            text.align("right" if column.right else "left", cells)
        laid.append(cut(Text(gap).join(line), width))
    return laid


def cut(text: Text, width: int) -> Text:
    """Make a line no longer than a width, with an ellipsis where something was cut; blanks at its end go."""
    text.rstrip()
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def wrap(items: Sequence[str], width: int, gap: str = "  ") -> list[str]:
    """Fill lines with items, none of them broken unless it is longer than a line.

    Example:
        >>> wrap(["loss 0.5", "validation 0.9", "70 samples/s"], width=26)
        ['loss 0.5  validation 0.9', '70 samples/s']
    """
    filled: list[str] = []
    for item in items:
        if filled and len(filled[-1]) + len(gap) + len(item) <= width:
            filled[-1] += gap + item
        else:
            filled.append(item)
    return filled


def printable(text: str) -> str:
    """Replace what could move a terminal's cursor; a replica's name is whatever its owner says."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
