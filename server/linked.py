"""What a server that is not the first is beside its shards: its link to the coordinator."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import grpc

from paramserver.errors import Failure, JobError
from paramserver.events import Report
from paramserver.wire import paramserver_pb2 as pb
from server.chaos import sending
from server.ended import ending_of
from server.finish import CHECKPOINT_SECONDS, keep_shards
from server.link import Link
from server.options import Options
from server.requests import Requests
from server.shards import Shards

log = logging.getLogger("server")

LOOK_SECONDS = 0.5
"""Between two looks whether the run is over that a server wants to come back to."""


class LinkedServer:
    """The part of a server that is linked to the coordinator's.

    Args:
        options: of this server.
        shards: its own.
        requests: where answers go.
        stack: closes at the end what is opened here.

    Attributes:
        coordinator: there is none here.
    """

    coordinator = None

    def __init__(self, options: Options, shards: Shards, requests: Requests, stack: AsyncExitStack) -> None:
        self._options = options
        self._shards = shards
        self._requests = requests
        self._stack = stack
        self._link: Link | None = None
        self._written: pb.CheckpointWritten | None = None  # of the final checkpoint
        self._is_linked = False

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what else a gRPC server has to serve here: nothing."""
        return []

    def register(self, address: str) -> None:
        """Take part, at this address."""
        options, shards = self._options, self._shards
        self._link = Link(
            options.coordinator,
            options.doors.of_link(),
            options.server,
            address,
            options.shards,
            shards.order,
            returns=options.recover,
            orders=shards.orders,
            begin_anew=self._report_again,
            send=sending(options, self._stack),
        )
        self._stack.push_async_callback(self._link.close)

    async def reach(self) -> None:
        """Open the link; a server that comes back looks for its coordinator only while its run goes on."""
        options = self._options
        connecting = asyncio.create_task(self._known_link().connect(options.connect_timeout_seconds))
        try:
            while not (await asyncio.wait((connecting,), timeout=LOOK_SECONDS))[0]:
                ending = ending_of(options.out) if options.recover else None
                if ending is not None:
                    raise JobError(ending.sentence)
            connecting.result()
        finally:
            connecting.cancel()
        self._is_linked = True

    async def run(self) -> int:
        """Serve the job to its end, over one link after the other, and return the exit code."""
        link = self._known_link()
        while True:
            carrying = asyncio.create_task(link.run())
            try:
                return await self._serve(link, carrying)
            except JobError as error:
                patience = self._shards.patience_seconds()
                if error.failure is not Failure.UNAVAILABLE or not self._options.recovers or not patience:
                    raise
                log.warning("%s Looking for it for up to %g s.", error, patience)
                await link.reconnect(patience)
            finally:
                carrying.cancel()

    def interrupt(self, reason: str) -> bool:
        """End the job, so that it is saved; say whether there is anything to wait for."""
        if self._is_linked:
            self._known_link().stopping(reason)
        return self._is_linked

    def report(self, report: Report) -> None:
        """Send what a shard reports to the coordinator."""
        if self._link is not None:
            self._link.report(report)

    def cut_written(self, message: pb.CutWritten) -> None:
        """Say what became of a shard's cut."""
        if self._link is not None:
            self._link.cut_written(message)

    async def _serve(self, link: Link, carrying: asyncio.Task[None]) -> int:
        options, shards = self._options, self._shards
        while True:
            await asyncio.wait((carrying, shards.ended), return_when=asyncio.FIRST_COMPLETED)
            if not shards.ended.done():
                carrying.result()
                raise JobError(f"The coordinator at {options.coordinator} stopped before the job was over.")
            reason = shards.ended.result()
            shards.reopened.clear()
            log.info("The job is over: %s", reason or "every replica has finished.")
            self._written = own = await keep_shards(options.out, shards, self._requests)
            link.written(own)
            reopened = asyncio.create_task(shards.reopened.wait())
            await asyncio.wait(
                (carrying, reopened),
                timeout=CHECKPOINT_SECONDS + options.score_grace_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            reopened.cancel()
            if carrying.done():
                carrying.result()
                return 1 if reason or own.failure else 0
            self._written = None
            if not shards.reopened.is_set():
                raise JobError(f"The coordinator at {options.coordinator} did not end the job.")

    def _report_again(self) -> None:
        """Say again what another coordinator may not have heard, if it goes on exactly."""
        self._shards.report_again()
        if self._written is not None and self._shards.orders():
            self._known_link().written(self._written)

    def _known_link(self) -> Link:
        assert self._link is not None, "the server has registered"
        return self._link
