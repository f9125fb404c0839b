"""What durability costs: one job that keeps nothing, checkpoints, a light journal, a full one, in turns."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.doors import JOB, Row, compare, train_by_hand

NO_JOURNAL = ("--journal-bytes-max", "0")
SIDES = {
    "nothing": ('durability = "none"', ("--no-recovery", *NO_JOURNAL)),
    "checkpoints every 2 s": ('checkpoint_every = "2s"', NO_JOURNAL),
    "the usual: every 30 s, and a light journal": ("", ()),
    "`--durability journal`": ('durability = "journal"', ()),
}
"""What is kept, with the lines of the job and the options of the server that say so."""
RULES = ("sync", "async")


def run(pairs: int = 5) -> dict[str, list[Row]]:
    """Measure every side in each round; return the rows of each consistency model."""
    return {rule: _rows(rule, pairs) for rule in RULES}


def table(rows: dict[str, list[Row]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| model | kept | samples/s | to nothing (least to most) |", "| --- | --- | --- | --- |"]
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
                side, (lines, options) = list(SIDES.items())[place]
                job = JOB.replace('"sync"', f'"{rule}"') + f"{lines}\n"
                rates[side].append(train_by_hand(Path(folder) / f"{place}-{number}", job, options, []))
    return compare(rates, "nothing")
