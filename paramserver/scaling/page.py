"""What was found, as a table, as data, and as a page with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from paramserver.charts import Axis, Line, line_chart
from paramserver.scaling.point import RESOURCES, Point, efficiency, speed_up
from paramserver.svg import FONT

STYLE = f"""
body {{ font: 15px/1.5 {FONT}; color: #1f2933; background: #ffffff; max-width: 76rem;
margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.3rem 1rem 0.3rem 0; text-align: right; border-bottom: 1px solid #dde3ea; }}
pre {{ background: #f3f5f8; padding: 0.8rem; overflow-x: auto; font-size: 13px; }}
.charts {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
.charts svg {{ max-width: 100%; height: auto; }}
.wide {{ overflow-x: auto; }}
@media (prefers-color-scheme: dark) {{
body {{ color: #e4e7eb; background: #15191f; }}
pre {{ background: #1e242c; }} th, td {{ border-color: #323a45; }}
}}
""".strip()


def table(points: Sequence[Point], one: Point) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the columns and the rows, as texts.

    Args:
        points: by rising number of workers.
        one: the point of the fewest workers, to which speed-ups are taken.
    """
    has_target = any(point.target_seconds is not None for point in points)
    heads = ["workers", "steps/s", "speed-up", "efficiency", "wait"]
    heads += ["to target"] * has_target + ["lock", "link", "bottleneck"]
    rows = []
    for point in points:
        row = [
            f"{point.workers:,}",
            figure(point.steps_per_second),
            figure(speed_up(point, one)),
            share(efficiency(point, one)),
            share(point.wait),
        ]
        if has_target:
            row.append("never" if point.target_seconds is None else f"{figure(point.target_seconds)} s")
        row += [share(point.shares.get(name, 0.0)) for name in ("lock", "server link")]
        rows.append([*row, f"{point.bottleneck} {share(point.shares[point.bottleneck])}"])
    return heads, rows


def figure(number: float) -> str:
    """Write a number with three digits or more, such as 0.123, 12.3 or 12,345."""
    if number >= 1000:
        return f"{number:,.0f}"
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2 if number >= 1 else 3}f}"


def share(number: float) -> str:
    """Write a share in per cent."""
    return f"{100 * number:.{0 if number >= 0.0995 or number == 0 else 1}f}%"


def turns(points: Sequence[Point]) -> list[str]:
    """Say what the bottleneck is, and with how many workers it becomes something else."""
    sentences = []
    before = ""
    for point in points:
        name = point.bottleneck
        if name != before:
            began = "With" if not before else "From"
            workers = f"{point.workers:,} worker{'s' * (point.workers > 1)}"
            sentences.append(
                f"{began} {workers}{' on' * bool(before)} the bottleneck is {name}: {RESOURCES[name]}, "
                f"{share(point.shares[name])} of the time."
            )
        before = name
    return sentences


def as_mapping(points: Sequence[Point], one: Point) -> dict[str, Any]:
    """Return the points as JSON has them."""
    return {
        "resources": RESOURCES,
        "points": [
            {
                **asdict(point),
                "steps_per_second": point.steps_per_second,
                "speed_up": speed_up(point, one),
                "efficiency": efficiency(point, one),
                "bottleneck": point.bottleneck,
            }
            for point in points
        ],
    }


def charts(points: Sequence[Point], one: Point, what: str) -> dict[str, str]:
    """Return the pictures by name: ``speed-up``, ``shares``, and ``target`` if one was reached."""
    workers = Axis("workers", log=True)
    counts = [float(point.workers) for point in points]
    speed_ups = [speed_up(point, one) for point in points]
    ideal = [(count, count / one.workers) for count in counts]
    drawn = {
        "speed-up": line_chart(
            "Speed-up",
            workers,
            Axis("times the steps per second of one worker", log=True),
            [
                Line("measured", list(zip(counts, speed_ups, strict=True))),
                Line("ideal", ideal, is_reference=True),
            ],
            note=what,
        ),
        "shares": line_chart(
            "Share of the time for which each resource is busy",
            workers,
            Axis("share", low=0.0, high=1.0),
            [
                Line(name, [(float(point.workers), point.shares.get(name, 0.0)) for point in points])
                for name in RESOURCES
                if any(point.shares.get(name, 0.0) >= 0.01 for point in points)
            ],
            note="the highest line is the bottleneck",
        ),
    }
    reached = [
        (float(point.workers), point.target_seconds) for point in points if point.target_seconds is not None
    ]
    if reached:
        drawn["target"] = line_chart(
            "Time to the target",
            workers,
            Axis("virtual seconds", log=True),
            [Line("measured", reached)],
            note=what,
        )
    return drawn


def page(points: Sequence[Point], one: Point, what: str, files: Mapping[str, str], repeat: str) -> str:
    """Return a page that needs nothing else.

    Args:
        points: by rising number of workers.
        one: the point of the fewest workers.
        what: was run, as a phrase.
        files: texts to show, by name: the job, and the world.
        repeat: the command that does it again.
    """
    heads, rows = table(points, one)
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Scale: {escape(what)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        f"<h1>Scale</h1>\n<p>{escape(what)}. Times are virtual.</p>",
        *(f"<p>{escape(sentence)}</p>" for sentence in turns(points)),
        f'<div class="charts">{"".join(charts(points, one, what).values())}</div>',
        '<h2>In numbers</h2>\n<div class="wide"><table>',
        f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>",
        *(f"<tr>{row}</tr>" for row in cells),
        "</table></div>",
        f"<h2>Again</h2>\n<pre>{escape(repeat)}</pre>",
        *(
            f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
            for name, text in files.items()
        ),
        "</body>\n</html>",
    ]
    return "\n".join(parts) + "\n"
