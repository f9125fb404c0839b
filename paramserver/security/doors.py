"""What a server asks of those who call it: which token, which certificate; and where it may listen."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from paramserver.errors import RequestError
from paramserver.security.access import Access, PathLike, load_pair, read_pem, tls_paths
from paramserver.security.secrets import INTERNAL_TOKEN, METRICS_TOKEN, TOKEN, read_secret


@dataclass(frozen=True, slots=True, repr=False)
class Doors:
    """What a server asks for.

    Attributes:
        token: of the job; empty: none is asked for.
        internal_token: of the job's servers; empty: none is asked for.
        cert: the server's certificate, PEM; None: no TLS.
        key: its private key, PEM.
        ca: who calls has to show a certificate of these, PEM; None: nobody has to.
        metrics_token: of those who read metrics; empty: none is asked for.
    """

    token: str = ""
    internal_token: str = ""
    cert: bytes | None = None
    key: bytes | None = None
    ca: bytes | None = None
    metrics_token: str = ""

    @property
    def has_tls(self) -> bool:
        """Say whether the server speaks TLS."""
        return self.cert is not None

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return what gRPC needs to serve TLS; None where there is none.

        Raises:
            RequestError: the certificate and the key do not fit, or are none.
        """
        if self.cert is None or self.key is None:
            return None
        try:
            tls_context(self)  # which says what is wrong; gRPC would refuse every connection later
        except ssl.SSLError as error:
            raise RequestError(
                f"The certificates and the key of --tls-cert, --tls-key and --tls-ca cannot be used: "
                f"{error.reason or error}. paramserver certs makes a pair."
            ) from None
        return grpc.ssl_server_credentials([(self.key, self.cert)], self.ca, self.ca is not None)

    def of_link(self) -> Access:
        """Return what this server brings where it calls the first one."""
        return Access(self.internal_token, self.ca, self.cert, self.key)


OPEN = Doors()


def read_doors(
    token_file: Path | None,
    internal_token_file: Path | None,
    tls_cert: PathLike,
    tls_key: PathLike,
    tls_ca: PathLike,
    metrics_token_file: Path | None = None,
) -> Doors:
    """Read secrets and certificates from files, or from where the environment says.

    Raises:
        RequestError: a file cannot be read, or one is missing.
    """
    token = read_secret(token_file, TOKEN)
    internal = read_secret(internal_token_file, INTERNAL_TOKEN)
    if token and token == internal:
        raise RequestError("The job's token and the servers' own secret are the same. Make two: see docs.")
    metrics = read_secret(metrics_token_file, METRICS_TOKEN)
    if metrics and metrics in (token, internal):
        raise RequestError(
            "The secret for metrics is another one of this job's. Make one of its own: who reads metrics "
            "need not be able to do anything else."
        )
    paths = tls_paths(tls_ca, tls_cert, tls_key)
    if (paths["cert"] is None) != (paths["key"] is None):
        raise RequestError("A certificate and its key belong together. Give both --tls-cert and --tls-key.")
    if paths["ca"] is not None and paths["cert"] is None:
        raise RequestError(
            "--tls-ca says whose certificates others have to show, which takes TLS. Give --tls-cert and "
            "--tls-key, too."
        )
    pem = {name: None if path is None else read_pem(path) for name, path in paths.items()}
    return Doors(token, internal, **pem, metrics_token=metrics)


def tls_context(doors: Doors) -> ssl.SSLContext | None:
    """Return what Python's own sockets need to serve TLS as the server does; None where there is none."""
    if doors.cert is None or doors.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if doors.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=doors.ca.decode(errors="replace"))
    load_pair(context, doors.cert, doors.key)
    return context


def check_listen(option: str, host: str, *, has_tls: bool, insecure: bool) -> None:
    """Refuse to listen where others reach it, unless TLS or the user allows it.

    Args:
        option: the one that says where, for people.
        host: a name or an address.
        has_tls: there is a certificate and a key.
        insecure: the user has said that it may be without.

    Raises:
        RequestError: others would reach it in the clear.
    """
    if has_tls or insecure or is_loopback(host):
        return
    raise RequestError(
        f"{option} {host} would let other machines in, and what travels could be read and changed on the "
        "way. Give --tls-cert and --tls-key (paramserver certs makes them), or say --insecure if this "
        "network is yours alone."
    )


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a host; a name other than ``localhost`` is not looked up.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("0.0.0.0"), is_loopback("server0")
        (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def add_door_options(add: Callable[..., Any]) -> None:
    """Add the options of a server's doors to its parser."""
    add("--tls-cert", metavar="FILE", type=Path, default=None, help="this server's certificate; TLS is on")
    add("--tls-key", metavar="FILE", type=Path, default=None, help="its private key")
    add(
        "--tls-ca",
        metavar="FILE",
        type=Path,
        default=None,
        help="ask for certificates of this CA: mutual TLS",
    )
    add("--token-file", metavar="FILE", type=Path, default=None, help=f"the job's token (default: {TOKEN})")
    add(
        "--internal-token-file",
        metavar="FILE",
        type=Path,
        default=None,
        help=f"the servers' own secret, for the calls between them (default: {INTERNAL_TOKEN})",
    )
    add("--insecure", action="store_true", help="allow other addresses than loopback without TLS")
