"""Reading what a job file, or the command line, says of a job, and seeing that it is sound."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from paramserver.errors import RequestError, did_you_mean
from paramserver.job import Job


def job_from_toml(text: str, source: str) -> Job:
    """Read a job file.

    Args:
        text: TOML; keys are the fields of `Job`, all optional.
        source: the file's name, for messages.

    Raises:
        RequestError: it is not TOML, or a key or value is not a job's.
    """
    return Job(**job_values_from_toml(text, source))


def job_values_from_toml(text: str, source: str) -> dict[str, Any]:
    """Return what a job file says, and nothing of what it does not say.

    Args:
        text: TOML; keys are the fields of `Job`, all optional.
        source: the file's name, for messages.

    Raises:
        RequestError: it is not TOML, or a key or value is not a job's.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"The job file {source} is not valid TOML: {error}.") from None
    return job_values(values, f"the job file {source}")


def job_values(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return names and values as a job has them, after they have been found sound.

    Args:
        values: fields of `Job`.
        source: where they come from, for messages.

    Raises:
        RequestError: a name is unknown, or a value has the wrong type.
    """
    known = {field.name: type(field.default) for field in fields(Job)}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise RequestError(
                f"There is no key '{name}' in a job, but {source} has it.{did_you_mean(name, known)}"
            )
        expected = known[name]
        if expected is float and type(value) is int:
            value = float(value)
        if type(value) is not expected:
            raise RequestError(
                f"'{name}' in {source} must be {_KINDS[expected]}, but it is the "
                f"{type(value).__name__} {value!r}."
            )
        checked[name] = value
    return checked


_KINDS = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
