"""What a command with a job is given: its options in one dictionary, and the job file.

Such a command writes one parameter ``given`` where the options of a job belong, and `takes_job` puts them in
its place; the command is handed one dictionary of those that were really given. In the same way a parameter
``world_given`` stands for the options of a simulated world.
"""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any

from paramserver.cli.job_options import OPTIONS
from paramserver.errors import RequestError
from paramserver.toml_file import read_text

NOT_OF_A_PROBLEM = ("data", "model", "code", "split", "batch", "epochs")
"""Options that mean nothing where a problem is trained."""


def takes_job(
    command: Callable[..., int] | None = None, *, without: Collection[str] = ()
) -> Callable[..., Any]:
    """Give a command the options of a job in place of ``given``, and of a world in place of ``world_given``.

    Args:
        command: has one of these parameters or both; the others are annotated as typer reads them.
        without: names of the options that it does not take.

    Returns:
        The command as typer registers it, or what makes it of one where none was given.
    """
    if command is None:
        return lambda one: takes_job(one, without=without)
    stands_for: dict[str, list[str]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if parameter.name in OPTIONS:
            options = [option for option in OPTIONS[parameter.name] if option.name not in without]
            stands_for[parameter.name] = [option.name for option in options]
            parameters += [option.parameter() for option in options]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def with_options(**values: Any) -> int:
        for parameter, names in stands_for.items():
            said = {name: values.pop(name) for name in names}
            # A flag that is not there says nothing: a job file may have set its key.
            values[parameter] = {
                name: value for name, value in said.items() if value is not None and value is not False
            }
        return command(**values)

    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options


def read_job_file(job_file: Path | None, given: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Read the argument of a command with a job, and fix the threads of linear algebra by it.

    To be called before numpy is imported: later the threads could not be fixed any more.

    Args:
        job_file: a job file, or a Python file, which is the same as ``--code``; None for none.
        given: options of the command line.

    Returns:
        The text of the job file, its name (both empty where there is none), and the options.

    Raises:
        RequestError: it cannot be read, two Python files are named, or options contradict each other.
    """
    if job_file is not None and job_file.suffix == ".py":
        if "code" in given:
            raise RequestError(f"{job_file} and --code {given['code']} are both Python files. Give one.")
        given, job_file = {**given, "code": str(job_file)}, None
    if "problem" in given and (besides := [name for name in NOT_OF_A_PROBLEM if name in given]):
        raise RequestError(
            f"--problem is trained in place of data and model, for so many --steps, so --{besides[0]} means "
            "nothing beside it. Leave one of them out."
        )
    text = "" if job_file is None else read_text(job_file, "job file")
    _fix_blas_threads(text, given)
    return text, "" if job_file is None else str(job_file), given


def _fix_blas_threads(text: str, given: dict[str, Any]) -> None:
    from paramserver.launch.programs import blas_environment

    try:
        wanted = {"blas_threads": 1, **tomllib.loads(text), **given}["blas_threads"]
    except tomllib.TOMLDecodeError:
        return  # whoever reads the whole job says so
    if isinstance(wanted, int):
        os.environ.update(blas_environment(wanted))
