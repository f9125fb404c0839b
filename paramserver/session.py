"""The worker's half of the protocol: one request becomes one to each shard, the replies become one answer.

To the next editor: nothing here sends or waits. `Session.pull` and `Session.push` return an exchange: the
requests to bring to the shards, and `receive` to be told what came back. Real channels and virtual time
both drive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paramserver import events as ev
from paramserver.errors import Fault, JobError, RequestError, did_you_mean
from paramserver.placement import rows, rows_between, slice_indices, split, split_gradients
from paramserver.rows import Gradients, RowGradient, RowIndices, RowsByKey, RowValues, check_indices
from paramserver.types import Array, Empty, Tensors, empty


@dataclass(frozen=True, slots=True)
class Pulled:
    """The weights that one pull brought.

    Attributes:
        values: by key, in key order: float32 arrays, and ``RowValues`` of the tables whose rows the pull
            named. They are fresh and belong to the caller.
        versions: of each shard.
        rounds: closed rounds (synchronous mode; of async and ssp 0).
        clock_gap: the largest over the shards, in clocks.
        verdict: what became of the replica's last push, once its round is decided (synchronous mode).
        released_by: where the servers keep a trace, the rank whose push ended the pull's wait; else `NOBODY`.
        sees: where they do, the names of the pushes that no pull has seen before.
    """

    values: dict[str, Any]
    versions: tuple[int, ...]
    rounds: int
    clock_gap: int
    verdict: ev.Verdict | None
    released_by: int = ev.NOBODY
    sees: tuple[str, ...] = ()


class PullExchange:
    """One pull over all shards.

    Attributes:
        requests: for each shard what to send it; ``request`` is the shard's number.
    """

    def __init__(
        self, session: Session, requests: Mapping[int, ev.PullReceived], rows: RowsByKey | None = None
    ) -> None:
        self.requests = requests
        self._session = session
        self._rows = rows or {}
        self._values = {
            key: session.empty((len(self._rows[key]), *shape[1:]) if key in self._rows else shape)
            for key, shape in session.shapes.items()
        }
        self._headers: dict[int, ev.PullGranted] = {}

    def destination(self, part: ev.Slice) -> Array:
        """Return the view into which a slice's values belong: of its shape, or of the rows asked for."""
        values = self._values[part.key]
        if part.key in self._rows:
            begin, end = rows_between(self._rows[part.key], part)
            return values[begin:end]
        return rows(values, part)

    def receive(self, shard: int, header: ev.PullGranted) -> Pulled | None:
        """Take one shard's answer, once its values are in their destinations.

        Args:
            shard: whose.
            header: its version, rounds, gap and verdict; the snapshot's values are not looked at.

        Returns:
            The weights, when this was the last shard; else None.

        Raises:
            JobError: the shards' weights are of different rounds.
        """
        self._headers[shard] = header
        if len(self._headers) < len(self.requests):
            return None
        headers = [self._headers[index] for index in sorted(self._headers)]
        rounds = {header.snapshot.rounds for header in headers}
        if len(rounds) > 1:
            raise JobError(f"The shards answered one pull with different rounds: {sorted(rounds)}.")
        versions = tuple(header.snapshot.version for header in headers)
        self._session.versions = versions
        verdicts = [header.verdict for header in headers if header.verdict is not None]
        decided = assemble_verdict(verdicts) if len(verdicts) == len(headers) else None
        gap = max(header.clock_gap for header in headers)
        values: dict[str, Any] = {
            key: RowValues(self._rows[key], value, self._session.shapes[key]) if key in self._rows else value
            for key, value in self._values.items()
        }
        releases = [header.released_by for header in headers if header.released_by != ev.NOBODY]
        sees = tuple(name for header in headers for name in header.sees)
        return Pulled(values, versions, rounds.pop(), gap, decided, (releases or [ev.NOBODY])[-1], sees)


class PushExchange:
    """One push over all shards.

    Attributes:
        requests: for each shard what to send it; ``request`` is the shard's number.
        refusal: why the gradient goes out as a contribution of no samples; empty if it is in order.
    """

    def __init__(self, requests: Mapping[int, ev.PushReceived], refusal: str) -> None:
        self.requests = requests
        self.refusal = refusal
        self._verdicts: dict[int, ev.Verdict] = {}

    def receive(self, shard: int, verdict: ev.Verdict) -> ev.Verdict | None:
        """Take one shard's verdict; return that over all shards when this was the last one."""
        self._verdicts[shard] = verdict
        if len(self._verdicts) < len(self.requests):
            return None
        return assemble_verdict([self._verdicts[index] for index in sorted(self._verdicts)])


