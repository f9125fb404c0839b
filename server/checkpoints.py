"""Checkpoints while the job runs: every server writes its cuts, the coordinator finishes what is whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from paramserver.errors import JobError, RequestError
from paramserver.events import (
    CheckpointFailed,
    CheckpointKept,
    CheckpointLost,
    Cut,
    CutMade,
    GenerationBegun,
    JobRecord,
    Kept,
)
from paramserver.recovery import nearest_clocks
from paramserver.storage import (
    ShardFile,
    checkpoint_folder,
    finish_checkpoint,
    keep_also,
    load_manifest,
    newest_checkpoint,
    read_cut,
    read_kept,
    remove_old,
    remove_unfinished,
    write_cut,
    write_job_record,
)
from paramserver.wire import paramserver_pb2 as pb
from server.coordination import CoordinatorHost
from server.files import decode_file, encode_file
from server.journal import FINAL_CUT, ShardJournal

log = logging.getLogger("server")


class Tasks:
    """Tasks of the event loop that nobody waits for; they are held until they end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something run beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Wait until all of them have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _written_before(folder: Path, cut: Cut, generation: int) -> ShardFile | None:
    """Return the file of a finished checkpoint that has this very cut; None where there is none."""
    try:
        manifest = load_manifest(folder)
        if manifest.generation != generation or cut.shard >= len(manifest.files):
            return None
        there = read_cut(folder, cut.shard, tuple(cut.snapshot.values))
    except RequestError:
        return None
    here, same = cut.snapshot, there.snapshot
    counts = (here.version, here.rounds, cut.clocks, cut.verdicts)
    if counts != (same.version, same.rounds, there.clocks, there.verdicts):
        return None
    for part, values in here.values.items():
        if not np.array_equal(values, same.values[part]):
            return None
        if any(not np.array_equal(array, there.state[part][name]) for name, array in cut.state[part].items()):
            return None
    return manifest.files[cut.shard]


class CutKeeper:
    """Writes and reads this server's part of checkpoints, off the event loop.

    Args:
        out: the run folder; None: nothing is kept.
        shards_total: of all servers.
        written: told what became of each cut, on the event loop.
        journals: of the shards; a cut says where in them it was made.
    """

    def __init__(
        self,
        out: Path | None,
        shards_total: int,
        written: Callable[[pb.CutWritten], None],
        journals: Mapping[int, ShardJournal],
    ) -> None:
        self._out = out
        self._journals = journals
        self._shards_total = shards_total
        self._written = written
        self._tasks = Tasks()

    def keep(self, made: CutMade, generation: int) -> None:
        """Write a cut; returns at once."""
        self._tasks.begin(self._keep(made, generation))

    def write(self, folder: Path, cut: Cut, generation: int, checkpoint: int) -> ShardFile:
        """Write a cut; blocks until the disk has it.

        The last checkpoint of a job may be made twice, where a server is lost right after it. If it is the
        same, its files stay as they are, and so its manifest stays true.

        Args:
            folder: of the checkpoint.
            cut: to be written.
            generation: of the weights.
            checkpoint: its number, or `FINAL_CUT`.

        Raises:
            JobError: the disk refuses.
        """
        journal = self._journals.get(cut.shard)
        link = None if journal is None else journal.link(checkpoint)
        there = _written_before(folder, cut, generation) if checkpoint == FINAL_CUT else None
        if there is not None:
            return there
        return write_cut(folder, cut, self._shards_total, generation, link)

    async def read(self, order: GenerationBegun, shard: int) -> Cut:
        """Read what a shard was at the checkpoint that an order names.

        Raises:
            RequestError: it is torn, or is not there.
        """
        if self._out is None:
            raise RequestError("This server has no --out, so it has kept no checkpoint to go on from.")
        assert order.checkpoint is not None, "who begins anew has nothing to read"
        folder = checkpoint_folder(self._out, order.checkpoint)
        return await asyncio.to_thread(read_cut, folder, shard, order.slices)

    def refuse(self, order: GenerationBegun, shard: int, error: RequestError) -> None:
        """Say that a shard cannot go on from the checkpoint that an order names."""
        assert order.checkpoint is not None, "who begins anew has nothing to read"
        self._written(pb.CutWritten(checkpoint=order.checkpoint, shard=shard, failure=str(error)))

    async def _keep(self, made: CutMade, generation: int) -> None:
        cut = made.cut
        message = pb.CutWritten(
            checkpoint=made.checkpoint, shard=cut.shard, rounds=cut.snapshot.rounds, clocks=cut.clocks
        )
        if self._out is None:
            message.failure = "This server has no --out, so it keeps nothing."
        else:
            try:
                folder = checkpoint_folder(self._out, made.checkpoint)
                file = await asyncio.to_thread(self.write, folder, cut, generation, made.checkpoint)
                message.file.CopyFrom(encode_file(file))
            except (JobError, RequestError) as error:
                message.failure = str(error)
        self._written(message)


