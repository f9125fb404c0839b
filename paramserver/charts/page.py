"""Where everything of a timeline is on one picture, and how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from paramserver.charts.slices import Slice, Way, Window, slices_of
from paramserver.charts.ticks import time_text, time_ticks
from paramserver.svg import FONT, opening, text_width
from paramserver.tracing import Row, Span

COLOURS: Final = {
    "compute": ("#009e73", "#ffffff"),
    "pull": ("#56b4e9", "#10202c"),
    "push": ("#0072b2", "#ffffff"),
    "wait": ("#e69f00", "#2b1d00"),
    "apply": ("#cc79a7", "#2d0f1f"),
}
"""Fill, and the letters on it; told apart by every kind of eye (M. Okabe and K. Ito, 2008)."""

OTHER: Final = ("#9aa5b1", "#10202c")

LEAST: Final = 1.5
"""A slice of fewer pixels is drawn together with its neighbours."""

LETTERS: Final = 14.0
"""On what is narrower or lower, in pixels, nothing is written."""

HOOK: Final = 16.0
"""An arrow that goes so many pixels to the right ends in that direction."""

HEAD: Final = 98.0
SHARE: Final = 84.0
"""Room at the right, for how much of its time each row waits or works, in pixels."""

STYLE: Final = f"""
.timeline text {{ font: 12px {FONT}; fill: #1f2933; }}
.timeline .title {{ font-size: 16px; font-weight: 600; }}
.timeline .small {{ font-size: 11px; fill: #52606d; }}
.timeline .ground {{ fill: #ffffff; }}
.timeline .on {{ font-size: 11px; text-anchor: middle; }}
.timeline .row {{ fill: #f3f5f8; }}
.timeline .grid {{ stroke: #d5dbe2; }}
.timeline .way {{ fill: none; stroke: #1f2933; stroke-opacity: 0.55; stroke-width: 1.1; }}
.timeline .tip {{ fill: #1f2933; }}
@media (prefers-color-scheme: dark) {{
.timeline text {{ fill: #e4e7eb; }}
.timeline .small {{ fill: #a9b4c0; }}
.timeline .ground {{ fill: #15191f; }}
.timeline .row {{ fill: #1e242c; }}
.timeline .grid {{ stroke: #39424e; }}
.timeline .way {{ stroke: #e4e7eb; }}
.timeline .tip {{ fill: #e4e7eb; }}
}}
""".strip()


def row_name(row: Row) -> str:
    """Name a row as the timeline does."""
    return row.thread if row.thread.startswith(row.process) else f"{row.process} {row.thread}"


class Page:
    """One picture.

    Args:
        rows: from above, at least one.
        window: the time from left to right.
        width: in pixels.
        ranks: whose row each rank has.
    """

    def __init__(self, rows: Sequence[Row], window: Window, width: int, ranks: Mapping[int, Row]) -> None:
        self._rows, self._window, self._width = rows, window, width
        self._ranks = ranks
        self._row = 26.0 if len(rows) <= 24 else 18.0 if len(rows) <= 60 else 11.0
        self._gap = 5.0 if len(rows) <= 24 else 2.0
        self._letters = min(12.0, self._row - 1)
        self._left = 22 + max(text_width(row_name(row), self._letters) for row in rows)
        self._wide = max(width - self._left - SHARE, 100.0)
        self._tops: dict[Row, float] = {}
        at, process = HEAD, rows[0].process
        for row in rows:
            if row.process != process:
                at, process = at + self._gap, row.process
            self._tops[row] = at
            at += self._row + self._gap
        self._bottom = at

    def draw(
        self,
        spans: Mapping[Row, Sequence[Span]],
        drawn: Sequence[Way],
        title: str,
        note: str,
        sentences: Sequence[str],
    ) -> str:
        """Return the picture as an SVG document.

        Args:
            spans: of each row.
            drawn: the arrows.
            title: a line above.
            note: what kind of time it is.
            sentences: to stand below.
        """
        names = {span.name for row in spans.values() for span in row}
        height = self._bottom + 12 + 17 * len(sentences) + (8 if sentences else 0)
        least = LEAST * self._window.length / self._wide
        during = f"{note or 'time'}, {time_text(self._window.begin)} to {time_text(self._window.end)}"
        lines = [
            opening(self._width, height, title or "timeline", "timeline"),
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="6" markerHeight="6" '
            'orient="auto"><path class="tip" d="M0,0.5 L8,4 L0,7.5 z"/></marker></defs>',
            f'<rect class="ground" width="{self._width}" height="{height:.0f}"/>',
            f'<text class="title" x="14" y="25">{escape(title or "Timeline")}</text>',
            f'<text class="small" x="14" y="42">{escape(during)}</text>',
            *self._legend(names, bool(drawn)),
        ]
        for row in self._rows:
            lines.append(
                f'<rect class="row" x="{self._left:.1f}" y="{self._tops[row]:.1f}" width="{self._wide:.1f}" '
                f'height="{self._row:.1f}"/>'
            )
        lines += self._axis()
        words: list[str] = []
        for row in self._rows:
            pieces = slices_of(spans[row], self._window, least)
            lines += (self._box(row, piece) for piece in pieces)
            words += self._label(row, spans[row])
            words += self._words(row, pieces)
        # An arrow may cross a box, but not what is written on it.
        lines += (line for way in drawn for line in self._way(way))
        lines += words
        for number, sentence in enumerate(sentences):
            at = self._bottom + 20 + 17 * number
            lines.append(f'<text class="small" x="14" y="{at:.1f}">{escape(sentence)}</text>')
        return "\n".join([*lines, "</svg>"]) + "\n"

    def _x(self, nanoseconds: float) -> float:
        return self._left + (nanoseconds - self._window.begin) / self._window.length * self._wide

    def _legend(self, names: set[str], arrows: bool) -> Iterator[str]:
        at = 14.0
        for name in [*(name for name in COLOURS if name in names), *sorted(names - set(COLOURS))]:
            fill, _ = COLOURS.get(name, OTHER)
            yield f'<rect x="{at:.1f}" y="52" width="13" height="13" rx="2" fill="{fill}"/>'
            yield f'<text class="small" x="{at + 18:.1f}" y="63">{escape(name)}</text>'
            at += 34 + text_width(name, 11)
        if arrows:
            yield f'<path class="way" d="M{at:.1f},58.5 h24" marker-end="url(#tip)"/>'
            yield (
                f'<text class="small" x="{at + 30:.1f}" y="63">a gradient: from its push to where it is '
                "applied, to the first pull that sees it</text>"
            )

    def _axis(self) -> Iterator[str]:
        steps = max(2, int(self._wide / 90))
        for at, text in time_ticks(self._window.begin, self._window.end, steps):
            x = self._x(at)
            yield f'<path class="grid" d="M{x:.1f},{HEAD - 6:.1f} V{self._bottom:.1f}"/>'
            yield f'<text class="small" x="{x:.1f}" y="{HEAD - 10:.1f}" text-anchor="middle">{text}</text>'

    def _label(self, row: Row, spans: Sequence[Span]) -> Iterator[str]:
        middle = self._tops[row] + self._row / 2 + self._letters * 0.35
        size = f'style="font-size:{self._letters:.0f}px"'
        yield (
            f'<text x="{self._left - 8:.1f}" y="{middle:.1f}" text-anchor="end" {size}>'
            f"{escape(row_name(row))}</text>"
        )
        kind = "apply" if any(span.name == "apply" for span in spans) else "wait"
        begin, end = self._window.begin, self._window.end
        took = sum(max(0, min(span.end, end) - max(span.begin, begin)) for span in spans if span.name == kind)
        share = took / self._window.length
        percent = "<1%" if 0 < share < 0.005 else f"{share:.0%}"
        if spans:
            yield (
                f'<text class="small" x="{self._left + self._wide + 8:.1f}" y="{middle:.1f}" {size}>'
                f"{'waits' if kind == 'wait' else 'busy'} {escape(percent)}</text>"
            )

    def _place(self, row: Row, piece: Slice) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a slice, in pixels."""
        x = self._x(piece.begin)
        inset = min(piece.depth * self._row * 0.22, self._row * 0.7)
        return x, self._tops[row] + inset, self._x(piece.end) - x, self._row - inset

    def _box(self, row: Row, piece: Slice) -> str:
        x, top, wide, high = self._place(row, piece)
        fill, _ = COLOURS.get(piece.name, OTHER)
        # A hair of ground between neighbours, where there is room for one.
        inner = wide - 0.6 if wide > 3 else max(wide, 1.0)
        told = escape(f"{row_name(row)}: {self._texts(piece)[1]}")
        return (
            f'<rect x="{x:.2f}" y="{top:.1f}" width="{inner:.2f}" height="{high:.1f}" fill="{fill}">'
            f"<title>{told}</title></rect>"
        )

    def _words(self, row: Row, pieces: Sequence[Slice]) -> Iterator[str]:
        """Write on the slices that have room and on which no other lies."""
        for piece in pieces:
            x, top, wide, high = self._place(row, piece)
            if high < LETTERS or wide < LETTERS or _is_covered(piece, pieces):
                continue
            text = next((text for text in self._texts(piece)[0] if text_width(text, 11) + 6 <= wide), "")
            if text:
                _, letters = COLOURS.get(piece.name, OTHER)
                yield (
                    f'<text class="on" x="{x + wide / 2:.1f}" y="{top + high / 2 + 4:.1f}" '
                    f'style="fill:{letters}">{escape(text)}</text>'
                )

    def _texts(self, piece: Slice) -> tuple[list[str], str]:
        """Return what is written on a slice, the longest first, and what it says when pointed at."""
        if piece.several:
            parts = ", ".join(f"{name} {time_text(took)}" for name, took in piece.several.items())
            return [], f"{parts}, {time_text(piece.begin)} to {time_text(piece.end)}"
        notes = dict(piece.notes)
        texts = [piece.name]
        told = piece.name
        if piece.name == "wait":
            who = self._who(notes.pop("for", None))
            texts = [f"wait for {who}", f"for {who}", who, "wait"] if who else ["wait"]
            told = texts[0]
        elif "clock" in notes:
            texts = [f"{piece.name}, step {notes['clock']}", piece.name]
        more = "".join(f", {name} {value}" for name, value in notes.items())
        return texts, f"{told}, {time_text(piece.whole)} from {time_text(piece.begin)}{more}"

    def _who(self, rank: object) -> str:
        if not isinstance(rank, int) or rank < 0:
            return "" if not isinstance(rank, str) else rank
        return row_name(self._ranks[rank]) if rank in self._ranks else f"rank {rank}"

    def _way(self, way: Way) -> Iterator[str]:
        for start, end in pairwise(way):
            x1, x2 = self._x(start.at), self._x(end.at)
            down = self._tops[start.row] < self._tops[end.row]
            y1 = self._tops[start.row] + (self._row if down else 0)
            y2 = self._tops[end.row] + (0 if down else self._row)
            half = (y1 + y2) / 2
            path = f"C{x1:.1f},{half:.1f} {x2:.1f},{half:.1f}"
            if end.stage == "passes" and x2 - x1 > HOOK:
                # A gradient is soon at its shard, and waits there until it is applied.
                y2 = self._tops[end.row] + self._row / 2
                path = f"C{x1:.1f},{y2:.1f} {x1 + (x2 - x1) / 4:.1f},{y2:.1f}"
            path = f"M{x1:.1f},{y1:.1f} {path} {x2:.1f},{y2:.1f}"
            yield f'<path class="way" d="{path}" marker-end="url(#tip)"/>'


def _is_covered(piece: Slice, pieces: Sequence[Slice]) -> bool:
    return any(
        other.depth > piece.depth and other.begin < piece.end and other.end > piece.begin for other in pieces
    )
