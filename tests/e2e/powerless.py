"""A server whose disk says what it has: ``python -P powerless.py LOG SERVER-OPTIONS…``.

Each time the server waits for the disk, the log gets the file and the size that it has by then. After the
process has been killed, `lose_power` takes from the files what was never waited for, as a power cut may do.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import server.__main__


def lose_power(log: Path, folder: Path) -> int:
    """Take from every file in a folder what the disk was not waited for; return how many bytes that were."""
    sizes: dict[str, int] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        size, _, path = line.partition(" ")
        sizes[path] = int(size)
    lost = 0
    for path in folder.rglob("*.journal"):
        size = path.stat().st_size
        kept = sizes.get(str(path.resolve()), 0)
        lost += size - kept
        if str(path.resolve()) in sizes:
            os.truncate(path, kept)
        else:
            path.unlink()
    return lost


def _noting(sync, log: int):
    def note(handle: int) -> None:
        size, path = os.fstat(handle).st_size, Path(f"/proc/self/fd/{handle}").readlink()
        sync(handle)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.write(log, f"{size} {path}\n".encode())

    return note


if __name__ == "__main__":
    handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.fsync, os.fdatasync = _noting(os.fsync, handle), _noting(os.fdatasync, handle)
    sys.exit(server.__main__.main(sys.argv[2:]))
