"""What stands in the columns of a job's tables, and how each value is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from paramserver.launch.columns import Column
from paramserver.launch.overview import ReplicaRow, ServerRow, ShardRow

RANKS_MAX = 4
"""So many ranks that a replica waits for are named; the others are counted."""

WORKERS_MAX = 2
"""So many workers that a worker waits for are named; the others are counted."""

NAME_CELLS_MAX = 16
"""A replica's name is whatever its owner says; beyond this it is cut, so that the numbers have room."""

STYLES = {
    "compute": "green",
    "pull": "cyan",
    "push": "blue",
    "wait": "yellow",
    "dead": "bold red",
    "done": "dim",
    "idle": "dim",
}


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker.

    Attributes:
        name: such as ``worker0``.
        rows: its replicas, by rank.
        waits_for: the workers that they wait for, as a text.
    """

    name: str
    rows: tuple[ReplicaRow, ...]
    waits_for: str

    @property
    def slowest(self) -> int:
        """Return the clock of its slowest replica."""
        return min(row.clock for row in self.rows)

    @property
    def is_dead(self) -> bool:
        """Say whether a replica of it is dead."""
        return any(row.does == "dead" for row in self.rows)


def _clock(row: ReplicaRow) -> str:
    return f"{row.clock:,}"


def _short(name: str) -> str:
    return name if len(name) <= NAME_CELLS_MAX else f"{name[: NAME_CELLS_MAX - 1]}…"


def _number(value: float | None, form: str = ",.0f") -> str:
    return "-" if value is None else format(value, form)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _whom(row: ReplicaRow) -> str:
    """Say for whom a replica waits."""
    if row.does != "wait":
        return ""
    if not row.waits_for:
        return "coordinator" if "coordinator" in row.waits_because else "the start"
    return _ranks(row.waits_for, row.waits_for_others)


def _ranks(ranks: Sequence[int], others: int = 0) -> str:
    more = others + max(0, len(ranks) - RANKS_MAX)
    return ", ".join(map(str, ranks[:RANKS_MAX])) + (f" +{more}" if more else "")


def span(values: Iterable[int]) -> str:
    """Write the least and the largest of some numbers.

    Example:
        >>> span([3, 1, 2]), span([5])
        ('1-3', '5')
    """
    known = sorted(values)
    return f"{known[0]:,}" if known[0] == known[-1] else f"{known[0]:,}-{known[-1]:,}"


def _style(row: ReplicaRow) -> str:
    return STYLES[row.does]


REPLICA_COLUMNS: tuple[Column[ReplicaRow], ...] = (
    Column("rank", lambda row: str(row.rank), right=True),
    Column("replica", lambda row: _short(row.name), from_cells=60),
    Column("clock", _clock, right=True),
    Column("of", lambda row: f"{row.steps:,}" if row.steps else "", from_cells=90, right=True),
    Column("staleness", lambda row: _number(row.staleness), "stale", right=True),
    Column("samples/s", lambda row: _number(row.samples_per_second), "smp/s", right=True),
    Column("loss", lambda row: _number(row.loss, ".3f"), from_cells=110, right=True),
    Column("heard", lambda row: _seconds(row.heard_seconds), from_cells=110, right=True),
    Column("now", lambda row: row.does, style=_style),
    Column("since", lambda row: _seconds(row.waits_seconds), from_cells=90, right=True),
    Column("waits for", _whom, "for"),
    Column("because", lambda row: row.waits_because, from_cells=140),
)


def by_worker(replicas: Iterable[ReplicaRow]) -> list[Worker]:
    """Gather replicas by the part of their name before the slash."""
    found: dict[str, list[ReplicaRow]] = {}
    worker_of: dict[int, str] = {}
    for row in replicas:
        worker_of[row.rank] = row.name.partition("/")[0]
        found.setdefault(worker_of[row.rank], []).append(row)
    return [Worker(name, tuple(rows), _together(rows, worker_of)) for name, rows in found.items()]


def _together(rows: Sequence[ReplicaRow], worker_of: Mapping[int, str]) -> str:
    """Say for which workers those of one worker wait: for those first that hold up most."""
    held_up_by = Counter(
        worker_of.get(rank, str(rank)) for row in rows if row.does == "wait" for rank in row.waits_for
    )
    if held_up_by:
        named = [name for name, _ in held_up_by.most_common(WORKERS_MAX)]
        others = len(held_up_by) - len(named)
        return ", ".join(named) + (f" +{others}" if others else "")
    return next((whom for row in rows if (whom := _whom(row))), "")


def _doing(worker: Worker) -> str:
    if len(worker.rows) == 1:
        return worker.rows[0].does
    doing = Counter(row.does for row in worker.rows)
    return ", ".join(f"{number} {what}" for what, number in doing.most_common())


def _latest_staleness(worker: Worker) -> int | None:
    return max((row.staleness for row in worker.rows if row.staleness is not None), default=None)


def _speed(worker: Worker) -> float | None:
    known = [row.samples_per_second for row in worker.rows if row.samples_per_second is not None]
    return sum(known) if known else None


WORKER_COLUMNS: tuple[Column[Worker], ...] = (
    Column("worker", lambda worker: _short(worker.name)),
    Column("replicas", lambda worker: str(len(worker.rows)), from_cells=60, right=True),
    Column("clock", lambda worker: span(row.clock for row in worker.rows), right=True),
    Column("staleness", lambda worker: _number(_latest_staleness(worker)), "stale", right=True),
    Column("samples/s", lambda worker: _number(_speed(worker)), "smp/s", right=True),
    Column("waits for", lambda worker: worker.waits_for, from_cells=60),
    Column("now", _doing, style=lambda worker: "bold red" if worker.is_dead else ""),
)


def _size(value: int | None) -> str:
    """Write a number of bytes in the unit that suits it."""
    if value is None:
        return "no answer"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value} B"


def _verdicts(row: ShardRow) -> str:
    return ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(row.pushes.items()) if number)


def _mean_staleness(row: ShardRow) -> float | None:
    times = sum(row.staleness.values())
    return sum(value * number for value, number in row.staleness.items()) / times if times else None


SERVER_COLUMNS: tuple[Column[ServerRow], ...] = (
    Column("server", lambda row: str(row.server), right=True),
    Column("received", lambda row: _size(row.received_bytes), "in", right=True),
    Column("sent", lambda row: _size(row.sent_bytes), "out", right=True),
    Column("shards", lambda row: str(row.shards), from_cells=60, right=True),
    Column("address", lambda row: row.address),
)

SHARD_COLUMNS: tuple[Column[ShardRow], ...] = (
    Column("shard", lambda row: str(row.shard), right=True),
    Column("server", lambda row: str(row.server), from_cells=60, right=True),
    Column("version", lambda row: f"{row.version:,}", right=True),
    Column("weights", lambda row: _size(row.bytes), from_cells=90, right=True),
    Column("staleness", lambda row: _number(_mean_staleness(row), ".2f"), from_cells=90, right=True),
    Column("waiting", lambda row: str(row.waiting), "wait", right=True),
    Column("lock waited", lambda row: f"{row.lock_wait_seconds:.3f} s", from_cells=60, right=True),
    Column("lock held", lambda row: f"{row.lock_hold_seconds:.3f} s", from_cells=60, right=True),
    Column("pushes", _verdicts),
)
