"""Progress as log lines, for whatever collects logs."""

from __future__ import annotations

import logging
import math
import time

from paramserver.launch.overview import Overview
from paramserver.launch.progress import LINE_SECONDS, Moment, Speed, line_of
from paramserver.logs import fields

log = logging.getLogger("train")


class LogLines:
    """Logs a line every few seconds, with its figures beside."""

    def __init__(self) -> None:
        self._speed = Speed()
        self._next = -math.inf

    def note(self, sentence: str) -> None:
        """Log a sentence; of several lines each by itself."""
        for line in sentence.splitlines():
            log.info("%s", line)

    def update(self, moment: Moment) -> None:
        """Log how far the job is, if the last line is old enough."""
        self._speed.see(time.monotonic(), moment)
        self._tell(moment, self._speed.seconds_to_go, self._speed.samples_per_second)

    def show(self, overview: Overview) -> None:
        """Log how far the job is, if the last line is old enough."""
        self._tell(overview.moment, overview.seconds_to_go, overview.samples_per_second)

    def close(self) -> None:
        """Do nothing."""

    def _tell(self, moment: Moment, to_go: float | None, samples_per_second: float | None) -> None:
        now = time.monotonic()
        if now < self._next or moment.samples == 0:
            return
        self._next = now + LINE_SECONDS
        figures = fields(
            fraction=round(moment.fraction, 4),
            samples=moment.samples,
            loss=moment.loss if math.isfinite(moment.loss) else None,
            accuracy=moment.accuracy,
            samples_per_second=samples_per_second,
            seconds_to_go=to_go,
        )
        log.info("%s", line_of(moment, to_go, samples_per_second).strip(), extra=figures)
