"""The coordinator's diary of a run: ``metrics.jsonl``, a line about every second and one for each score."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paramserver.accounting import merge_counters
from paramserver.errors import JobError
from paramserver.events import Score, Visits
from paramserver.storage.metrics import MetricsWriter
from paramserver.summary import visits_record
from server.coordination import CoordinatorHost
from server.shards import Shards

log = logging.getLogger("server")

METRICS = "metrics.jsonl"
EVERY_SECONDS = 1.0


class Diary:
    """Appends to ``metrics.jsonl`` while the job runs.

    Args:
        out: run folder.
        coordinator: knows how the job stands, and tells of scores.
        shards: of this server; the others' versions are in the summary.

    Raises:
        JobError: the file cannot be opened.
    """

    def __init__(self, out: Path, coordinator: CoordinatorHost, shards: Shards) -> None:
        self._shards = shards
        self._writer = MetricsWriter(out / METRICS)
        self._coordinator = coordinator
        self._loop = asyncio.get_running_loop()
        coordinator.scored = self._write_score
        self._epochs = 0  # that have a line
        self._is_refused = False  # the disk has taken no line since, which has been said

    async def run(self) -> None:
        """Write a line about every second, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            self.write_progress()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write_visits(self, visits: Iterable[Visits]) -> None:
        """Write a line for each epoch that is whole; of one that is not, when the job is over."""
        over = self._coordinator.ended_at is not None
        for one in visits:
            if one.epoch == self._epochs and (over or not one.unseen - one.refused):
                self._epochs += 1
                self._append({"kind": "epoch", "seconds": self._seconds(), **visits_record(one)})

    def _write_score(self, score: Score) -> None:
        self._append({"kind": "score", "seconds": self._seconds(), **asdict(score)})

    def write_progress(self) -> None:
        """Write how the job stands, if it has begun."""
        if self._coordinator.began_at is None:
            return
        status = self._coordinator.status()
        total = merge_counters(member.counters for member in status.members)
        self._append(
            {
                "kind": "progress",
                "seconds": self._seconds(),
                "rounds": status.rounds,
                "versions": self._shards.versions(),
                "clocks": [member.clock for member in status.members],
                "gradients": dict(total.gradients),
                "samples": dict(total.samples),
                "loss": total.loss,
            }
        )
        self._write_visits(status.visits)

    def _seconds(self) -> float:
        """Return the time since the job began, until it ended."""
        began, ended = self._coordinator.began_at, self._coordinator.ended_at
        if began is None:
            return 0.0
        return round((self._loop.time() if ended is None else ended) - began, 3)

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self._writer.append(record)
        except JobError as error:
            if not self._is_refused:
                log.warning("%s The training goes on, and what it tells meanwhile is not written.", error)
            self._is_refused = True
        else:
            self._is_refused = False
