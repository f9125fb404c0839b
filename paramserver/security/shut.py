"""Why a server's door stayed shut. gRPC says that a handshake failed, or only that the socket was closed."""

from __future__ import annotations

import socket
import ssl

import grpc

from paramserver.security.access import Access
from paramserver.security.channels import open_channel

PROBE_SECONDS = 3.0
"""How long a connection of our own may take at each step."""

_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_HOST = (62, 64)
"""X509_V_ERR_... of OpenSSL's x509_vfy.h."""


def is_shut(details: str) -> bool:
    """Say whether gRPC's words for a failed connection are those of a door that stays shut.

    The same words may come from a server that was killed just now, so `why_shut` looks.
    """
    signs = ("handshake failed", "Verification Check failed", "Socket closed")
    return "failed to connect" in details and any(sign in details for sign in signs)


def why_shut(address: str, access: Access) -> str:
    """Find out why no connection comes about, by a TLS handshake of our own.

    Blocks for at most a few times ``PROBE_SECONDS``.

    Args:
        address: of the server.
        access: what was brought.

    Returns:
        A sentence or two; empty where it is not TLS, or nobody is there.
    """
    server = f"The server at {address}"
    found = _shake_hands(address, access.ca)
    if access.ca is None:
        return (
            ""
            if found is not None
            else (
                f"{server} speaks TLS, and this side does not. Say with --tls-ca FILE (or tls_ca=, or "
                "the variable PARAMSERVER_TLS_CA) whose certificate it has."
            )
        )
    if isinstance(found, ssl.SSLCertVerificationError):
        return _of_certificate(address, found.verify_code)
    if isinstance(found, ssl.SSLError) and "CERTIFICATE" not in str(found):
        return (
            f"{server} does not speak TLS, and this side does. Start it with --tls-cert and --tls-key, or "
            "leave --tls-ca (and PARAMSERVER_TLS_CA) out here."
        )
    # A server that was killed just now hangs up, too, but only once.
    if not isinstance(found, _HungUpError) or not isinstance(_shake_hands(address, access.ca), _HungUpError):
        return ""
    if access.cert is None:
        return (
            f"{server} asks for a certificate, and none was shown. Give one of its CA with --tls-cert and "
            "--tls-key."
        )
    if _opens(address, access):  # the one that was killed has been started again meanwhile
        return ""
    return (
        f"{server} does not accept the certificate that was shown: it has expired, or is of another CA "
        "than the server's --tls-ca."
    )


def _opens(address: str, access: Access) -> bool:
    """Say whether gRPC can connect now; a certificate that is shown from memory takes its own TLS."""
    # A connection of its own: others to that server may be waiting before they try again.
    with open_channel(address, access, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        try:
            grpc.channel_ready_future(channel).result(PROBE_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def _of_certificate(address: str, code: int) -> str:
    """Say what is wrong with a server's certificate, given OpenSSL's code."""
    certificate = f"The certificate of the server at {address}"
    if code == _EXPIRED:
        return f"{certificate} has expired. Make new ones with paramserver certs."
    if code == _NOT_YET_VALID:
        return f"{certificate} is not valid yet. Is the clock of this machine right?"
    if code in _WRONG_HOST:
        host = _host_and_port(address)[0]
        return (
            f"{certificate} is not for '{host}'. Use a name that it is for, or make new ones with "
            f"paramserver certs --host {host}."
        )
    return (
        f"{certificate} comes from another CA than the one that is trusted here. Is --tls-ca the ca.crt of "
        "this cluster?"
    )


class _HungUpError(Exception):
    """The server closed a connection whose handshake had gone well."""


def _shake_hands(address: str, ca: bytes | None) -> Exception | None:
    """Begin TLS with a server and hang up; return what went wrong, None where nothing did."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=ca.decode(errors="replace"))
    host, port = _host_and_port(address)
    try:
        with (
            socket.create_connection((host, port), PROBE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return None if ca is None else _listen(tls)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        return error


def _listen(tls: ssl.SSLSocket) -> Exception | None:
    """Wait for a server's first byte.

    In TLS 1.3 a server looks at the other side's certificate after the handshake. gRPC's speaks first where
    it likes what it saw, and hangs up where not.
    """
    try:
        return None if tls.recv(1) else _HungUpError()
    except (ConnectionError, ssl.SSLError):
        return _HungUpError()


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
