"""A job put together from what a person says in three places: options, a job file, a Python file.

The launcher and each worker read a job in this one way, so the same two files mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramserver.errors import RequestError
from paramserver.job import CODE, Job
from paramserver.job_toml import job_values, job_values_from_toml
from paramserver.user_code import UserCode, load_code

TOO_LATE = ("blas_threads", "code", "code_sha256")
"""What cannot be said in a Python file: numpy is loaded by then, or it is the file itself."""


def read_job(text: str, source: str, given: Mapping[str, Any]) -> tuple[Job, UserCode | None]:
    """Put a job together: options win over the job file, which wins over what a user's code says.

    Args:
        text: of the job file; may be empty.
        source: the job file's name; empty for none.
        given: options of the command line. Only ``code`` among them, never that of the job file, is run.

    Returns:
        The job, and the user's code if any was named.

    Raises:
        RequestError: something of it is wrong, or contradicts something else.
    """
    options = job_values(given, "the command line")
    file = job_values_from_toml(text, source) if source else {}
    if not options.get("code"):
        return Job(**{**file, **options}), None
    code = load_code(Path(options["code"]), file.get("code_sha256", ""))
    own = job_values(code.options, f"JOB in {code.path.name}")
    if late := [name for name in TOO_LATE if name in own]:
        raise RequestError(f"JOB in {code.path.name} cannot say '{late[0]}'. Say it on the command line.")
    values = {**own, **file, **options, "code": str(code.path), "code_sha256": code.sha256}
    for name in ("data", "model"):
        if not code.defines(name):
            continue
        said = {**own, **file, **options}.get(name, CODE)
        if said != CODE:
            raise RequestError(
                f"{code.path.name} defines '{name}', so the {name} cannot be '{said}', too. Drop one of them."
            )
        values[name] = CODE
    return Job(**values), code
