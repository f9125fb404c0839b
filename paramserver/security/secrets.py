"""The secrets of a job: its token, which all who take part have, one of its servers, and one for metrics.

They come from a file or an environment variable and never from a command line, which every user of a machine
can read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from paramserver.errors import RequestError

TOKEN = "PARAMSERVER_TOKEN"
"""The environment variable with a job's token."""

INTERNAL_TOKEN = "PARAMSERVER_INTERNAL_TOKEN"
"""The environment variable with the secret of a job's servers."""

METRICS_TOKEN = "PARAMSERVER_METRICS_TOKEN"
"""The environment variable with the secret of who reads metrics."""

SECRET_BYTES = 32
"""Of chance in a new secret: as many as of a key of AES-256."""

CHARACTERS_MIN, CHARACTERS_MAX = 16, 512


def new_secret() -> str:
    """Return a secret that nobody can guess, of letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(SECRET_BYTES)


def read_secret(path: Path | None, variable: str) -> str:
    """Return a secret from a file, or else from the environment.

    Args:
        path: of the file; None for none.
        variable: looked at if there is no file.

    Returns:
        The secret without the spaces around it; empty where neither says one.

    Raises:
        RequestError: the file cannot be read, or what is there is no secret.
    """
    if path is None:
        origin, found = f"The variable {variable}", os.environ.get(variable, "").strip()
        if not found:
            return ""
    else:
        origin = f"The file {path}"
        try:
            found = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise RequestError(f"{origin}, which is to have a token, cannot be read: {why}.") from None
    return check_secret(found, origin)


def is_same(found: str, expected: str) -> bool:
    """Compare a secret with the right one, in a time that tells nothing of either."""
    # Digests have one length.
    return hmac.compare_digest(_digest(found), _digest(expected))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def check_secret(found: str, origin: str) -> str:
    """Return a secret that has a secret's form.

    Args:
        found: the secret.
        origin: where it comes from, as the beginning of a sentence.

    Raises:
        RequestError: it is too short or too long, or has other characters than a header may carry.
    """
    if not CHARACTERS_MIN <= len(found) <= CHARACTERS_MAX or not all("!" <= each <= "~" for each in found):
        # What was found is not shown: it may be a secret all the same.
        raise RequestError(
            f"{origin} has no token: one has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters of ASCII, no "
            f"spaces among them, and what is there has {len(found)} characters. "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one."
        )
    return found
