"""A shard's weights and the optimizer's state: staged, sealed, updated, copied out.

Published weights never change. An update writes new arrays beside the old ones and publishes them by
reference, so a reader holds one version for as long as its bytes travel, and no lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from paramserver.errors import Fault, RequestError
from paramserver.events import Cut, Slice, Snapshot
from paramserver.optim import Optimizer, State, apply, apply_rows, combine, combine_rows
from paramserver.rows import Gradient, RowGradient, RowIndices, check_indices, dense
from paramserver.types import Array, Empty, empty

Gradients = Mapping[Slice, Gradient]
"""A gradient of a shard's slices, float32, each of its slice's shape; of tables all rows or some."""


class Weights:
    """The weights of one shard.

    Args:
        shapes: of the slices that the shard owns.
        optimizer: turns a gradient into an update, element by element.
        versions_kept: snapshots that an observer can still ask for, >= 1.
        empty: where new weights are written; a host may use memory again that no reader holds.
        tables: keys of which single rows may be read and updated.
    """

    def __init__(
        self,
        shapes: Mapping[Slice, tuple[int, ...]],
        optimizer: Optimizer,
        versions_kept: int,
        empty: Empty = empty,
        tables: Collection[str] = (),
    ) -> None:
        self._empty = empty
        self._tables = frozenset(tables)
        self.shapes = dict(shapes)
        self._optimizer = optimizer
        self._versions_kept = versions_kept
        self._staged: dict[str, dict[Slice, Array]] = {}
        self._kept: list[Snapshot] = []  # newest last
        self._state: dict[Slice, State] = {}

    @property
    def sealed(self) -> bool:
        """Say whether there are weights."""
        return bool(self._kept)

    @property
    def newest(self) -> Snapshot:
        """Return the published weights.

        Raises:
            RequestError: nobody has initialised them.
        """
        if not self._kept:
            raise RequestError(
                "The job has no weights yet. Initialise every shard first.", Fault.PRECONDITION
            )
        return self._kept[-1]

    @property
    def rounds(self) -> int:
        """Return the closed rounds in the newest weights; 0 before there are any."""
        return self._kept[-1].rounds if self._kept else 0

    @property
    def kept(self) -> Sequence[Snapshot]:
        """Return the snapshots that are kept, oldest first."""
        return self._kept

    @property
    def staged(self) -> Sequence[str]:
        """Return the initialisers whose values are here, but not sealed."""
        return tuple(self._staged)

    def stage(self, initialiser: str, values: Mapping[Slice, Array]) -> None:
        """Put first weights aside until one initialiser is complete on all shards."""
        self._staged[initialiser] = {part: values[part] for part in self.shapes}

    def seal(self, initialiser: str) -> None:
        """Publish what this initialiser staged, and forget the others."""
        values = self._staged[initialiser]
        self._staged.clear()
        self._state = {part: self._optimizer.init(value) for part, value in values.items()}
        for value in values.values():
            value.flags.writeable = False
        self._kept = [Snapshot(0, 0, values)]

    def restore(self, cut: Cut) -> None:
        """Publish the weights of a cut and take over its optimizer state; what was there is gone.

        Raises:
            RequestError: the cut is not of this shard's slices.
        """
        self.check("The checkpoint", cut.snapshot.values)
        for value in cut.snapshot.values.values():
            value.flags.writeable = False
        self._staged.clear()
        self._state = {
            part: {name: array.copy() for name, array in cut.state[part].items()} for part in self.shapes
        }
        self._kept = [cut.snapshot]

    def update(self, gradients: Gradients) -> None:
        """Apply one gradient."""
        self._publish(self._updated(gradients))

    def close_round(self, leaves: Sequence[tuple[Gradients, int] | None]) -> None:
        """Apply the mean of a round.

        Args:
            leaves: for each rank its mean gradient and its samples, or None where it is not in the round.
                With none at all the round is closed and the weights stay as they are.
        """
        after = self.newest
        if any(leaves):
            after = self._updated({part: self._mean(part, leaves) for part in self.shapes})
        self._publish(replace(after, rounds=after.rounds + 1))

    def copy_state(self) -> dict[Slice, State]:
        """Return a copy of the optimizer's state, which the next update changes in place."""
        return {
            part: {name: array.copy() for name, array in arrays.items()}
            for part, arrays in self._state.items()
        }

    def check(self, what: str, values: Gradients) -> None:
        """Refuse values that are not exactly this shard's slices.

        Raises:
            RequestError: names the key, what was expected and what was found; `what` begins the sentence.
        """
        for part in values:
            if part not in self.shapes:
                raise RequestError(f"{what} has {_rows(part)}, which this shard does not own.", Fault.UNKNOWN)
        for part, shape in self.shapes.items():
            if part not in values:
                raise RequestError(f"{what} lacks {_rows(part)}, which this shard owns.")
            found = values[part]
            if isinstance(found, RowGradient) and part.key not in self._tables:
                raise RequestError(f"{what} has only some rows of '{part.key}', which is no table.")
            array = found.rows if isinstance(found, RowGradient) else found
            if found.shape != shape or found.dtype != np.float32 or not array.flags.c_contiguous:
                order = "" if array.flags.c_contiguous else " not in C order"
                raise RequestError(
                    f"{what} has {_rows(part)} as {found.shape} {found.dtype}{order}, "
                    f"expected {shape} float32 in C order."
                )

    def check_rows(self, wanted: Mapping[Slice, RowIndices]) -> None:
        """Refuse a read of rows that are not here.

        Args:
            wanted: for each slice the rows of it, counted from its first.

        Raises:
            RequestError: a slice is not this shard's or not a table's, or a row is outside, repeated or out
                of order; names the key, what was expected and what was found.
        """
        for part, indices in wanted.items():
            if part not in self.shapes:
                raise RequestError(
                    f"The pull names rows of {_rows(part)}, which this shard does not own.", Fault.UNKNOWN
                )
            if part.key not in self._tables:
                raise RequestError(
                    f"The pull names single rows of '{part.key}', which is no table. Pull it whole."
                )
            check_indices(f"The pull of {_rows(part)}", indices, self.shapes[part])

    def _mean(self, part: Slice, leaves: Sequence[tuple[Gradients, int] | None]) -> Gradient:
        """Return a slice's mean over a round: of rows alone where no replica has sent more than that."""
        by_rows: list[tuple[RowGradient, int] | None] = []
        for leaf in leaves:
            if leaf is None:
                by_rows.append(None)
                continue
            gradient = leaf[0][part]
            if not isinstance(gradient, RowGradient):
                break
            by_rows.append((gradient, leaf[1]))
        else:
            mean, _ = combine_rows(by_rows)
            assert mean is not None, "a round with leaves has samples"
            return mean
        out = self._empty(self.shapes[part])
        combine([leaf and (dense(leaf[0][part]), leaf[1]) for leaf in leaves], out=out)
        return out

    def _updated(self, gradients: Gradients) -> Snapshot:
        before = self.newest
        values: dict[Slice, Array] = {}
        for part, weights in before.values.items():
            out, gradient, state = self._empty(weights.shape), gradients[part], self._state[part]
            if isinstance(gradient, RowGradient):
                # Readers hold the old array, so the rows that stay are copied: 0.1 ms for each megabyte.
                np.copyto(out, weights)
                indices, rows = gradient.indices, gradient.rows
                apply_rows(self._optimizer, weights, indices, rows, state, before.version, out)
            else:
                apply(self._optimizer, weights, gradient, state, before.version, out)
            out.flags.writeable = False
            values[part] = out
        return Snapshot(before.version + 1, before.rounds, values)

    def _publish(self, snapshot: Snapshot) -> None:
        self._kept.append(snapshot)
        del self._kept[: -self._versions_kept]


def _rows(part: Slice) -> str:
    return f"'{part.key}' rows {part.row_begin} to {part.row_end}"
