"""Logs of every program: a line for a person, or one JSON object a line for whatever collects them."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from paramserver.errors import JobError

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

_FIELDS = "fields"
"""Name of the record's attribute that has what a line says beside its message."""


def set_up_logs(form: str, level: str, role: str, index: int | None, name: str) -> None:
    """Send all log lines of this process to standard error.

    Args:
        form: one of ``FORMATS``.
        level: one of ``LEVELS``: the least that is written.
        role: ``server``, ``worker``, ``evaluator`` or ``train``, for JSON.
        index: of the server or worker, for JSON; None where it has none.
        name: what the process is called, such as ``worker0``; in a text it stands before each message.
    """
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter(role, index, name))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {name}: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def fields(**values: Any) -> dict[str, Any]:
    """Return the ``extra`` of a log call: what its JSON says beside the message, such as ``rank=3``."""
    return {_FIELDS: values}


def announce(line: str) -> None:
    """Print a line to standard output that others wait for; where logs are JSON, as one of them.

    Raises:
        JobError: it cannot be written.
    """
    formatter = _json_formatter()
    if formatter is not None:
        line = formatter.format(logging.LogRecord("stdout", logging.INFO, "", 0, line, None, None))
    try:
        print(line, flush=True)
    except OSError as error:
        raise JobError(f"Standard output cannot be written: {error.strerror or error}.") from error


def complain(sentence: str) -> None:
    """Say on standard error why the command line ends; where logs are JSON, as one of them."""
    if _json_formatter() is None:
        print(f"paramserver: {sentence}", file=sys.stderr)
    else:
        logging.getLogger("train").error("%s", sentence)


def said(line: str) -> str:
    """Return what a line of a log says: the message of a JSON object, or the line itself.

    Example:
        >>> said('{"level": "info", "message": "All steps are done."}'), said("12:00:00 INFO all done")
        ('All steps are done.', '12:00:00 INFO all done')
    """
    if line.startswith("{"):
        try:
            return str(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            pass
    return line


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object in one line.

    Args:
        role: of the process.
        index: of the process among those of its role; None where it has none.
        name: what the process is called.
    """

    def __init__(self, role: str, index: int | None, name: str) -> None:
        super().__init__()
        self._process = {"role": role, "index": index, "process": name}

    def format(self, record: logging.LogRecord) -> str:
        """Return the object: time (UTC), level, logger, process, message, and what else the line says."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
        }
        more: Mapping[str, Any] = getattr(record, _FIELDS, {})
        told = {name: value for name, value in (told | dict(more)).items() if value is not None}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def _json_formatter() -> JsonFormatter | None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            return handler.formatter
    return None
