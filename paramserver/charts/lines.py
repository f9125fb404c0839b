"""A line chart as an SVG document: a line with a label at its end, bands, levels, round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from paramserver.charts.scale import Scale
from paramserver.charts.ticks import Tick
from paramserver.svg import FONT, opening, text_width

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Told apart by every kind of eye: M. Okabe and K. Ito, Color Universal Design, 2008."""

DASHES: Final = ("", "6 3", "2 3")
"""Once all colours are used they come again with the next of these."""

DOTS_MAX: Final = 200
"""A line of more points gets none to hover over."""

SEEN_DOTS_MAX: Final = 16
"""The dots of a line of more points are not seen: they would hide it."""

DOT: Final = 3.0
"""Radius of a dot, in pixels, and the room around the axes in which half of one may lie."""

LABEL_LINE: Final = 16.0
HEAD: Final = 60.0
FOOT: Final = 46.0
TICK_X: Final = 80.0
TICK_Y: Final = 42.0
"""Least room from one tick to the next, in pixels."""

STYLE: Final = f"""
.chart text {{ font: 12px {FONT}; fill: #1f2933; }}
.chart .title {{ font-size: 15px; font-weight: 600; }}
.chart .small {{ font-size: 11px; fill: #52606d; }}
.chart .ground {{ fill: #ffffff; }}
.chart .grid {{ stroke: #dde3ea; }}
.chart .axis {{ stroke: #7b8794; }}
.chart .level {{ stroke: #7b8794; stroke-dasharray: 5 4; }}
@media (prefers-color-scheme: dark) {{
.chart text {{ fill: #e4e7eb; }}
.chart .small {{ fill: #a9b4c0; }}
.chart .ground {{ fill: #15191f; }}
.chart .grid {{ stroke: #323a45; }}
}}
""".strip()


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a chart.

    Attributes:
        title: what is measured, with its unit.
        log: equal distances are equal factors; numbers not above 0 are left out.
        low: where it begins; None for the least number there is.
        high: where it ends; None for the greatest.
    """

    title: str
    log: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: its name, written at its end.
        points: x and y, in the order in which they are joined; what is not finite makes a gap.
        band: x, low and high of what is shaded around it, by growing x.
        thin: further lines of the same colour, such as single runs.
        is_reference: something to compare with: dashed and grey, and without a colour of its own.
    """

    label: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    thin: Sequence[Sequence[tuple[float, float]]] = ()
    is_reference: bool = False


def line_chart(
    title: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Line],
    *,
    note: str = "",
    levels: Sequence[tuple[float, str]] = (),
    width: float = 680.0,
    height: float = 380.0,
) -> str:
    """Draw lines over two axes.

    Args:
        title: of the chart.
        x: to the right.
        y: upwards.
        lines: what to draw; each has a colour by its place.
        note: a line below the title.
        levels: heights that are marked across the chart, with a name to each.
        width: in pixels.
        height: in pixels.

    Returns:
        An SVG document without a reference to anything outside. The same arguments give the same text.

    Example:
        >>> chart = line_chart("speed-up", Axis("workers", log=True), Axis("times"), [Line("sync", [(1, 1)])])
        >>> chart.startswith("<svg"), "sync" in chart
        (True, True)
    """
    points = [point for line in lines for point in _all_points(line) if all(map(math.isfinite, point))]
    high = height - HEAD - FOOT
    heights = [*(point[1] for point in points), *(at for at, _ in levels)]
    up = Scale(heights, y.low, y.high, y.log, high, 0.0, TICK_Y, rounds=True)
    y_ticks = up.ticks()
    left = 22 + max([text_width(text, 11) for _, text in y_ticks] + [24.0])
    names = [*(line.label for line in lines), *(text for _, text in levels)]
    wide = max(width - left - 44 - max([text_width(name) for name in names] + [24.0]), 60.0)
    across = Scale([point[0] for point in points], x.low, x.high, x.log, 0.0, wide, TICK_X)
    marks = _marks(lines)
    told = " · ".join(part for part in (y.title, note) if part)
    parts = [
        opening(width, height, title, "chart"),
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>',
        f'<text class="title" x="14" y="22">{escape(title)}</text>',
        f'<text class="small" x="14" y="39">{escape(told)}</text>',
        f'<g transform="translate({left:.1f},{HEAD:.1f})">',
        *_grid(across, y_ticks, up, wide, high),
        f'<text x="{wide / 2:.1f}" y="{high + 38:.1f}" text-anchor="middle">{escape(x.title)}</text>',
        # An inner document cuts off what is outside of it, and needs no name that is the chart's alone.
        f'<svg x="{-DOT}" y="{-DOT}" width="{wide + 2 * DOT:.1f}" height="{high + 2 * DOT:.1f}" '
        f'viewBox="{-DOT} {-DOT} {wide + 2 * DOT:.1f} {high + 2 * DOT:.1f}">',
        *(part for line, mark in zip(lines, marks, strict=True) for part in _line(line, mark, across, up)),
        "</svg>",
        *_labels(lines, marks, levels, up, wide, high),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


_Mark = tuple[str, str]
"""A colour and a dash pattern."""

GREY: Final[_Mark] = ("#7b8794", "5 4")
"""The look of what the lines are compared with."""


def _marks(lines: Sequence[Line]) -> list[_Mark]:
    """Give each line its own look."""
    marks, number = [], 0
    for line in lines:
        if line.is_reference:
            marks.append(GREY)
            continue
        marks.append((COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]))
        number += 1
    return marks


