"""How the two programs read their command lines: kinds of values, and refusals that are sentences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from paramserver.errors import RequestError, did_you_mean

DIGITS_MAX = 18
"""Of a whole number: so many always fit into 64 bits."""


class ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, an unknown option first, and with the near one that is known."""

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options' values.

        Raises:
            RequestError: an option is unknown, missing or malformed.
            SystemExit: 0 after ``--help``.
        """
        known = {option for action in self._actions for option in action.option_strings}
        for argument in arguments:
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in known:
                raise RequestError(f"There is no option '{option}'.{did_you_mean(option, known)} See --help.")
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Refuse, where argparse would print its usage and end the process."""
        raise RequestError(f"{message[0].upper()}{message[1:]}. See --help.")


def address(text: str) -> str:
    """Read ``HOST:PORT``; an empty text is the default of an option that may be left out."""
    host, colon, port = text.rpartition(":")
    if text and not (colon and host and port.isdecimal() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, and found '{text}'")
    return text


def whole(text: str) -> int:
    """Read a whole number from 0."""
    return _number(text, 0)


def port(text: str) -> int:
    """Read the number of a port; 0 stands for a free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, and found '{text}'")
    return int(text)


def positive(text: str) -> int:
    """Read a whole number from 1."""
    return _number(text, 1)


def seconds(text: str) -> float:
    """Read a number of seconds from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, and found '{text}'")
    return value


def _number(text: str, least: int) -> int:
    if not text.isdecimal() or len(text) > DIGITS_MAX or int(text) < least:
        most = f", of at most {DIGITS_MAX} digits," if text.isdecimal() and len(text) > DIGITS_MAX else ","
        raise argparse.ArgumentTypeError(f"expected a number from {least}{most} and found '{text}'")
    return int(text)
