"""What a journal costs: one job without one, with the light one, and with a full one, in turns."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.doors import JOB, Row, train_by_hand

SIDES = ("no journal", "light (the usual one)", "`--durability journal`")
RULES = ("sync", "async")


def run(pairs: int = 5) -> dict[str, list[Row]]:
    """Measure every side in each round; return the rows of each consistency model."""
    return {rule: _rows(rule, pairs) for rule in RULES}


def table(rows: dict[str, list[Row]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| model | journal | samples/s | to none (least to most) |", "| --- | --- | --- | --- |"]
    for rule, found in rows.items():
        for row in found:
            spread = f"{row.ratio:.2f} ({row.least:.2f} to {row.most:.2f})"
            lines.append(f"| {rule} | {row.side} | {row.samples_per_second:,.0f} | {spread} |")
    return "\n".join(lines)


def _rows(rule: str, pairs: int) -> list[Row]:
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            for turn in range(len(SIDES)):
                place = (number + turn) % len(SIDES)  # who comes first has no advantage
                side = SIDES[place]
                durability = "journal" if place == 2 else "checkpoint"
                job = JOB.replace('"sync"', f'"{rule}"') + f'durability = "{durability}"\n'
                options = ["--journal-bytes-max", "0"] if place == 0 else []
                rates[side].append(train_by_hand(Path(folder) / f"{place}-{number}", job, options, []))
    rows = []
    for side in SIDES:
        ratios = [rate / free for rate, free in zip(rates[side], rates[SIDES[0]], strict=True)]
        rows.append(
            Row(side, statistics.median(rates[side]), statistics.median(ratios), min(ratios), max(ratios))
        )
    return rows
