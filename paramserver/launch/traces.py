"""The traces of a job's processes, and the one that is made of them."""

from __future__ import annotations

from pathlib import Path

from paramserver.storage import RunFolder
from paramserver.storage.atomic import replacing
from paramserver.storage.trace_file import merge_traces

TRACE = "trace.json"


class Traces:
    """Which process writes which file.

    Args:
        folder: of the run; each process's file is beside its log until the end.
        wanted: whether any trace is.
    """

    def __init__(self, folder: RunFolder, wanted: bool) -> None:
        self._folder = folder
        self._wanted = wanted
        self._files: dict[str, Path] = {}  # servers first, as they are started

    def options(self, name: str) -> list[str]:
        """Return what to tell a process, such as ``server 0``, so that it leaves its trace."""
        if not self._wanted:
            return []
        path = self._folder.logs / f"{name.replace(' ', '')}.{TRACE}"
        self._files[name] = path
        return ["--trace", str(path)]

    def merge(self) -> None:
        """Make ``trace.json`` of what there is, once all processes have ended; say in it whose is missing.

        Raises:
            JobError: the disk refuses.
        """
        if not self._wanted:
            return
        written = [path for path in self._files.values() if path.exists()]
        missing = [name for name, path in self._files.items() if not path.exists()]
        notes = {"missing": ", ".join(missing)} if missing else {}
        with replacing(self._folder.path / TRACE) as file:
            file.write(merge_traces((path.read_bytes() for path in written), notes))
        for path in written:
            path.unlink()
