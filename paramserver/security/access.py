"""What one who calls a server brings: the job's token, and with TLS the certificates."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramserver.errors import RequestError
from paramserver.security.secrets import TOKEN, check_secret, read_secret

TLS_CA, TLS_CERT, TLS_KEY = "PARAMSERVER_TLS_CA", "PARAMSERVER_TLS_CERT", "PARAMSERVER_TLS_KEY"
"""Environment variables that name the three files, for those who give no options."""

PathLike = str | Path | None


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """What opens a server's door.

    Attributes:
        token: of the job; empty: none.
        ca: certificates that are trusted, PEM; None: no TLS.
        cert: one's own certificate, PEM, where servers ask for one; else None.
        key: its private key, PEM.
    """

    token: str = ""
    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        """Show no secret: this may end up in a traceback."""
        return f"Access(token={'***' if self.token else None}, tls={self.ca is not None})"


NO_ACCESS = Access()


def read_access(
    token_file: PathLike = None,
    ca: PathLike = None,
    cert: PathLike = None,
    key: PathLike = None,
    *,
    token: str | None = None,
) -> Access:
    """Read token and certificates from what is given, and else from what the environment says.

    Args:
        token_file: a file with the token; None: ``PARAMSERVER_TOKEN`` has it, if there is one.
        ca: a file with the certificates to trust; None: ``PARAMSERVER_TLS_CA`` names it, if there is TLS.
        cert: a file with one's own certificate; None: ``PARAMSERVER_TLS_CERT`` names it, if there is one.
        key: a file with its key; None: ``PARAMSERVER_TLS_KEY`` names it.
        token: the token itself, in place of a file.

    Raises:
        RequestError: a file cannot be read or used, or one of them is missing.
    """
    if token is not None:
        word = check_secret(token, "The argument 'token'") if token else ""
    else:
        word = read_secret(None if token_file is None else Path(token_file), TOKEN)
    paths = tls_paths(ca, cert, key)
    if (paths["cert"] is None) != (paths["key"] is None):
        raise RequestError("A certificate and its key belong together. Give both --tls-cert and --tls-key.")
    if paths["cert"] is not None and paths["ca"] is None:
        raise RequestError(
            "A certificate is only shown to servers that are trusted. Say with --tls-ca FILE whose "
            "certificates are."
        )
    pem = {name: None if path is None else read_pem(path) for name, path in paths.items()}
    access = Access(word, **pem)
    _check_usable(access)
    return access


def _check_usable(access: Access) -> None:
    """Refuse certificates and keys that are none; gRPC would only fail to connect.

    Raises:
        RequestError: they are none, or do not belong together.
    """
    what = "The certificates of --tls-ca"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if access.ca is not None:
            context.load_verify_locations(cadata=access.ca.decode(errors="replace"))
        if access.cert is not None and access.key is not None:
            what = "The certificate and the key of --tls-cert and --tls-key"
            load_pair(context, access.cert, access.key)
    except ssl.SSLError as error:
        raise RequestError(
            f"{what} cannot be used: {error.reason or error}. paramserver certs makes what fits."
        ) from None


def load_pair(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """Let Python's own sockets show a certificate.

    Raises:
        ssl.SSLError: it and the key are none, or do not belong together.
    """
    # Python reads certificates only from files. This one is its owner's alone, and gone at once.
    with tempfile.NamedTemporaryFile() as file:
        file.write(cert + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


def tls_paths(ca: PathLike, cert: PathLike, key: PathLike) -> dict[str, Path | None]:
    """Return the three files by name, with the environment's word for those that are not given."""
    given = {"ca": (ca, TLS_CA), "cert": (cert, TLS_CERT), "key": (key, TLS_KEY)}
    found = {name: path or os.environ.get(variable) for name, (path, variable) in given.items()}
    return {name: Path(path) if path else None for name, path in found.items()}


def read_pem(path: Path) -> bytes:
    """Return the content of a file of certificates or of a key.

    Raises:
        RequestError: it cannot be read, or is no PEM.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"The file {path} cannot be read: {error.strerror or error}.") from None
    if b"-----BEGIN " not in data:
        raise RequestError(
            f"{path} is no certificate or key in PEM: it has no line -----BEGIN ...-----. "
            "paramserver certs DIR makes such files."
        )
    return data


def add_access_options(add: Callable[..., Any]) -> None:
    """Add the options of all that call servers to a program's parser: token and TLS."""
    add("--token-file", metavar="FILE", type=Path, default=None, help=f"the job's token (default: {TOKEN})")
    add("--tls-ca", metavar="FILE", type=Path, default=None, help="trust certificates of this CA; TLS is on")
    add("--tls-cert", metavar="FILE", type=Path, default=None, help="show this certificate")
    add("--tls-key", metavar="FILE", type=Path, default=None, help="its private key")
