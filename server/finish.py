"""After the last step: the checkpoint of each server, then in the first one manifest, score and summary.

The order matters. Servers write their slices; the coordinator writes the manifest once it has heard of all;
then an observer may pull the final weights and score them; then the summary says that the run is complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from paramserver.errors import JobError, RequestError
from paramserver.events import (
    CheckpointFailed,
    CheckpointKept,
    CheckpointWritten,
    CutAsked,
    CutTaken,
    JobStatus,
)
from paramserver.storage import ShardFile, finish_checkpoint, load_manifest, write_json
from paramserver.summary import summarise
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.status import encode_shards
from server.checkpoints import Checkpoints
from server.coordination import CoordinatorHost
from server.files import decode_file, encode_file
from server.journal import FINAL_CUT
from server.links import Links
from server.requests import Requests
from server.service import standings
from server.shards import Shards

log = logging.getLogger("server")

CHECKPOINT = "checkpoint"
SUMMARY = "summary.json"
CHECKPOINT_SECONDS = 300.0
"""How long the coordinator waits for the other servers' files: 10 GB on a slow disk."""

FAREWELL_SECONDS = 5.0
"""How long the coordinator stays, at most, until everyone has said to have heard of the end."""

HURRIED_FAREWELL_SECONDS = 1.5
"""The same where the servers are asked to stop: the workers have been asked, too, or wait for an answer. Also
before a job has begun: whoever waits to join asks again within a second, and is to hear why it is in vain."""


async def keep_shards(out: Path | None, shards: Shards, requests: Requests) -> pb.CheckpointWritten:
    """Write this server's part of the final checkpoint, if there is a run folder, and say what is in it."""
    files: list[pb.ShardFile] = []
    failure = ""
    try:
        if out is not None:
            files = [encode_file(file) for file in await _write_shards(out / CHECKPOINT, shards, requests)]
    except (JobError, RequestError) as error:
        failure = str(error)
        log.error("The checkpoint could not be written. %s", error)
    now = asyncio.get_running_loop().time()
    return pb.CheckpointWritten(
        files=files, shards=encode_shards(await standings(shards), now), failure=failure
    )


