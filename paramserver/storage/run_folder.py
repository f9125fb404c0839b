"""The folder of one run: created or refused at once, held while the run lasts, filled atomically.

It never holds code: only text, JSON and tensors.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from paramserver.errors import Fault, JobError, RequestError
from paramserver.storage.atomic import sync_names, write_json, write_text
from paramserver.storage.metrics import MetricsWriter

LOCK = "run.lock"
"""Held (flock) by the process that runs there; the kernel frees it even after kill -9."""

RUNS_PER_SECOND_MAX = 1000


class RunFolder:
    """Hold a folder for one run until it is closed.

    Use `create_run_folder` to get one; as a context manager it closes itself.

    Attributes:
        path: the folder.
        checkpoint: where the checkpoint goes.
        logs: where each process's log goes; it exists.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.logs = path / "logs"
        self._lock: int | None = lock

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file, such as ``job.toml``, atomically, and return its path.

        Raises:
            JobError: the disk refuses.
        """
        write_text(self.path / name, text)
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file, such as ``summary.json``, atomically, and return its path.

        Raises:
            JobError: the disk refuses.
        """
        write_json(self.path / name, value)
        return self.path / name

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            JobError: the disk refuses.
        """
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise JobError(f"{self.path / name} cannot be removed: {error.strerror}.") from None

    def open_metrics(self) -> MetricsWriter:
        """Open ``metrics.jsonl`` for appending.

        Raises:
            JobError: the disk refuses.
        """
        return MetricsWriter(self.path / "metrics.jsonl")

    def close(self) -> None:
        """Let go of the folder; closing twice does nothing."""
        if self._lock is not None:
            (self.path / LOCK).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_run_folder(out: Path | None, now: float, runs: Path = Path("runs")) -> RunFolder:
    """Create the folder of a new run and hold it.

    Args:
        out: the folder that the user named; it may exist if it is empty. None: ``<runs>/<UTC time>-<n>``
            with the first n that is free.
        now: seconds since 1970, for the name.
        runs: parent of the folders without a name of their own.

    Raises:
        RequestError: the folder is in use by another run, not empty, or cannot be created.
    """
    if out is not None:
        return _claim(out)
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H%M%SZ")
    for number in range(1, RUNS_PER_SECOND_MAX + 1):
        path = runs / f"{stamp}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot(path, error) from None
        return _claim(path)
    raise RequestError(f"{runs} has {RUNS_PER_SECOND_MAX} runs named {stamp}. Name a folder with --out.")


def reopen_run_folder(path: Path) -> RunFolder:
    """Hold the folder of a run that has ended, to go on with it.

    Raises:
        RequestError: there is no such folder, another run uses it, or it cannot be written.
    """
    if not path.is_dir():
        raise RequestError(f"There is no folder {path}. Name the folder of a run.")
    if _is_locked(path / LOCK):
        raise RequestError(
            f"The run in {path} is still going on. Watch it with paramserver top, or wait for its end.",
            Fault.PRECONDITION,
        )
    return _hold(path, lambda: None)


def is_going_on(path: Path) -> bool:
    """Say whether a process holds a folder for its run."""
    return _is_locked(path / LOCK)


def _claim(path: Path) -> RunFolder:
    """Lock an empty folder; of several processes that try at once, one succeeds."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(path, error) from None
    try:
        _refuse_if_used(path)
    except OSError as error:
        raise _cannot(path, error) from None
    return _hold(path, lambda: _refuse_if_used(path))


def _hold(path: Path, check: Callable[[], None]) -> RunFolder:
    """Lock a folder, and check it once nobody else can."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us removes its file when it closes: then we have locked a file without a name.
            if not os.path.samestat(os.fstat(lock), (path / LOCK).stat()):
                raise BlockingIOError
            check()
            (path / "logs").mkdir(exist_ok=True)
            sync_names(path)
            os.truncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
        except BaseException:
            os.close(lock)
            raise
    except (BlockingIOError, FileNotFoundError):
        raise _in_use(path) from None
    except OSError as error:
        raise _cannot(path, error) from None
    return RunFolder(path, lock)


def _refuse_if_used(path: Path) -> None:
    others = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
    if not others:
        return
    if _is_locked(path / LOCK):
        raise _in_use(path)
    raise RequestError(
        f"The folder {path} should be new or empty, but it holds {', '.join(others[:3])}"
        f"{' and more' if len(others) > 3 else ''}. Name another one with --out, or remove it.",
        Fault.PRECONDITION,
    )


def _is_locked(lock_path: Path) -> bool:
    try:
        handle = os.open(lock_path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _in_use(path: Path) -> RequestError:
    return RequestError(
        f"The folder {path} is in use by another run. Name another one with --out, or wait for its end.",
        Fault.PRECONDITION,
    )


def _cannot(path: Path, error: OSError) -> RequestError:
    return RequestError(f"The folder {path} cannot be created: {error.strerror or error}. Name another one.")
