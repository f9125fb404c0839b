"""The coordinator's journal: what it has decided, before anybody hears of it.

A file begins with all that counts at that moment: the record, and the orders that a shard may have to hear
again. Each frame after it is one decision: the orders of it, and the record where that has changed. A newly
kept checkpoint makes most of it superfluous, so a new file begins there, and the old one goes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from paramserver.errors import RequestError
from paramserver.events import JobRecord, Ordered
from paramserver.storage.atomic import json_text, sync_folder
from paramserver.storage.job_record import job_record_of, plain_job_record
from paramserver.storage.journal.frames import MAGIC, pack_head, read_frames
from paramserver.storage.journal.plain import order_of, plain_order
from paramserver.storage.journal.segments import JOURNAL, segment_numbers, segment_path

COORDINATOR_FOLDER = "coordinator"
DECISION = 6
"""The kind of a decision's frame."""


class DecisionWriter:
    """Write the coordinator's journal. Every method may raise `OSError`.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder = run / JOURNAL / COORDINATOR_FOLDER
        self._file: BinaryIO | None = None

    def begin(self, record: JobRecord, log: Sequence[Ordered]) -> None:
        """Begin a file with all that counts now; returns when the disk has it and the old ones are gone."""
        self._folder.mkdir(parents=True, exist_ok=True)
        numbers = segment_numbers(self._folder)
        self.close()
        self._file = segment_path(self._folder, numbers[-1] + 1 if numbers else 0).open("xb")
        self._file.write(MAGIC)
        self.append(record, log)
        self.sync()
        for folder in (self._folder, self._folder.parent, self._run):
            sync_folder(folder)
        for number in numbers:
            segment_path(self._folder, number).unlink(missing_ok=True)

    def append(self, record: JobRecord | None, orders: Sequence[Ordered]) -> None:
        """Add one decision."""
        assert self._file is not None, "a file has to be begun first"
        value = {
            "record": None if record is None else plain_job_record(record),
            "orders": [[each.shard, plain_order(each.order)] for each in orders],
        }
        payload = json_text(value).encode()
        self._file.write(pack_head(DECISION, [payload]))
        self._file.write(payload)

    def sync(self) -> None:
        """Wait until the disk has all decisions."""
        assert self._file is not None, "a file has to be begun first"
        self._file.flush()
        getattr(os, "fdatasync", os.fsync)(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_decisions(run: Path) -> tuple[JobRecord, list[Ordered]] | None:
    """Read what a coordinator has decided last.

    Returns:
        The record, and the orders that a shard may have to hear again; None where there is no such journal.

    Raises:
        RequestError: it is not sound. A decision that is torn at the end never was one.
    """
    folder = run / JOURNAL / COORDINATOR_FOLDER
    record: JobRecord | None = None
    orders: list[Ordered] = []
    for number in reversed(segment_numbers(folder)):
        path = segment_path(folder, number)
        try:
            for frame in read_frames(path.read_bytes()).frames:
                value = json.loads(bytes(frame.payload))
                if value["record"] is not None:
                    record = job_record_of(value["record"])
                orders += [Ordered(order_of(order), shard) for shard, order in value["orders"]]
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RequestError(f"{path} is not what a coordinator has written ({error!r}).") from None
        if record is not None:
            return record, orders
    return None
