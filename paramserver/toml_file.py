"""Read a TOML file as text, or say in a sentence why not; without numpy, which may have to wait for it."""

from __future__ import annotations

from pathlib import Path

from paramserver.errors import RequestError


def read_text(path: Path, what: str) -> str:
    """Return the text of a TOML file.

    Args:
        path: of the file.
        what: it is, for messages, such as ``job file``.

    Raises:
        RequestError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"The {what} {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RequestError(f"The {what} {path} is not UTF-8 text, as TOML has to be.") from None