class Finish:
    """What the coordinator does once the job has ended.

    Args:
        out: run folder; None: nothing is kept.
        coordinator: knows how the job stands.
        links: know what the other servers have written.
        score_grace_seconds: how long to wait for the final score, if an observer has joined.
        checkpoints: those made while the job runs; None: none are.

    Attributes:
        is_kept: what there was at the end is on the disk.
    """

    def __init__(
        self,
        out: Path | None,
        coordinator: CoordinatorHost,
        links: Links,
        score_grace_seconds: float,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.is_kept = False
        self._checkpoints = checkpoints
        self._out = out
        self._coordinator = coordinator
        self._links = links
        self._score_grace_seconds = score_grace_seconds

    async def run(self, reason: str, own: pb.CheckpointWritten) -> str | None:
        """Wait for the other servers, the final score and the farewells; write manifest and summary.

        Args:
            reason: why the job ended; empty if it finished.
            own: what this server has written.

        Returns:
            Why the run failed; empty if it did not. None if the job is not over any more, since a server was
            lost before everything was written.
        """
        late = await self._links.wait_written(CHECKPOINT_SECONDS, everyone=self._coordinator.has_journal)
        written = [own, *(self._links.written[server] for server in sorted(self._links.written))]
        if self._coordinator.ended_at is None:
            self._links.written.clear()
            return None
        failures = [part.failure for part in written if part.failure]
        if late and not reason:
            failures.append(f"Server {late[0]} did not finish its checkpoint, so there is none.")
        sha256 = ""
        if not failures and not late:
            try:
                sha256 = await asyncio.to_thread(
                    _write_manifest, self._out, self._coordinator.status(), written
                )
                self.is_kept = self._out is not None
                if reason and sha256 and self._out is not None and self._checkpoints is not None:
                    self._coordinator.handle(
                        CheckpointWritten()
                    )  # this returns when it has been written down
                    await self._checkpoints.keep_last(self._out / CHECKPOINT)
            except (JobError, RequestError) as error:
                failures.append(str(error))
        if self._coordinator.ended_at is None:  # a server was lost while the manifest was being written
            self._links.written.clear()
            self.is_kept = False
            return None
        if reason and failures:
            log.error("What there was at the end could not be kept. %s", " ".join(failures))
        if reason or not failures:
            self._coordinator.handle(CheckpointKept(None))
        else:
            self._coordinator.handle(CheckpointFailed(None, " ".join(failures)))
        # After the last step nobody is left to be told, unless the job ended before it.
        await say_farewell(self._coordinator)
        if not reason and self._coordinator.scorer:
            await self._wait_for_score()
        if self._out is not None:
            versions = [shard.version for part in written for shard in part.shards]
            try:
                _write_summary(self._out, self._coordinator, versions, sha256)
            except JobError as error:
                failures.append(str(error))
                await asyncio.sleep(HURRIED_FAREWELL_SECONDS)  # whoever would have read it may still ask
        return reason or " ".join(failures)

    async def _wait_for_score(self) -> None:
        try:
            async with asyncio.timeout(self._score_grace_seconds):
                await self._coordinator.tested.wait()
        except TimeoutError:
            log.warning("No observer sent the final score within %g s.", self._score_grace_seconds)


async def say_farewell(coordinator: CoordinatorHost) -> None:
    """Stay until every replica has left or has heard that the job is over, but not for long."""
    loop = asyncio.get_running_loop()
    unbegun, interrupted = coordinator.began_at is None, coordinator.interrupted
    deadline = loop.time() + (HURRIED_FAREWELL_SECONDS if interrupted or unbegun else FAREWELL_SECONDS)
    while (unbegun or not coordinator.everyone_told()) and loop.time() < deadline:
        await asyncio.sleep(0.05)


def conclude(out: Path, coordinator: CoordinatorHost) -> None:
    """Write the summary of a job whose coordinator ended after all weights were kept, unless it is there.

    Raises:
        RequestError: the final checkpoint is not sound.
        JobError: the disk refuses.
    """
    if not (out / SUMMARY).exists():
        manifest = load_manifest(out / CHECKPOINT)
        _write_summary(out, coordinator, manifest.versions, manifest.weights_sha256)


def _write_summary(out: Path, coordinator: CoordinatorHost, versions: Sequence[int], sha256: str) -> None:
    began, ended = coordinator.began_at, coordinator.ended_at
    seconds = ended - began if began is not None and ended is not None else 0.0
    summary = summarise(
        coordinator.status(),
        versions,
        weights_sha256=sha256,
        wall_seconds=seconds,
        extra={"outcome": "interrupted"} if coordinator.interrupted else {},
    )
    write_json(out / SUMMARY, summary)


async def _write_shards(folder: Path, shards: Shards, requests: Requests) -> list[ShardFile]:
    """Write one file for each shard, one after the other, so that one copy at a time is in memory."""
    files = []
    for shard, _ in shards.holdings():
        ticket = requests.open()
        shards.submit(shard, CutAsked(ticket.number))
        try:
            taken: CutTaken = await ticket.answer
        except RequestError:
            return []  # there never were any weights
        generation = shards.generation(shard)
        files.append(await asyncio.to_thread(shards.keeper.write, folder, taken.cut, generation, FINAL_CUT))
    return files


def _write_manifest(out: Path | None, status: JobStatus, written: Iterable[pb.CheckpointWritten]) -> str:
    """Return the hash of the weights; empty where nothing is kept or there never were any."""
    files = [decode_file(file) for part in written for file in part.files]
    job = status.job
    if out is None or job is None or not files:
        return ""
    folder = out / CHECKPOINT
    manifest = finish_checkpoint(folder, job, files, status.generation, status.rounds)
    log.info("The checkpoint is in %s.", folder)
    return manifest.weights_sha256
