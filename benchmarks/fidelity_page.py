"""The page docs/fidelity.md, made of the figures of one run."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence

from benchmarks.fidelity import (
    LINK_MBIT,
    RUNS,
    SLOW,
    STALENESS_BAND,
    STEP_BAND,
    WAIT_BAND,
    Result,
    Row,
)

_HEAD = f"""\
# Fidelity

How near are simulated runs to real ones? `python -m benchmarks fidelity --out docs/fidelity.md` measures
this machine, predicts, runs the same jobs for real, and writes this page.

* **Calibrated once**: `paramserver calibrate` runs one replica against one shard, and against four shards
  with next to no weights, and writes a world file. That is none of the cells below: they have two shards for
  each server, and most of them more replicas and servers. Nothing is fitted to them.
* **Predicted**: the job in virtual time in that world. For a slowed worker `w0=x{SLOW}` is added to it, for a
  slow link `w0.bandwidth={LINK_MBIT}Mbit/s`.
* **Measured**: real servers and workers on this machine, a process with one thread for each replica, without
  an evaluator; each cell's runs are taken in turns with all others'. The slow link is a cable between two
  network namespaces, limited by a token bucket (`tc qdisc … tbf`).
* *CPU-bound* jobs compute with the processor that servers and clients need, too: a dense network with 669 kB
  of weights. *Padded* ones wait for 10 to 30 ms, evenly spread, as if for an accelerator, and compute little.
"""

_BANDS = (
    f"A prediction holds if step time and samples/s are within {100 * STEP_BAND:.0f} % of the median (or "
    "within twice the interquartile spread of the runs, where that is more), mean staleness within "
    f"{100 * STEP_BAND:.0f} % or {STALENESS_BAND} versions, and the share of time that replicas wait for "
    f"others within {WAIT_BAND:.0f} points."
)

BUSY_CORES = 0.3
"""Above so many cores in use by other programs real runs differ by more than the bands."""

_WHY = """\
## What the world leaves out

* Every request costs the same here, and every byte; real ones vary. So virtual replicas that are alike keep
  in step with each other better than real ones, and in `sync` on a full machine those wait more.
* A step is a chain here, one piece of work after the other, and processes share cores evenly. A real step of
  the CPU-bound job changes threads about 135 times, 45 of them by force. Where a core is free, its pieces
  overlap; where none is, each waits for one. So with as many busy processes as cores predictions are too
  fast: the misses are CPU-bound cells with a second replica or a second server.
* Heartbeats, the coordinator's own work, the message that tells a reader for whom it waits, and making
  batches (beside the steps, by another thread) cost nothing here.
* Several replicas in one process share one interpreter lock; here each has a thread to itself. The cells
  have one replica in a process.
* Chunks of a large tensor are sent, carried and received side by side; here one comes after the other. Up to
  1 MiB for each shard there is one chunk, and nothing to overlap.
* Replicas join one after the other within some tenths of a second, and wait for the last one: that is part
  of the measured wait share, and not of the predicted one.
"""


def page(result: Result, machine: str) -> str:
    """Return the page as Markdown.

    Args:
        result: of all cells.
        machine: a description of it.
    """
    rows = [row for row in result.rows if row.measured]
    missed = [row for row in rows if row.misses()]
    runs = max((len(row.measured) for row in rows), default=0)
    counted = f"Of {len(rows)} cells {len(rows) - len(missed)} hold in all four figures."
    if runs != RUNS:
        counted += f" Each cell has {runs} run{'s' * (runs != 1)} here, not {RUNS}."
    parts = [
        _HEAD,
        _wrapped(_BANDS),
        "",
        _wrapped(f"The machine: {machine}. {_others(result.busy)}"),
        "",
        counted,
    ]
    for kind in dict.fromkeys(row.cell.kind for row in result.rows):
        parts += ["", f"## {kind}", "", _table([row for row in result.rows if row.cell.kind == kind])]
    parts += ["", "## Where it misses", ""]
    parts += [_wrapped(f"* {row.cell.kind}, {row.cell.name}: {'; '.join(_miss(row))}.") for row in missed]
    parts += [_wrapped(_MISSED if missed else "Nowhere in these runs.")]
    parts += ["", _WHY]
    for kind, text in result.worlds.items():
        parts += [f"## The world of the {kind} job", "", "```toml", text.rstrip(), "```", ""]
    return "\n".join(parts).rstrip() + "\n"


def _others(busy: Sequence[float]) -> str:
    if not busy:
        return "What other programs did meanwhile is not known."
    middle = statistics.median(busy)
    sentence = (
        f"Other programs used {middle:.2f} cores in the median before a run, and {max(busy):.2f} at most."
    )
    if middle > BUSY_CORES:
        sentence += " On a machine so busy, runs differ by more than the bands: do not rely on these figures."
    return sentence


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "Measured (with the interquartile spread) → predicted.",
        "",
        "| cell | step, ms | error | samples/s | staleness | wait, % | holds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        if row.skipped:
            lines.append(f"| {row.cell.name} | | | | | | not measured: {row.skipped} |")
            continue
        step, predicted = row.median("step_ms"), row.predicted
        columns = [
            row.cell.name,
            f"{step:.1f} ({row.spread('step_ms'):.1f}) → {predicted.step_ms:.1f}",
            f"{100 * (predicted.step_ms / step - 1):+.0f} %",
            f"{row.median('samples'):,.0f} ({row.spread('samples'):,.0f}) → {predicted.samples:,.0f}",
            f"{row.median('staleness'):.2f} → {predicted.staleness:.2f}",
            f"{row.median('wait'):.0f} → {predicted.wait:.0f}",
            f"no: {', '.join(row.misses())}" if row.misses() else "yes",
        ]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def _miss(row: Row) -> list[str]:
    """Say by how much it misses, and how far the runs themselves lie apart."""
    sentences = []
    for title in row.misses():
        name, form = _FORMS[title]
        values = [getattr(figures, name) for figures in row.measured]
        predicted, middle = getattr(row.predicted, name), row.median(name)
        runs = f", runs from {min(values):{form}} to {max(values):{form}}" if len(values) > 1 else ""
        sentences.append(f"{title} {predicted:{form}} predicted, {middle:{form}} measured{runs}")
    return sentences


_FORMS = {
    "step time": ("step_ms", ".1f"),
    "samples/s": ("samples", ",.0f"),
    "staleness": ("staleness", ".2f"),
    "wait share": ("wait", ".0f"),
}
"""Of each figure its attribute, and how it is written."""

_MISSED = (
    "\nWhere the runs of a cell lie as far apart as the miss, it is what else the machine did between "
    "calibration and run. Where they agree with each other, it is one of the following."
)


def _wrapped(text: str) -> str:
    indent = "  " if text.startswith("*") else ""
    lead = "\n" if text.startswith("\n") else ""
    return lead + textwrap.fill(text.strip(), 110, subsequent_indent=indent, break_long_words=False)