def _all_points(line: Line) -> Iterator[tuple[float, float]]:
    yield from line.points
    for thin in line.thin:
        yield from thin
    for x, low, high in line.band:
        yield from ((x, low), (x, high))


def _grid(across: Scale, y_ticks: Sequence[Tick], up: Scale, wide: float, high: float) -> Iterator[str]:
    for value, text in y_ticks:
        at = up.place(value)
        yield f'<path class="grid" d="M0,{at:.1f} H{wide:.1f}"/>'
        yield f'<text class="small" x="-8" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
    for value, text in across.ticks():
        at = across.place(value)
        yield f'<path class="axis" d="M{at:.1f},{high:.1f} v5"/>'
        yield f'<text class="small" x="{at:.1f}" y="{high + 19:.1f}" text-anchor="middle">{text}</text>'
    yield f'<path class="axis" d="M0,{high:.1f} H{wide:.1f}"/>'


def _line(line: Line, mark: _Mark, across: Scale, up: Scale) -> Iterator[str]:
    colour, dash = mark
    look = f'fill="none" stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    if line.band:
        edge = [(x, low) for x, low, _ in line.band] + [(x, high) for x, _, high in reversed(line.band)]
        path = _path(edge, across, up)
        yield f'<path d="{path}" fill="{colour}" fill-opacity="0.18"/>'
    for thin in line.thin:
        yield f'<path d="{_path(thin, across, up)}" {look} stroke-width="1" stroke-opacity="0.45"/>'
    yield (
        f'<path d="{_path(line.points, across, up)}" {look} stroke-width="2" stroke-linejoin="round">'
        f"<title>{escape(line.label)}</title></path>"
    )
    if len(line.points) <= DOTS_MAX and not line.is_reference:
        seen = "" if len(line.points) <= SEEN_DOTS_MAX else ' fill-opacity="0"'
        for x, y in line.points:
            at, height = across.place(x), up.place(y)
            if math.isfinite(at) and math.isfinite(height):
                told = f"{line.label}: {_number(y)} at {_number(x)}"
                yield (
                    f'<circle cx="{at:.1f}" cy="{height:.1f}" r="{DOT}" fill="{colour}"{seen}>'
                    f"<title>{escape(told)}</title></circle>"
                )


def _path(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> str:
    """Join points by straight lines; what has no place makes a gap."""
    parts, pen = [], "M"
    for x, y in points:
        at, height = across.place(x), up.place(y)
        if not (math.isfinite(at) and math.isfinite(height)):
            pen = "M"
            continue
        parts.append(f"{pen}{at:.1f},{height:.1f}")
        pen = "L"
    return " ".join(parts)


def _labels(
    lines: Sequence[Line],
    marks: Sequence[_Mark],
    levels: Sequence[tuple[float, str]],
    up: Scale,
    wide: float,
    high: float,
) -> Iterator[str]:
    """Write each name at the height at which its line ends, one below the other where they end alike."""
    ends = []
    for line, mark in zip(lines, marks, strict=True):
        heights = [up.place(y) for _, y in line.points]
        last = next((at for at in reversed(heights) if math.isfinite(at)), high)
        ends.append((min(max(last, 0.0), high), line.label, mark))
    for level, text in levels:
        at = up.place(level)
        yield f'<path class="level" d="M0,{at:.1f} H{wide:.1f}"/>'
        ends.append((min(max(at, 0.0), high), text, GREY))
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    for at, _, _ in ends:
        places.append(max(at, places[-1] + LABEL_LINE) if places else at)
    lowest = high
    for index in reversed(range(len(places))):
        places[index] = lowest = min(places[index], lowest)
        lowest -= LABEL_LINE
    for place, (_, label, (colour, dash)) in zip(places, ends, strict=True):
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        yield (
            f'<path d="M{wide + 8:.1f},{place:.1f} h16" stroke="{colour}" stroke-width="3"{dashed}/>'
            f'<text x="{wide + 29:.1f}" y="{place + 4:.1f}">{escape(label)}</text>'
        )


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
