"""The coordinator's journal, written by a thread: nothing that it decides leaves before it is there."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paramserver.coordinator import Coordinator
from paramserver.events import CoordinatorEffect, JobRecord, Kept, Ordered, Remember
from paramserver.storage.journal import DecisionWriter


@dataclass(frozen=True, slots=True)
class _Decision:
    """Some orders, a record if it has changed, and whether all begins anew with them."""

    record: JobRecord | None
    orders: Sequence[Ordered]
    begins: bool


class DecisionJournal:
    """Notes what the coordinator decides. Confined to the event loop but for what its thread does.

    Args:
        run: the run folder.
        fail: called with a sentence, from its thread, where the disk refuses.
        released: called, from its thread, when more has been synced.
    """

    def __init__(self, run: Path, fail: Callable[[str], None], released: Callable[[], None]) -> None:
        self._writer = DecisionWriter(run)
        self._fail = fail
        self._released = released
        self._kept: Kept | None = None
        self._begun = False
        self._noted = 0
        self._items: deque[_Decision] = deque()  # filled by the loop, emptied by the thread
        self._synced = 0  # set by the thread
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self._thread.start()

    @property
    def synced(self) -> int:
        """How many decisions the disk has."""
        return self._synced

    def begin(self, record: JobRecord, log: Sequence[Ordered]) -> None:
        """Go on with what an earlier coordinator has decided."""
        self._begun, self._kept = True, record.kept
        self._append(_Decision(record, tuple(log), begins=True))

    def note(self, effects: Sequence[CoordinatorEffect], coordinator: Coordinator) -> int:
        """Note what the coordinator has just decided, and return how much has to be synced before it leaves.

        Args:
            effects: of one event.
            coordinator: as it is now.
        """
        record = next((each.record for each in effects if isinstance(each, Remember)), None)
        orders = [each for each in effects if isinstance(each, Ordered) and not each.again]
        if not (record or orders):
            return self._noted
        if record is not None and (not self._begun or record.kept != self._kept):
            self.begin(record, coordinator.log)
        elif self._begun:
            self._append(_Decision(record, orders, begins=False))
        return self._noted

    def close(self) -> None:
        """Write what is left; blocks until that is done."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def _append(self, decision: _Decision) -> None:
        if self._ended:
            return
        self._items.append(decision)
        self._noted += 1
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._ended:
                self._wake.wait()
                self._wake.clear()
                self._write()
            self._write()
        except OSError as error:
            self._ended = True
            self._fail(
                f"The coordinator's journal cannot be written: {error.strerror or error}. All that was "
                "answered is in it. Free some space and go on with this run."
            )
        finally:
            self._writer.close()

    def _write(self) -> None:
        count = len(self._items)
        if not count:
            return
        for _ in range(count):
            decision = self._items.popleft()
            if decision.begins:
                assert decision.record is not None
                self._writer.begin(decision.record, decision.orders)
            else:
                self._writer.append(decision.record, decision.orders)
        self._writer.sync()
        self._synced += count
        self._released()
