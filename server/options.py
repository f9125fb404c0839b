"""What a server is told when it starts."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from paramserver.errors import RequestError, did_you_mean

_WILDCARDS = ("0.0.0.0", "::", "[::]", "")


@dataclass(frozen=True, slots=True)
class Options:
    """A server's options; see ``--help``."""

    listen: str
    advertise: str
    server: int
    servers: int
    shards: int
    coordinator: str
    out: Path | None
    exit_with_parent: bool
    connect_timeout_seconds: float
    score_grace_seconds: float
    job_bytes_max: int

    def advertised(self, port: int) -> str:
        """Return the address that others use, given the port that was bound."""
        host, _, wanted = (self.advertise or self.listen).rpartition(":")
        return f"{host}:{port}" if not self.advertise or wanted == "0" else self.advertise


def read_options(arguments: list[str]) -> Options:
    """Read the command line.

    Raises:
        RequestError: an option is unknown or malformed, or they contradict each other.
        SystemExit: 0 after ``--help``.
    """
    parser = _parser()
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        options_known = [option for action in parser._actions for option in action.option_strings]
        raise RequestError(f"There is no option '{unknown[0]}'.{did_you_mean(unknown[0], options_known)}")
    options = Options(**vars(known))
    host, _, _ = options.listen.rpartition(":")
    if not 0 <= options.server < options.servers:
        raise RequestError(
            f"--server is an index from 0 to {options.servers - 1} with --servers {options.servers}, and "
            f"{options.server} was given."
        )
    if options.server and not options.coordinator:
        raise RequestError(f"Server {options.server} needs --coordinator HOST:PORT, the address of server 0.")
    if not options.advertise and host in _WILDCARDS:
        raise RequestError(
            f"--listen {options.listen} means every address of this machine. Say with --advertise HOST:PORT "
            "which one others are to use."
        )
    return options


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in a sentence, as all other errors do."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message[0].upper()}{message[1:]}. See --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -P -m server",
        description="One server of a job: shards of the model, and in server 0 the coordinator.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", type=_address, default="127.0.0.1:0", help="0 takes a free port")
    add(
        "--advertise",
        metavar="HOST:PORT",
        type=_address,
        default="",
        help="the address that others use; port 0 is the one that was bound (default: as --listen)",
    )
    add("--server", metavar="INDEX", type=_whole, default=0, help="this server's index; 0 coordinates")
    add("--servers", metavar="N", type=_positive, default=1, help="servers of the job")
    add("--shards", metavar="N", type=_positive, default=1, help="shards of each server")
    add("--coordinator", metavar="HOST:PORT", type=_address, default="", help="server 0, for all others")
    add("--out", metavar="DIR", type=Path, default=None, help="run folder; without it nothing is kept")
    add("--exit-with-parent", action="store_true", help="end when standard input, a pipe, is closed")
    add(
        "--connect-timeout",
        metavar="SECONDS",
        dest="connect_timeout_seconds",
        type=_seconds,
        default=60.0,
        help="how long to try to reach the coordinator (default: 60)",
    )
    add(
        "--score-grace-seconds",
        metavar="SECONDS",
        type=_seconds,
        default=60.0,
        help="how long to wait, once the job is over, for an observer's final score (default: 60)",
    )
    add(
        "--job-bytes-max",
        metavar="BYTES",
        type=_positive,
        default=1 << 40,
        help="most bytes of weights that a job may have (default: 2^40)",
    )
    return parser


def _address(text: str) -> str:
    if not text:
        return text  # the default of an option that may be left out
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, and found '{text}'")
    return text


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, and found '{text}'")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, and found '{text}'")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, and found '{text}'")
    return value
