"""The command ``timeline``: the trace of a run as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from paramserver.errors import RequestError

WIDTH_MIN, WIDTH_MAX = 400, 20_000

KINDS_OF_TIME = {"virtual": "virtual time", "real": "real time"}


def timeline(
    trace: Annotated[
        Path,
        typer.Argument(metavar="TRACE|RUN", help="A trace.json, or the folder of a run that has one."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg",
            help="Where the picture goes. (default: timeline.svg beside the trace)",
            show_default=False,
        ),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Where it begins, such as 1.2s or 300ms. (default: where the trace does)",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            help="Where it ends. (default: where the trace does)",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        int,
        typer.Option(metavar="N", help="Rows at most. (default: 40)", show_default=False),
    ] = 40,
    width: Annotated[
        int,
        typer.Option(metavar="PIXELS", help="Width of the picture. (default: 1200)", show_default=False),
    ] = 1200,
) -> None:
    """Draw the trace of a run: what each replica and each shard did when.

    The picture is one SVG file, which every browser opens.
    Point at a box to read more about it. Runs record a trace with --trace.
    """
    if rows < 1:
        raise RequestError(f"A timeline has 1 row or more, but --rows is {rows}.")
    if not WIDTH_MIN <= width <= WIDTH_MAX:
        raise RequestError(
            f"A timeline is {WIDTH_MIN} to {WIDTH_MAX:,} pixels wide, but --width is {width:,}."
        )
    path = trace
    if trace.is_dir():
        from paramserver.launch.traces import TRACE

        path = trace / TRACE
    out = path.with_name("timeline.svg") if out is None else out
    if out.suffix.lower() != ".svg":
        raise RequestError(f"A timeline is drawn as .svg, but {out} does not end in that. Name another file.")
    data = _read(path)
    from paramserver.charts import View, draw_timeline
    from paramserver.quantities import parse_nanoseconds
    from paramserver.storage import write_text
    from paramserver.tracing import read_chrome_trace, read_trace_notes

    all_rows, records = read_chrome_trace(data)
    notes = read_trace_notes(data)
    lost = []
    if forgotten := notes.get("forgotten"):
        lost.append(f"The trace has lost its {forgotten:,} oldest records: it keeps only the newest.")
    if missing := notes.get("missing"):
        lost.append(f"Some processes left no trace: {missing}.")
    drawn = draw_timeline(
        all_rows,
        records,
        View(
            None if begin is None else parse_nanoseconds(begin, "--from"),
            None if end is None else parse_nanoseconds(end, "--to"),
            rows,
            width,
        ),
        _title(path),
        KINDS_OF_TIME.get(str(notes.get("time")), "time"),
        lost,
    )
    write_text(out, drawn.svg)
    for sentence in drawn.left_out:
        typer.echo(sentence)
    typer.echo(f"The timeline is in {out}.")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RequestError(
            f"There is no trace {path}. A run leaves one if it is told to: paramserver train --trace."
        ) from None
    except OSError as error:
        raise RequestError(f"The trace {path} cannot be read: {error.strerror}.") from None


def _title(path: Path) -> str:
    """Name a trace by what the summary beside it says of the run, or by its path."""
    try:
        summary: Any = json.loads((path.parent / "summary.json").read_bytes())
        told = [summary["consistency"], f"{summary['replicas']} replicas", summary["model"]]
    except (OSError, ValueError, KeyError, TypeError):
        return str(path)
    return ", ".join(str(part) for part in told if part)
