"""What a token and TLS cost: one job with and without them, the two programs started by hand, in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paramserver.security.certificates import make_certificates

JOB = """
data = "digits"
model = "mlp:256,128"
epochs = 40
workers = 2
threads = 2
consistency = "sync"
"""
SIDES = ("open", "token", "token and mutual TLS")
DEADLINE_SECONDS = 600


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the rounds."""

    side: str
    samples_per_second: float
    ratio: float
    least: float
    most: float


def run(pairs: int = 7) -> list[Row]:
    """Measure every side in each round."""
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        make_certificates(keys, [], 1)
        for number in range(pairs):
            for side in SIDES:
                rates[side].append(_train(side, keys, Path(folder) / f"{side.split()[-1]}{number}"))
    return compare(rates, "open")


def compare(rates: Mapping[str, Sequence[float]], free: str) -> list[Row]:
    """Return a row for each side.

    Args:
        rates: samples per second of each side, in the order of the rounds.
        free: the side that the others are compared to, round by round.
    """
    rows = []
    for side, measured in rates.items():
        ratios = [rate / base for rate, base in zip(measured, rates[free], strict=True)]
        rows.append(
            Row(side, statistics.median(measured), statistics.median(ratios), min(ratios), max(ratios))
        )
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| doors | samples/s | to open (least to most) |", "| --- | --- | --- |"]
    for row in rows:
        spread = f"{row.ratio:.2f} ({row.least:.2f} to {row.most:.2f})"
        lines.append(f"| {row.side} | {row.samples_per_second:,.0f} | {spread} |")
    return "\n".join(lines)


def _train(side: str, keys: Path, folder: Path) -> float:
    return train_by_hand(folder, JOB, _options(side, keys, "server"), _options(side, keys, "worker"))


def train_by_hand(
    folder: Path, job_text: str, server_options: Sequence[str], worker_options: Sequence[str]
) -> float:
    """Train a job with one server of two shards and two workers, and return its samples per second.

    Args:
        folder: for all that is written; it must not exist.
        job_text: of the job file.
        server_options: more options of the server.
        worker_options: more options of each worker.
    """
    folder.mkdir()
    (folder / "job.toml").write_text(job_text)
    job = ["--job", str(folder / "job.toml")]
    server = _start(["server", "--shards", "2", "--out", str(folder / "out"), *job, *server_options], folder)
    assert server.stdout is not None
    address = server.stdout.readline().removeprefix("listening ").strip()
    workers = [
        _start(["worker", "--worker", str(index), "--connect", address, *job, *worker_options], folder)
        for index in range(2)
    ]
    try:
        for process in (*workers, server):
            if process.wait(DEADLINE_SECONDS):
                raise RuntimeError(
                    f"A process ended with {process.returncode}: {(folder / 'log').read_text()}"
                )
    finally:
        for process in (*workers, server):
            process.kill()
            assert process.stdout is not None
            process.stdout.close()
            process.wait()
    rate: float = json.loads((folder / "out" / "summary.json").read_text())["samples_per_second"]
    return rate


def _options(side: str, keys: Path, role: str) -> list[str]:
    at = keys / role
    options = [] if side == "open" else ["--token-file", f"{at}/token"]
    if "TLS" in side:
        options += ["--tls-ca", f"{at}/ca.crt", "--tls-cert", f"{at}/{role}.crt"]
        options += ["--tls-key", f"{at}/{role}.key"]
    return options


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
