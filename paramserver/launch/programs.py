"""The two programs that a job consists of, and how to start them.

They are started by name and never imported: ``-P`` keeps the working folder off their import path, so that a
user's own ``server.py`` cannot stand in for ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import paramserver
from paramserver.errors import RequestError

PROGRAMS = ("server", "worker")

_BLAS_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def command(program: str, arguments: Iterable[str] = ()) -> list[str]:
    """Return the command line that runs a program.

    Args:
        program: ``server`` or ``worker``.
        arguments: what it is told.

    Raises:
        RequestError: another package of that name would run instead, or none.
    """
    _check_is_ours(program, _import_path())
    return [sys.executable, "-P", "-m", program, *arguments]


def blas_environment(threads: int) -> dict[str, str]:
    """Return the environment variables that fix the threads of linear algebra.

    They count when numpy is imported, so they must be set before.

    Args:
        threads: in each process; 0 leaves the environment as it is.
    """
    return {name: str(threads) for name in _BLAS_VARIABLES} if threads > 0 else {}


def _import_path() -> Sequence[str]:
    """Return where a child looks for packages: as this process, but without the folder of its script."""
    return sys.path if sys.flags.safe_path else sys.path[1:]


def _check_is_ours(program: str, path: Sequence[str]) -> None:
    expected = Path(paramserver.__file__).resolve().parent.parent / program / "__init__.py"
    spec = PathFinder.find_spec(program, path)
    if spec is None:
        raise RequestError(
            f"The package '{program}', which is part of paramserver, is not where Python looks for packages. "
            "Install paramserver again: pip install --force-reinstall paramserver."
        )
    if spec.origin is None or Path(spec.origin).resolve() != expected:
        raise RequestError(
            f"Another package named '{program}' is installed at {spec.origin or 'a folder without code'} and "
            f"hides that of paramserver, {expected}. Uninstall the other one, or install paramserver in a "
            "virtual environment of its own."
        )
