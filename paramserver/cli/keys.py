"""Options of the commands that call servers: files that open their doors, and how the answer is printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from paramserver.security import Access

TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The token of the job's servers. (default: PARAMSERVER_TOKEN has it)",
        show_default=False,
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Speak TLS, and trust certificates of this CA. (default: PARAMSERVER_TLS_CA)",
        show_default=False,
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Show this certificate. (default: PARAMSERVER_TLS_CERT)", show_default=False
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Its private key. (default: PARAMSERVER_TLS_KEY)", show_default=False),
]

AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON document instead of tables.")
]


@dataclass(frozen=True, slots=True)
class Keys:
    """The files that were named; None where the environment is to say."""

    token_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def access(self, token_file: Path | None = None) -> Access:
        """Read them.

        Args:
            token_file: where a token is if none was named.

        Raises:
            RequestError: a file cannot be read.
        """
        from paramserver.security import read_access

        return read_access(self.token_file or token_file, self.tls_ca, self.tls_cert, self.tls_key)


NO_KEYS = Keys()
