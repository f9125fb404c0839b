"""Fetch the files of a data set: checked, resumable, and never half there.

A file is written under another name (``NAME.part``) and gets its own only when its SHA-256 is right. When a
connection breaks, the part stays, and the next fetch asks for the rest of it (RFC 9110, section 14, range
requests); a server that knows no ranges sends the whole again. One process fetches a file at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader
from pathlib import Path

from paramserver.datasets.sources import RemoteFile, Source, cache_folder
from paramserver.errors import Failure, JobError

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are there, and all of its bytes."""

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30.0
"""Of silence, not of the whole transfer."""


def fetch(
    source: Source,
    folder: Path | None = None,
    progress: Progress | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Path:
    """Fetch what is missing of a data set; blocks until all of it is there.

    Args:
        source: with at least one file, see `SOURCES`.
        folder: where its files go; ``NAME`` in the cache folder unless given.
        progress: called at the beginning and the end of each file, and after each chunk; a file that is
            there already is reported once.
        timeout_seconds: how long a server may be silent.

    Returns:
        The folder.

    Raises:
        JobError: no server gives a file that is whole and right, or the disk refuses it; the sentence says
            what each of them did, and what to do.
    """
    folder = cache_folder() / source.name if folder is None else folder
    report = progress or (lambda name, done, total: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.files:
            _fetch_file(file, folder, report, timeout_seconds)
    except OSError as error:
        raise JobError(
            f"The data set '{source.name}' cannot be kept in {folder}: {error.strerror or error}. Free some "
            f"space or choose another folder."
        ) from error
    return folder


def _fetch_file(file: RemoteFile, folder: Path, report: Progress, timeout_seconds: float) -> None:
    target = folder / file.name
    if _is_right(target, file):
        report(file.name, file.size, file.size)
        return
    part = folder / f"{file.name}.part"
    with _alone(part) as output:
        if _is_right(target, file):  # another process was faster
            part.unlink(missing_ok=True)
            report(file.name, file.size, file.size)
            return
        failures = []
        for url in file.urls:
            try:
                _download(url, file, output, report, timeout_seconds)
            except _UnusableError as error:
                failures.append(f"{url} {error}.")
                continue
            output.flush()
            os.fsync(output.fileno())
            part.replace(target)
            return
        output.flush()
        if part.stat().st_size == 0:
            part.unlink()
    raise JobError(
        f"{file.name} could not be fetched. {' '.join(failures)} Try again later: what has come is kept, and "
        f"only the rest is fetched. Or put the file into {folder} yourself.",
        Failure.UNAVAILABLE,
    )


class _UnusableError(Exception):
    """What one server did, as the end of a sentence that begins with its address."""


def _download(
    url: str, file: RemoteFile, output: BufferedRandom, report: Progress, timeout_seconds: float
) -> None:
    """Complete the part from one server, and check it; a resumed part that is wrong is fetched anew, once."""
    resumed = _transfer(url, file, output, report, timeout_seconds)
    found = _sha256_of(output)
    if found != file.sha256 and resumed:
        output.truncate(0)
        _transfer(url, file, output, report, timeout_seconds)
        found = _sha256_of(output)
    if found != file.sha256:
        output.truncate(0)
        raise _UnusableError(f"served a file with the SHA-256 {found}, but expected {file.sha256}")


def _transfer(
    url: str, file: RemoteFile, output: BufferedRandom, report: Progress, timeout_seconds: float
) -> bool:
    """Append what is missing to the part; return whether some of it was there before."""
    done = output.seek(0, os.SEEK_END)
    if done >= file.size:  # whole but unchecked, or too long: then the checksum decides
        return True
    request = urllib.request.Request(
        url, headers={"User-Agent": "paramserver", "Accept-Encoding": "identity"}
    )
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            begin = _begin_of(response)
            if begin not in (0, done):
                raise _UnusableError("answered with another range than the one asked for")
            if begin < done:  # it sends the whole
                output.truncate(0)
                done = output.seek(0)
            resumed = done > 0
            report(file.name, done, file.size)
            while chunk := _next_chunk(response):
                done += len(chunk)
                if done > file.size:
                    output.truncate(0)
                    raise _UnusableError(f"served more than the expected {file.size} bytes")
                output.write(chunk)
                report(file.name, done, file.size)
    except urllib.error.HTTPError as error:
        error.close()
        raise _UnusableError(f"answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _UnusableError(f"could not be reached ({_reason(error.reason)})") from None
    except TimeoutError:
        raise _UnusableError(
            f"fell silent for {timeout_seconds:g} seconds after {done} of {file.size} bytes"
        ) from None
    except http.client.HTTPException as error:
        raise _UnusableError(f"gave no sound answer ({type(error).__name__})") from None
    if done < file.size:
        raise _UnusableError(f"ended after {done} of {file.size} bytes")
    return resumed


def _next_chunk(response: http.client.HTTPResponse) -> bytes:
    """Return more of the body, or nothing where the connection ends, however it ends."""
    try:
        return response.read(CHUNK_BYTES)
    except TimeoutError:
        raise
    except (http.client.HTTPException, OSError):
        return b""


def _begin_of(response: http.client.HTTPResponse) -> int:
    """Return the position of the first byte of the body in the file; -1 where it is not said."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0
    unit, _, position = (response.headers.get("Content-Range") or "").partition(" ")
    first = position.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else -1


def _reason(reason: str | BaseException) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return getattr(reason, "strerror", None) or str(reason)


@contextmanager
def _alone(part: Path) -> Iterator[BufferedRandom]:
    """Open a part for reading and appending, and hold it for this process as long as the block runs."""
    with part.open("a+b") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(
                f"Another process is fetching {part.name.removesuffix('.part')} into {part.parent}. "
                f"Wait for it to end.",
                Failure.UNAVAILABLE,
            ) from None
        yield output


def _is_right(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return _sha256_of(content) == file.sha256


def _sha256_of(content: BufferedReader | BufferedRandom) -> str:
    content.seek(0)
    return hashlib.file_digest(content, "sha256").hexdigest()
