"""What one shard owns of the job, as its server has to know it."""

from __future__ import annotations

from dataclasses import dataclass

from paramserver.events import JobSpec, Slice
from paramserver.types import Shapes
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.receive import bytes_of, slice_headers


@dataclass(frozen=True, slots=True)
class Holding:
    """What one shard owns of the job.

    Attributes:
        job: the job.
        slices: in placement order.
        shapes: of the whole tensors, by key.
        tables: keys of which single rows may travel.
        headers: the announcement of the whole slices.
        bytes: of the slices' values.
    """

    job: JobSpec
    slices: tuple[Slice, ...]
    shapes: Shapes
    tables: frozenset[str]
    headers: tuple[pb.SliceHeader, ...]
    bytes: int

    @classmethod
    def of(cls, job: JobSpec, slices: tuple[Slice, ...]) -> Holding:
        """Return what an announcement gives to its shard."""
        shapes = {tensor.key: tensor.shape for tensor in job.tensors}
        tables = frozenset(tensor.key for tensor in job.tensors if tensor.table)
        headers = tuple(slice_headers(slices, shapes))
        return cls(job, slices, shapes, tables, headers, bytes_of(slices, shapes))
