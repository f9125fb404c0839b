"""A server whose disk says what it has: ``python -P powerless.py DISK SERVER-OPTIONS…``.

Each time the server waits for the disk, it is noted what that has by then: of a file how many bytes, of a
folder which names and what they stand for. Whatever a file was, it stays there under another name. After the
process has been killed, `lose_power` makes of a folder what the disk was waited for, as a power cut may do.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import server.__main__

NOTES = "notes"


def lose_power(disk: Path, folder: Path, chance: random.Random | None = None) -> int:
    """Take from a folder what the disk was not waited for; return how many names and bytes that were.

    Args:
        disk: where the servers noted what it has.
        folder: the folder.
        chance: decides of each change that was not waited for whether it is lost; None: all of them are.
    """
    sizes: dict[int, int] = {}
    names: dict[str, dict[str, int]] = {}
    notes = disk / NOTES
    for line in notes.read_text().splitlines() if notes.exists() else []:
        what, value = json.loads(line)
        if isinstance(what, int):
            sizes[what] = value
        else:
            names[what] = value
    return _Loss(disk, sizes, names, chance).of(folder.resolve())


class _Loss:
    def __init__(
        self,
        disk: Path,
        sizes: dict[int, int],
        names: dict[str, dict[str, int]],
        chance: random.Random | None,
    ) -> None:
        self._disk, self._sizes, self._names, self._chance = disk, sizes, names, chance

    def of(self, folder: Path) -> int:
        kept = self._names.get(str(folder), {})
        lost = 0
        for entry in list(os.scandir(folder)):
            if entry.name in kept or self._is_lucky():
                continue
            lost += 1
            shutil.rmtree(entry.path) if entry.is_dir() else Path(entry.path).unlink()
        for name, inode in kept.items():
            path = folder / name
            if path.is_dir():
                continue
            if not path.exists() or (path.stat().st_ino != inode and not self._is_lucky()):
                lost += self._bring_back(path, inode)
        for path in folder.iterdir():
            lost += self.of(path) if path.is_dir() else self._shorten(path)
        return lost

    def _bring_back(self, path: Path, inode: int) -> int:
        """Let a name stand for what it stood for when the folder was synced."""
        before = self._disk / str(inode)
        if not before.exists():
            return 0  # a folder, or what was never synced itself
        path.unlink(missing_ok=True)
        os.link(before, path)
        return 1

    def _shorten(self, path: Path) -> int:
        found = path.stat()
        kept = min(found.st_size, self._sizes.get(found.st_ino, 0))
        if self._chance is not None:
            kept = self._chance.randint(kept, found.st_size)
        os.truncate(path, kept)
        return found.st_size - kept

    def _is_lucky(self) -> bool:
        return self._chance is not None and self._chance.random() < 0.5


def _noting(sync: Callable[[int], None], disk: Path) -> Callable[[int], None]:
    notes = os.open(disk / NOTES, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(handle: int) -> None:
        with lock:
            fcntl.flock(notes, fcntl.LOCK_EX)  # two servers sync the same folders
            try:
                note_alone(handle)
            finally:
                fcntl.flock(notes, fcntl.LOCK_UN)

    lock = threading.Lock()

    def note_alone(handle: int) -> None:
        found, path = os.fstat(handle), Path(f"/proc/self/fd/{handle}").readlink()
        told: tuple[Any, Any]
        if stat.S_ISREG(found.st_mode):
            told = (found.st_ino, found.st_size)
            with suppress(FileExistsError, FileNotFoundError):
                os.link(path, disk / str(found.st_ino))
        else:
            told = (str(path), {entry.name: entry.inode() for entry in os.scandir(path)})
        sync(handle)
        os.write(notes, f"{json.dumps(told)}\n".encode())

    return note


if __name__ == "__main__":
    disk = Path(sys.argv[1])
    disk.mkdir(exist_ok=True)
    os.fsync, os.fdatasync = _noting(os.fsync, disk), _noting(os.fdatasync, disk)
    sys.exit(server.__main__.main(sys.argv[2:]))
