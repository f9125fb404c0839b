"""A private CA for one cluster, and the certificates and tokens of those who take part.

The CA's key lives in this process's memory alone: once the certificates are written nobody, thief or owner,
can issue another one. A cluster that grows by a host name gets a new set.
"""

from __future__ import annotations

import datetime
import importlib.util
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paramserver.errors import JobError, RequestError
from paramserver.security.secrets import new_secret

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""In every server's certificate: its own machine reaches it under these names."""

SKEW = datetime.timedelta(minutes=5)
"""Certificates count from so long ago, since the clocks of machines differ a little."""

_FILES = {
    "server": ("ca.crt", "server.crt", "server.key", "token", "internal-token"),
    "worker": ("ca.crt", "worker.crt", "worker.key", "token"),
}


def make_certificates(folder: Path, hosts: Iterable[str], days: int) -> datetime.datetime:
    """Write a folder for the servers and one for all others, each with what these need and no more.

    ``server/`` has ca.crt, server.crt, server.key, token and internal-token; ``worker/`` has ca.crt,
    worker.crt, worker.key and token. Only their owner can read keys and tokens.

    Args:
        folder: for both; made if it is not there.
        hosts: names and addresses under which servers are reached, beside this machine's own.
        days: how long the certificates are valid.

    Returns:
        Until when they are valid, UTC.

    Raises:
        RequestError: the package cryptography is not installed, a host is none, or there are files already.
        JobError: the disk refuses.
    """
    if importlib.util.find_spec("cryptography") is None:
        raise RequestError(
            "Certificates need the package cryptography, which is not installed. Install it with "
            "pip install 'paramserver[tls]', or make them with a tool of your own: see docs/reliability.md."
        )
    paths = [folder / role / name for role, names in _FILES.items() for name in names]
    if there := [path for path in paths if path.exists()]:
        raise RequestError(
            f"{there[0]} is there already, and nothing is overwritten. Name another folder, or delete this "
            "one."
        )
    names = [_general_name(host) for host in (*LOCAL_HOSTS, *hosts)]
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    contents = _issue(names, end)
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_secret = path.suffix != ".crt"
            # The mode is that of the first moment: nobody reads a key between its making and a chmod.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(path, flags, 0o600 if is_secret else 0o644), "wb") as file:
                file.write(contents[path.name])
    except OSError as error:
        raise JobError(
            f"The certificates cannot be written to {folder}: {error.strerror or error}."
        ) from None
    return end


def _issue(server_names: list[Any], end: datetime.datetime) -> dict[str, bytes]:
    """Return the content of every file by name."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import BasicConstraints
    from cryptography.x509.oid import ExtendedKeyUsageOID

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(
        "paramserver CA", authority_key, "paramserver CA", authority_key, end, [], BasicConstraints(True, 0)
    )
    contents = {"token": new_secret().encode(), "internal-token": new_secret().encode()}
    contents["ca.crt"] = authority.public_bytes(serialization.Encoding.PEM)
    # A server also calls: the first one's link.
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    for role, uses, names in (("server", purposes, server_names), ("worker", purposes[1:], [])):
        key = ec.generate_private_key(ec.SECP256R1())
        made = _certificate(
            f"paramserver {role}",
            key,
            "paramserver CA",
            authority_key,
            end,
            names,
            BasicConstraints(False, None),
            uses,
        )
        contents[f"{role}.crt"] = made.public_bytes(serialization.Encoding.PEM)
        contents[f"{role}.key"] = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    return contents


def _certificate(
    subject: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    end: datetime.datetime,
    names: list[Any],
    constraints: Any,
    uses: list[Any] | None = None,
) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    begin = min(datetime.datetime.now(datetime.UTC), end - datetime.timedelta(minutes=1)) - SKEW
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(constraints, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not constraints.ca,
                key_cert_sign=constraints.ca,
                crl_sign=constraints.ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        if not host or ":" in host or "/" in host or any(each.isspace() for each in host):
            raise ValueError
        return x509.DNSName(host)
    except ValueError:
        raise RequestError(
            f"'{host}' is no name or address of a host. Give it without a port, such as server0 or 10.0.0.7."
        ) from None
