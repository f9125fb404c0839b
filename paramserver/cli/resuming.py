"""What ``train --resume`` is told: a run, and little else, for all else is in its folder."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramserver.cli.job_arguments import read_job_file
from paramserver.errors import RequestError

MAY_CHANGE = ("code", "servers", "shards")
"""Options of a job that may be given: the code has to be named again, and a checkpoint fits any servers."""


def read_resumed_job(
    run: Path, besides: Mapping[str, object], given: dict[str, Any]
) -> tuple[str, str, dict[str, Any]]:
    """Read the job of a run that is to go on; to be called before numpy is imported.

    Args:
        run: its folder.
        besides: what else was said on the command line that a run which goes on has already, by its name
            there; what is None or empty was not said.
        given: options of a job.

    Returns:
        The text of its job file, the file's name, and the options.

    Raises:
        RequestError: the folder has no job, or something was said that would change it.
    """
    said = [name for name, value in besides.items() if value]
    said += [f"--{name.replace('_', '-')}" for name in given if name not in MAY_CHANGE]
    if said:
        raise RequestError(
            f"{said[0]} cannot be given with --resume: the run goes on in its folder, as the same job. Only "
            "--servers and --shards may change, and code of your own has to be named again with --code."
        )
    job_file = run / "job.toml"
    if not job_file.exists():
        raise RequestError(f"{run} is not the folder of a run: it has no job.toml.")
    text, source, given = read_job_file(job_file, given)
    try:
        named = tomllib.loads(text).get("code", "")
    except tomllib.TOMLDecodeError:
        return text, source, given  # whoever reads the whole job says so
    if named and "code" not in given:
        raise RequestError(
            f"The run in {run} trains code of your own, which is only run where you name it again: add "
            f"--code {named}."
        )
    if "code" in given and not named:
        raise RequestError(f"The run in {run} trains no code of your own. Leave --code out.")
    return text, source, given
