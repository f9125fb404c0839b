"""Who is who among workers that share a command line, as the replicas of a compose service do."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from paramserver.errors import RequestError

WORKERS_MAX = 10_000


def take_index(folder: Path) -> int:
    """Take the lowest index that no other living worker has taken in a folder that all of them see.

    It is held until this process ends, however that is: the kernel frees it even after kill -9. So whoever is
    started in place of a worker that has died becomes that worker.

    Args:
        folder: there already; on a file system whose locks all workers see.

    Returns:
        The index, from 0.

    Raises:
        RequestError: nothing can be written there, or no index is free.
    """
    for index in range(WORKERS_MAX):
        try:
            lock = os.open(folder / f"worker{index}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RequestError(
                f"--named-in {folder} has to be a folder that this worker can write to, but: "
                f"{error.strerror}."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return index
    raise RequestError(f"All of {WORKERS_MAX:,} names in {folder} are taken by workers that run.")