class Checkpoints:
    """Finishes checkpoints, and keeps the newest ones: the coordinator's side.

    Args:
        out: the run folder.
        coordinator: told which checkpoints are whole.
        shards_total: of all servers.
        keep: how many checkpoints are kept, >= 1.
    """

    def __init__(self, out: Path, coordinator: CoordinatorHost, shards_total: int, keep: int) -> None:
        self._out = out
        self._coordinator = coordinator
        self._shards_total = shards_total
        self._keep = keep
        # By generation and number: a number may be given again by a coordinator that has come back.
        self._parts: dict[tuple[int, int], dict[int, pb.CutWritten]] = {}
        self._kept: Kept | None = None
        self._tasks = Tasks()

    def remember(self, record: JobRecord) -> None:
        """Write down what the coordinator says; then the checkpoints before its newest are not needed.

        No sooner: one that became whole while a server was lost never becomes the newest.

        Raises:
            JobError: the disk refuses.
        """
        write_job_record(self._out, record)
        if record.kept is not None and record.kept != self._kept:
            self._kept = record.kept
            self._tasks.begin(self._remove_old(record.kept.checkpoint))

    async def keep_last(self, folder: Path) -> None:
        """Keep the checkpoint that a job has ended with before its last step, so that it can go on there.

        Args:
            folder: in which it is.

        Raises:
            RequestError: it is not finished.
            JobError: the disk refuses.
        """
        number = await asyncio.to_thread(keep_also, self._out, folder)
        await asyncio.to_thread(remove_old, self._out, number, self._keep)

    async def end(self) -> None:
        """Wait until what has to go is gone."""
        await self._tasks.end()

    def take(self, part: pb.CutWritten) -> None:
        """Take what became of one shard's cut; the last one finishes the checkpoint."""
        generation = self._coordinator.status().generation
        if part.failure and self._kept is not None and part.checkpoint == self._kept.checkpoint:
            self._tasks.begin(self._go_back(part.checkpoint, part.failure))
            return
        if part.failure:
            self._parts.pop((generation, part.checkpoint), None)
            self._tasks.begin(self._miss(part.checkpoint, part.failure))
            return
        if part.file.generation != generation:
            return  # it was under way when a newer generation began
        parts = self._parts.setdefault((generation, part.checkpoint), {})
        parts[part.shard] = part
        if len(parts) == self._shards_total:
            del self._parts[generation, part.checkpoint]
            self._tasks.begin(self._finish(part.checkpoint, parts))

    async def _finish(self, checkpoint: int, parts: dict[int, pb.CutWritten]) -> None:
        status = self._coordinator.status()
        assert status.job is not None, "there is no cut without a job"
        rounds = max(part.rounds for part in parts.values())
        clocks = nearest_clocks(part.clocks for part in parts.values())
        files = [decode_file(part.file) for part in parts.values()]
        folder = checkpoint_folder(self._out, checkpoint)
        if refusal := self._coordinator.write_down_dealt():
            await self._miss(checkpoint, refusal)
            return
        try:
            await asyncio.to_thread(finish_checkpoint, folder, status.job, files, status.generation, rounds)
        except (JobError, RequestError) as error:
            await self._miss(checkpoint, str(error))
            return
        log.debug("Checkpoint %d is in %s.", checkpoint, folder)
        self._coordinator.handle(CheckpointKept(Kept(checkpoint, rounds, clocks)))

    async def _go_back(self, checkpoint: int, reason: str) -> None:
        """Tell the coordinator that what it took for kept is not whole, and what there is before that."""
        try:
            number, _ = await asyncio.to_thread(newest_checkpoint, self._out, None, checkpoint)
            kept = await asyncio.to_thread(read_kept, self._out, number)
        except RequestError as error:
            self._coordinator.handle(CheckpointLost(checkpoint, f"{reason} {error}", None))
        else:
            self._coordinator.handle(CheckpointLost(checkpoint, reason, kept))

    async def _miss(self, checkpoint: int, reason: str) -> None:
        """Go on without a checkpoint; what there is of it would only take room, and there may be none."""
        self._coordinator.handle(CheckpointFailed(checkpoint, reason))
        await asyncio.to_thread(remove_unfinished, self._out, checkpoint + 1)

    async def _remove_old(self, newest: int) -> None:
        try:
            await asyncio.to_thread(remove_old, self._out, newest, self._keep)
        except OSError as error:
            log.warning("Checkpoints before %d cannot be removed: %s.", newest, error.strerror or error)
