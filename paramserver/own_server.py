"""A server on this machine for as long as a ``with`` block: ``serve``."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from paramserver.errors import JobError, RequestError
from paramserver.launch.programs import blas_environment, command
from paramserver.security import INTERNAL_TOKEN, TOKEN, new_secret

FINISH_SECONDS = 420.0
"""How long the server may take from the job's end to its own: the 300 s of a large checkpoint, and more."""

_lock = threading.Lock()
_tokens_in_use = 0  # guarded by _lock: servers that use the token which this module has put there

REFUSED = 2
"""Exit code of a server that cannot do what it was told."""

START_SECONDS = 60.0
"""How long the server may take to listen: the start of a process, on a machine that is busy."""

STOP_SECONDS = 5.0
"""How long a server that is asked to stop may take."""


@contextmanager
def serve(*, shards: int = 1, out: str | Path | None = None) -> Iterator[str]:
    """Run a server for one job on this machine, as a process of its own.

    It listens to this machine alone, and ends with this process, whatever ends that. It asks for a token,
    which is in this process's environment until the block ends: so ``connect`` and ``observe`` have it, here
    and in processes that this one starts. Leaving the ``with`` block waits for the end of the job if all
    replicas have left, and stops the server if not.

    Args:
        shards: into how many parts the weights are cut, each with a lock of its own.
        out: a folder for the summary, the metrics and the checkpoint; None: nothing is kept.

    Yields:
        Its address, for ``connect`` and ``observe``.

    Raises:
        RequestError: it cannot do what the arguments say.
        JobError: it cannot be started, or the job failed.

    Example:
        >>> with serve(shards=2) as address:
        ...     print(address.rpartition(":")[0])
        127.0.0.1
    """
    options = ["--listen", "127.0.0.1:0", "--shards", str(shards), "--exit-with-parent"]
    # Nobody here scores the final weights, so nobody is to be waited for.
    options += ["--score-grace-seconds", "0"]
    options += ["--out", str(out)] if out is not None else []
    with (
        _token(),
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command("server", options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **blas_environment(1), INTERNAL_TOKEN: ""},
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = _first_line(process.stdout).removeprefix("listening ").strip()
            if not address:
                refused = process.wait() == REFUSED
                sentence = f"The server could not be started. {_last_line(log.fileno())}"
                raise RequestError(sentence) if refused else JobError(sentence)
            yield address
            if _is_over(address) and process.wait(FINISH_SECONDS):
                raise JobError(_last_line(log.fileno()))
        finally:
            process.stdin.close()  # which stops it
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _first_line(pipe: IO[str]) -> str:
    """Return the first line that a process writes; empty if it ends without one.

    Raises:
        JobError: it writes nothing for long.
    """
    if not select.select([pipe], [], [], START_SECONDS)[0]:
        raise JobError(f"The server could not be started: it said nothing within {START_SECONDS:g} s.")
    return pipe.readline()


@contextmanager
def _token() -> Iterator[None]:
    """Have a token in the environment: that of whoever started this process, or one for all servers here."""
    global _tokens_in_use
    with _lock:
        if _tokens_in_use or TOKEN not in os.environ:
            os.environ.setdefault(TOKEN, new_secret())
            _tokens_in_use += 1
            ours = True
        else:
            ours = False
    try:
        yield
    finally:
        if ours:
            with _lock:
                _tokens_in_use -= 1
                if not _tokens_in_use:
                    os.environ.pop(TOKEN, None)


def _is_over(address: str) -> bool:
    """Say whether the job has ended, or the server is gone already."""
    # Imported only now: a process that has gRPC loaded had better not start others.
    from paramserver.client import Connection

    with Connection(address) as connection:
        try:
            job = connection.status(repeat=False).job
        except JobError:
            return True
    return job is not None and job.ended


def _last_line(log: int) -> str:
    """Return the last sentence of a server's log, without the time and the level before it."""
    text = os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].split(maxsplit=3)[-1] if lines else "Its log is empty."
