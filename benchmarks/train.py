"""Training on Fashion-MNIST through servers and workers beside the same loop without them.

Each pair runs ``paramserver train`` and ``paramserver train --engine sequential`` with one job, in turns. The
plain loop uses one core; the job has whatever cores there are, and spends some of them on the servers, the
wire and the evaluator. So the ratio can exceed 1 where there are cores enough, and tells what the parameter
server costs where there are not.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

JOB = ("--data", "fashion-mnist", "--model", "mlp:256,128", "--batch", "32", "--epochs", "1", "--lr", "0.001")
ARRANGEMENTS = {
    "sync, 1 worker x 1 thread": ("--consistency", "sync", "--workers", "1", "--threads", "1"),
    "sync, 2 workers x 2 threads": ("--consistency", "sync", "--workers", "2", "--threads", "2"),
    "async, 2 workers x 2 threads": ("--consistency", "async", "--workers", "2", "--threads", "2"),
    "ssp:2, 2 workers x 2 threads": ("--consistency", "ssp:2", "--workers", "2", "--threads", "2"),
}
DEADLINE_SECONDS = 600


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the pairs."""

    arrangement: str
    samples_per_second: float
    alone: float
    ratio: float
    budget: str


def run(pairs: int = 7) -> list[Row]:
    """Measure every arrangement, in turns with the plain loop."""
    return [_measure(name, options, pairs) for name, options in ARRANGEMENTS.items()]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| job | samples/s | plain loop, samples/s | ratio | compute / pull / push / wait / rest, % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row.arrangement} | {row.samples_per_second:,.0f} | {row.alone:,.0f} | {row.ratio:.2f} "
            f"| {row.budget} |"
        )
    return "\n".join(lines)


def _measure(name: str, options: tuple[str, ...], pairs: int) -> Row:
    rates, alone, ratios = [], [], []
    budget = ""
    for _ in range(pairs):
        served = _train(*options)
        plain = _train(*options, "--engine", "sequential")
        rates.append(served["samples_per_second"])
        alone.append(plain["samples_per_second"])
        ratios.append(rates[-1] / alone[-1])
        total = served["time_budget"]["total"]
        budget = " / ".join(f"{total[phase]:.0f}" for phase in ("compute", "pull", "push", "wait", "rest"))
    return Row(name, statistics.median(rates), statistics.median(alone), statistics.median(ratios), budget)


def _train(*options: str) -> dict:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "paramserver", "train", *JOB, *options, "--quiet", "--json"]
        result = subprocess.run(
            [*command, "--out", str(Path(folder) / "run")],
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {result.returncode}: {result.stderr}")
        return json.loads(result.stdout)  # type: ignore[no-any-return]
