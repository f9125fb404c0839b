"""Certificates and tokens for tests, made once for all of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from paramserver.security import Access, read_access

_folder = TemporaryDirectory(prefix="keys-")


@cache
def keys(name: str = "ours", days: int = 1) -> Path:
    """Return a folder as ``paramserver certs`` makes it, from a CA of its own."""
    pytest.importorskip("cryptography")
    from paramserver.security.certificates import make_certificates

    folder = Path(_folder.name) / name
    make_certificates(folder, ["server0"], days)
    return folder


def server_options(folder: Path, *, mutual: bool = True, token: bool = True) -> list[str]:
    """Return the options of a server that has these keys."""
    at = folder / "server"
    options = ["--tls-cert", f"{at}/server.crt", "--tls-key", f"{at}/server.key"]
    options += ["--tls-ca", f"{at}/ca.crt"] if mutual else []
    return options + (token_options(folder) if token else [])


def token_options(folder: Path) -> list[str]:
    """Return a server's options for tokens alone."""
    at = folder / "server"
    return ["--token-file", f"{at}/token", "--internal-token-file", f"{at}/internal-token"]


def worker_options(folder: Path) -> list[str]:
    """Return the options of a worker that has these keys."""
    at = folder / "worker"
    options = ["--tls-ca", f"{at}/ca.crt", "--tls-cert", f"{at}/worker.crt", "--tls-key", f"{at}/worker.key"]
    return [*options, "--token-file", f"{at}/token"]


def access(ca: Path | None = None, shown: Path | None = None, token: Path | None = None) -> Access:
    """Return what a client brings: trust in a CA, a certificate, a token, each of some folder."""
    return read_access(
        token and token / "worker" / "token",
        ca and ca / "worker" / "ca.crt",
        shown and shown / "worker" / "worker.crt",
        shown and shown / "worker" / "worker.key",
        token=None if token else "",
    )
