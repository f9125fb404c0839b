"""A simulated world put together: options of the command line over a world file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.sim import World, world_from_mapping, world_values_from_toml
from paramserver.toml_file import read_text

_EXAMPLES = {
    "compute": "exponential:20ms",
    "network": "ideal or "
    "'latency=100us bandwidth=1Gbit/s server=1Gbit/s rpc=80us lock=5us lock-per-byte=0.3ns'",
}


def read_world(job: Job, given: Mapping[str, Any]) -> World | None:
    """Put the world of a job together.

    Args:
        job: what runs in it. Its seed is the world's, too, where nobody says another.
        given: options: ``world`` (a file), ``compute``, ``network``, ``faults`` and ``world_seed``.

    Returns:
        The world; None for a job that does not run in virtual time.

    Raises:
        RequestError: a cost is missing, something is no world's, or the job is for no world.
    """
    if job.engine != "sim":
        for name in given:
            raise RequestError(
                f"--{name.replace('_', '-')} is about a simulated world, but the engine is {job.engine}. "
                "Add --engine sim, or leave it out."
            )
        return None
    values: dict[str, Any] = {"seed": job.seed}
    if "world" in given:
        path = Path(given["world"])
        values |= world_values_from_toml(read_text(path, "world file"), str(path))
    options = {"seed" if name == "world_seed" else name: value for name, value in given.items()}
    options.pop("world", None)
    values |= options
    for name, example in _EXAMPLES.items():
        if name not in values:
            raise RequestError(
                f"What {name} costs is missing, and a missing cost is not taken for zero. Give --{name}, "
                f"such as {example}; or a world file with --world."
            )
    source = "the command line" if "world" not in given else f"the world file {given['world']}"
    return world_from_mapping(values, source)