@dataclass(slots=True)
class Session:
    """A replica's or an observer's view of the job, from its join on.

    Attributes:
        granted: what the coordinator answered to the join.
        empty: makes the arrays that pulls fill; not to be handed out again while anybody holds them.
        shapes: of every tensor, by key, in key order.
        tables: keys of which single rows may be pulled and pushed.
        shards: how many there are.
        versions: of each shard, as the last pull found them.
    """

    granted: ev.JoinGranted
    empty: Empty = empty
    shapes: dict[str, tuple[int, ...]] = field(init=False)
    tables: frozenset[str] = field(init=False)
    shards: int = field(init=False)
    versions: tuple[int, ...] = field(init=False)
    _slices: dict[int, tuple[ev.Slice, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = {tensor.key: tensor.shape for tensor in self.granted.job.tensors}
        self.tables = frozenset(tensor.key for tensor in self.granted.job.tensors if tensor.table)
        self.shards = len(self.granted.addresses)
        self.versions = (0,) * self.shards
        self._slices = {
            shard: tuple(part for part in self.granted.placement if part.shard == shard)
            for shard in range(self.shards)
        }

    def slices(self, shard: int) -> tuple[ev.Slice, ...]:
        """Return the slices of one shard, in placement order."""
        return self._slices[shard]

    def initialise(self, initialiser: str, values: Tensors) -> dict[int, ev.InitialiseReceived]:
        """Make the requests that stage first weights on every shard.

        Args:
            initialiser: a text that no other attempt uses.
            values: float32 by key, of the job's shapes.

        Raises:
            RequestError: a key, shape or dtype is not the job's, or a value is not finite.
        """
        self._check(values)
        bad = _not_finite(values)
        if bad:
            raise RequestError(f"The first weights hold {bad}.")
        return {
            shard: ev.InitialiseReceived(shard, initialiser, split(values, self.slices(shard)))
            for shard in range(self.shards)
        }

    def pull(self, clock: int, rows: RowsByKey | None = None) -> PullExchange:
        """Begin a replica's read at its clock.

        Args:
            clock: finished steps.
            rows: which rows of which tables suffice; every other tensor is read whole.

        Raises:
            RequestError: this is an observer, or there are no such rows.
        """
        replica, generation = self._replica(), self.granted.generation
        wanted = self._split_rows(rows or {})
        requests = {
            shard: ev.PullReceived(shard, replica, generation, clock, rows=wanted[shard])
            for shard in range(self.shards)
        }
        return PullExchange(self, requests, rows)

    def observe(self, round: int | None = None) -> PullExchange:
        """Begin an observer's read: of the weights after a number of rounds, or of the newest."""
        return PullExchange(
            self, {shard: ev.PullReceived(shard, None, round=round) for shard in range(self.shards)}
        )

    def push(self, sequence: int, gradients: Gradients, samples: int) -> PushExchange:
        """Begin a push of the gradient that was computed from the last pull.

        Args:
            sequence: the clock of the step.
            gradients: the mean gradient by key, float32 of the job's shapes; of tables all rows, or a
                ``RowGradient`` of those that the batch has touched. The arrays must not change until the push
                is answered.
            samples: how many samples it is the mean over, >= 1.

        Returns:
            The exchange. A gradient that is not finite goes out as a refusal, which counts as no samples.

        Raises:
            RequestError: a key, shape, dtype or number of samples is wrong; nothing has been sent.
        """
        self._check(gradients)
        replica = self._replica()
        if samples < 1:
            raise RequestError(f"A gradient is the mean over at least 1 sample, not over {samples}.")
        bad = _not_finite(gradients, self.granted.job.gradient_max(samples))
        refusal = f"The gradient of replica {replica.rank} at clock {sequence} holds {bad}." if bad else ""
        requests = {
            shard: ev.PushReceived(
                shard,
                replica,
                self.granted.generation,
                sequence,
                self.versions[shard],
                0 if refusal else samples,
                {} if refusal else split_gradients(gradients, self.slices(shard)),
                refusal,
            )
            for shard in range(self.shards)
        }
        return PushExchange(requests, refusal)

    def _replica(self) -> ev.Replica:
        if self.granted.replica is None:
            raise RequestError("An observer only reads. Join with a job to push.", Fault.PRECONDITION)
        return self.granted.replica

    def _split_rows(self, rows: RowsByKey) -> list[dict[ev.Slice, RowIndices]]:
        """Return for each shard which rows of its slices are wanted, counted from the slice's first."""
        for key, indices in rows.items():
            if key not in self.shapes:
                raise self._unknown(key)
            if key not in self.tables:
                raise RequestError(f"The tensor '{key}' is no table, so it has to be pulled whole.")
            check_indices(f"The rows of '{key}' to be pulled", indices, self.shapes[key])
        return [
            {part: slice_indices(rows[part.key], part) for part in self.slices(shard) if part.key in rows}
            for shard in range(self.shards)
        ]

    def _unknown(self, key: str) -> RequestError:
        return RequestError(f"The job has no tensor '{key}'.{did_you_mean(key, self.shapes)}", Fault.UNKNOWN)

    def _check(self, tensors: Gradients) -> None:
        for key in tensors:
            if key not in self.shapes:
                raise self._unknown(key)
        for key, shape in self.shapes.items():
            if key not in tensors:
                raise RequestError(f"The tensor '{key}' is missing; expected {shape} float32.")
            found = tensors[key]
            if isinstance(found, RowGradient) and key not in self.tables:
                raise RequestError(f"The tensor '{key}' is no table, so its gradient has to be pushed whole.")
            if found.shape != shape or found.dtype != np.float32:
                raise RequestError(
                    f"The tensor '{key}' is {found.shape} {found.dtype}, expected {shape} float32."
                )


def assemble_verdict(verdicts: list[ev.Verdict]) -> ev.Verdict:
    """Say what became of a push over all shards.

    Args:
        verdicts: of each shard, at least one.

    Returns:
        What the shards agree on, with the largest staleness and version; ``PARTIAL`` where some applied it
        and others did not. A round that is decided on some shards and open on others is still buffered.

    Example:
        >>> from paramserver.events import Outcome, Verdict
        >>> str(assemble_verdict([Verdict(Outcome.APPLIED, 7, 2), Verdict(Outcome.APPLIED, 8, 3)]))
        'applied at version 8, staleness 3'
    """
    duplicate = any(verdict.duplicate for verdict in verdicts)
    by_outcome = {verdict.outcome: verdict for verdict in verdicts}
    if ev.Outcome.BUFFERED in by_outcome:
        return replace(by_outcome[ev.Outcome.BUFFERED], duplicate=duplicate)
    if set(by_outcome) == {ev.Outcome.APPLIED}:
        version = max(verdict.version for verdict in verdicts)
        staleness = max(verdict.staleness for verdict in verdicts)
        return replace(verdicts[0], version=version, staleness=staleness, duplicate=duplicate)
    if ev.Outcome.APPLIED in by_outcome:
        applied = sum(verdict.outcome is ev.Outcome.APPLIED for verdict in verdicts)
        why = next(verdict.reason for verdict in verdicts if verdict.outcome is not ev.Outcome.APPLIED)
        reason = f"{applied} of {len(verdicts)} shards applied it. {why}"
        return ev.Verdict(ev.Outcome.PARTIAL, reason=reason, duplicate=duplicate)
    if ev.Outcome.FENCED in by_outcome:
        fenced = [verdict for verdict in verdicts if verdict.outcome is ev.Outcome.FENCED]
        return replace(fenced[0], clock=min(verdict.clock for verdict in fenced))
    return replace(verdicts[0], duplicate=duplicate)


def _not_finite(tensors: Gradients, largest: float = ev.FLOAT32_MAX) -> str:
    """Describe a value that is not finite or too large, as ``nan in 'dense1/weight'``; empty if none is."""
    for key in sorted(tensors):
        gradient = tensors[key]
        values = gradient.rows if isinstance(gradient, RowGradient) else gradient
        if not values.size:
            continue
        low, high = values.min(), values.max()  # either is NaN if any value is
        if not (-largest <= low and high <= largest):
            bad = values[~(np.abs(values) <= largest)].flat[0]
            return f"{bad:g} in '{key}'" + ", too large to be summed up" * bool(np.isfinite(bad))
    return ""
