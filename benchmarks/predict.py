"""Predictions in a second by one model that more and more threads share.

The bound is what as many processes do that share nothing, each with its own interpreter and copy: threads
of one process cannot do better. Both take turns, so that a slow moment of the machine hits both alike.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from paramserver.models import build_model
from paramserver.prediction import predict

MODELS = ("mlp:256,128", "cnn")
FEATURES, CLASSES, SAMPLES = 784, 10, 10_000


@dataclass(frozen=True)
class Row:
    """One line of the table: medians over the repetitions."""

    model: str
    threads: int
    samples_per_second: float
    to_one: float
    to_processes: float
    same: bool


def run(repeats: int = 7) -> list[Row]:
    """Measure every model with 1, 2, 4, ... threads, up to twice the cores.

    Args:
        repeats: predictions of 10,000 images each, after one that is not counted.
    """
    cores = os.cpu_count() or 1
    counts = [2**power for power in range(8) if 2**power <= 2 * cores]
    return [row for model in MODELS for row in _measure(model, counts, repeats)]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | threads | samples/s | to 1 thread | to as many processes | same bytes as 1 thread |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.model} | {row.threads} | {row.samples_per_second:,.0f} | {row.to_one:.2f} "
        f"| {row.to_processes:.2f} | {'yes' if row.same else 'NO'} |"
        for row in rows
    ]
    return "\n".join(lines)


def _measure(name: str, counts: list[int], repeats: int) -> list[Row]:
    model = build_model(name, FEATURES, CLASSES)
    weights = model.initial(0)
    inputs = np.random.default_rng(0).random((SAMPLES, FEATURES), dtype=np.float32)
    expected = predict(model, weights, inputs).logits.tobytes()
    rows = []
    for threads in counts:
        same = predict(model, weights, inputs, threads).logits.tobytes() == expected
        with ProcessPoolExecutor(threads, mp_context=get_context("spawn")) as pool:
            list(pool.map(_warm_up, [name] * threads))
            times = [
                (
                    _seconds(lambda: predict(model, weights, inputs, 1)),
                    _seconds(lambda: predict(model, weights, inputs, threads)),  # noqa: B023 - called at once
                    _seconds(lambda: list(pool.map(_part, [(name, threads)] * threads))),  # noqa: B023
                )
                for _ in range(repeats)
            ]
        median = statistics.median
        rows.append(
            Row(
                name,
                threads,
                SAMPLES / median(mine for _, mine, _ in times),
                median(one / mine for one, mine, _ in times),
                median(processes / mine for _, mine, processes in times),
                same,
            )
        )
    return rows


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


_KEPT: dict[str, tuple[object, ...]] = {}


def _warm_up(name: str) -> None:
    """Make the model and its inputs in this process, once."""
    model = build_model(name, FEATURES, CLASSES)
    inputs = np.random.default_rng(0).random((SAMPLES, FEATURES), dtype=np.float32)
    _KEPT[name] = (model, model.initial(0), inputs)
    time.sleep(0.2)  # so that every process of the pool takes one of these


def _part(task: tuple[str, int]) -> None:
    """Predict one process's part of the samples."""
    name, processes = task
    if name not in _KEPT:
        _warm_up(name)
    model, weights, inputs = _KEPT[name]
    predict(model, weights, inputs[: SAMPLES // processes])  # type: ignore[arg-type, index]
