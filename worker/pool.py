"""Several replicas in one process: a thread each, one connection, one heartbeat for all.

The first failure counts: its replica leaves with a sentence, which ends the job, and the others stop. A job
that ends well before its last step, because it has reached its target, is no failure: its replicas leave. A
replica that is asked to stop from outside does not leave: to the job that is a death, so another may take its
place, or the others go on. One that is asked to leave does so before its next step, and others do what it has
not done.

Where the weights can be recovered, a replica that has left stays until the job is over: a server may still
be lost, and what the replica has done may have to be done again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from paramserver.client import Connection, Heartbeats
from paramserver.diaries import ReplicaDiary, replica_row
from paramserver.errors import Failure, Fault, JobError, RequestError
from paramserver.events import Beat, HeartbeatAnswered, JobSpec
from paramserver.logs import fields
from paramserver.storage.trace_file import TraceFile
from worker.replica import ReplacedError, ReplicaLoop, Task

log = logging.getLogger("worker")

LAST_WORD_SECONDS = 1.0
"""How long the last heartbeat of a worker that is being stopped may take."""

FINAL_SECONDS = 300.0
"""How long the servers may take, after the last step, to write what they keep."""

STRAGGLE_SECONDS = 10.0
"""How long the other replicas may take to end after a failure: the rest of a step."""


class Pool:
    """The replicas of one worker.

    Args:
        connection: to the servers, shared by all replicas.
        spec: the job, as all replicas have to say it.
        task: what to do.
        names: of the replicas, such as ``worker0/1``.
        join_timeout_seconds: how long to try while the servers are not up.
        trace: where to record what the replicas do; None for nowhere.
    """

    def __init__(
        self,
        connection: Connection,
        spec: JobSpec,
        task: Task,
        names: Sequence[str],
        join_timeout_seconds: float,
        trace: TraceFile | None = None,
    ) -> None:
        self._connection = connection
        self._spec = spec
        self._task = task
        self._names = names
        self._join_timeout_seconds = join_timeout_seconds
        self._trace = trace
        self._changed = threading.Condition()  # of what it guards
        self._failure: JobError | None = None  # guarded by _changed
        self._stopping = False  # guarded by _changed
        self._replaced: list[str] = []  # guarded by _changed; of those whose place another one has taken
        self._generation = 0  # guarded by _changed; the newest that was heard of
        self._over = False  # guarded by _changed; the job has ended well
        self._left = 0  # guarded by _changed; how many have left, and wait for the end
        self._left_early = False  # guarded by _changed
        self._asked_to_leave = False  # guarded by _changed
        self._running = 0  # guarded by _changed
        self._has_ended_it = False  # guarded by _changed; the job has failed here, and its servers know
        self._loops: list[ReplicaLoop] = []

    def run(self) -> None:
        """Join, train, leave; blocks until every replica has ended.

        Raises:
            RequestError: the servers train another job.
            JobError: something failed, or the pool was stopped; a sentence says what came first. It is
                `UNAVAILABLE` where the servers are gone, so that the job may not be over.
        """
        log.debug("Joining the job at %s.", self._connection.coordinator)
        self._join(self._names[0])
        seconds, self._running = self._loops[0].client.heartbeat_seconds, len(self._names)
        # They begin with the first: the others' joins may take longer than a lease.
        with Heartbeats(
            self._connection, seconds, self._beats, self._heard, self._not_heard, self._patience()
        ) as self._heartbeats:
            for name in self._names[1:]:
                self._join(name)
            ranks = ", ".join(str(loop.client.rank) for loop in self._loops)
            log.info("Joined the job at %s as rank %s.", self._connection.coordinator, ranks)
            with self._changed:
                asked_to_leave = self._asked_to_leave
            for loop, name in zip(self._loops, self._names, strict=True):
                if asked_to_leave:
                    loop.go()
                threading.Thread(target=self._run, args=(loop,), name=name, daemon=True).start()
            with self._changed:
                self._changed.wait_for(lambda: not self._running or self._failure is not None)
                self._changed.wait_for(lambda: not self._running, STRAGGLE_SECONDS)
        if self._stopping or self._has_ended_it:
            with suppress(JobError, RequestError):
                self._connection.heartbeat(self._beats(), LAST_WORD_SECONDS, heard_end=self._has_ended_it)
        if self._failure is None and len(self._replaced) == len(self._loops):
            self._failure = JobError(self._replaced[0])
        if self._failure is not None:
            raise self._failure
        if not self._left_early and not self._asked_to_leave:
            log.info("All steps are done.")

    def _join(self, name: str) -> None:
        client = self._connection.join(name, self._spec, self._join_timeout_seconds, stays=True)
        self._loops.append(ReplicaLoop(client, self._task, self._diary(name)))

    def _diary(self, name: str) -> tuple[ReplicaDiary, Callable[[], int]] | None:
        if self._trace is None:
            return None
        row = replica_row(name)
        return ReplicaDiary(row, self._trace.recorders[row]), self._trace.now

    def stop(self, reason: str) -> None:
        """Let every replica end as soon as it can; any thread may call."""
        with self._changed:
            self._stopping = True
        self._fail(reason)

    def leave(self, reason: str) -> None:
        """Let every replica leave in good order before its next step; any thread may call."""
        log.info("%s Its replicas leave the job before their next steps.", reason)
        with self._changed:
            self._asked_to_leave = True
        for loop in list(self._loops):
            loop.go()
        if not self._loops:
            self.stop(reason)

    def _run(self, loop: ReplicaLoop) -> None:
        """Run one replica in its thread, to whatever end."""
        rank = loop.client.rank
        try:
            while not self._train(loop):
                pass
        except ReplacedError as error:
            log.warning("Replica %d ends here. %s", rank, error, extra=fields(rank=rank))
            with self._changed:
                self._replaced.append(str(error))
        except (RequestError, JobError) as error:
            log.debug("Replica %d ended.", rank, exc_info=True, extra=fields(rank=rank))
            self._give_up(loop, str(error))
        except Exception as error:
            log.debug("Replica %d ended.", rank, exc_info=True, extra=fields(rank=rank))
            self._give_up(loop, f"The worker failed inside: {type(error).__name__}: {error}.")
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _train(self, loop: ReplicaLoop) -> bool:
        """Let a replica train to its last step or to the job's end; return False if it has to go on."""
        ended: JobError | None = None
        try:
            loop.run()
            # What the coordinator shows of a replica that has left is what it heard last.
            self._connection.heartbeat([loop.beat()], repeat=True)
            loop.client.leave(loop.counters(), goes=loop.is_going, clock=loop.beat().clock)
            if loop.is_going:
                rank, clock = loop.client.rank, loop.beat().clock
                log.info("Replica %d has left the job at clock %d.", rank, clock, extra=fields(rank=rank))
                return True
        except RequestError as error:
            if error.fault is not Fault.UNKNOWN:
                raise
            loop.rejoin(loop.client.granted.generation, str(error))  # believed dead before it could leave
            return False
        except JobError as error:
            if error.failure is not Failure.ENDED or not self._job_has_ended():
                raise
            ended = error
        generation = self._await_end(loop, left=ended is None)
        if generation > loop.client.granted.generation:
            loop.rejoin(generation, "The weights were recovered after it had finished.")
            return False
        if ended is not None:
            if not self._over or self._stopping:
                raise ended
            self._leave_early(loop)
        return True

    def _job_has_ended(self) -> bool:
        """Say whether what looks like a failure to a replica is the end of its job."""
        with self._changed:
            if self._over or self._stopping or self._failure is not None:
                return self._over and not self._stopping and self._failure is None
        try:
            status = self._connection.status(repeat=False).job
        except (RequestError, JobError):
            return False
        return status is not None and status.ended

    def _await_end(self, loop: ReplicaLoop, left: bool) -> int:
        """Wait until the job is over, or has failed, or begins anew; return the newest generation."""
        before = loop.client.granted.generation
        self._heartbeats.hurry()
        with self._changed:
            self._left += left
            self._changed.wait_for(
                lambda: self._over or self._failure is not None or self._generation > before,
                FINAL_SECONDS + self._patience(),
            )
            self._left -= left
            return before if self._over or self._failure is not None else self._generation

    def _patience(self) -> float:
        return self._loops[0].client.granted.patience_seconds

    def _leave_early(self, loop: ReplicaLoop) -> None:
        with self._changed:
            self._left_early = True
        rank, clock = loop.client.rank, loop.beat().clock
        log.info("The job was over when replica %d was at clock %d.", rank, clock, extra=fields(rank=rank))
        with suppress(RequestError, JobError):  # the coordinator may be gone, and has heard of it all
            loop.client.leave(loop.counters())

    def _give_up(self, loop: ReplicaLoop, sentence: str) -> None:
        """Tell the coordinator that a replica has failed, which ends the job, and end the others."""
        failure = Failure.ENDED
        if not self._stopping:
            try:
                loop.client.leave(loop.counters(), sentence)
            except (RequestError, JobError) as error:
                failure = Failure.UNAVAILABLE
                log.debug("The coordinator could not be told: %s", error)
            else:
                with self._changed:
                    self._has_ended_it = True
        self._fail(sentence, failure)

    def _fail(self, sentence: str, failure: Failure = Failure.ENDED) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = JobError(sentence, failure)
                self._changed.notify_all()
        self._connection.stop(sentence)
        for loop in list(self._loops):
            loop.stop(sentence)

    def _beats(self) -> list[Beat]:
        return [loop.beat() for loop in self._loops]

    def _heard(self, answer: HeartbeatAnswered) -> None:
        if answer.ended and answer.reason:
            self._fail(answer.reason)
        with self._changed:
            self._over = self._over or (answer.ended and not answer.reason)
            self._generation = max(self._generation, answer.generation)
            self._changed.notify_all()

    def _not_heard(self, sentence: str) -> None:
        """Take a coordinator that is gone for a failure, unless there was nothing left to do here."""
        with self._changed:
            if self._left == self._running:
                self._over = True
                self._changed.notify_all()
                return
        self._fail(sentence, Failure.UNAVAILABLE)
