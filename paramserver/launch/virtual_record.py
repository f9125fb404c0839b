"""What is written of a run in virtual time: summary, notes, checkpoint, and how to see it again."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from paramserver.events import JobStatus
from paramserver.launch.plan import Plan
from paramserver.launch.record import checkpoint_details
from paramserver.sim import Run, World
from paramserver.storage import RunFolder, SliceValues, write_manifest, write_shard
from paramserver.summary import summarise

NANOSECONDS = 1_000_000_000

NOTES_MAX = 20
"""How many sentences about deaths and the like a summary holds; the log in the run folder holds all."""

WAITED_FOR_MAX = 10
"""How many of those that were waited for longest a summary names."""


def replay_command(plan: Plan, world: World, folder: RunFolder) -> str:
    """Return the command that does the run of a folder again, as a shell takes it."""
    path = folder.path.absolute()
    words = ["paramserver", "simulate", str(path / "job.toml"), "--world", str(path / "world.toml")]
    if plan.job.code:
        words += ["--code", plan.job.code]
    return shlex.join([*words, "--seed", str(plan.job.seed), "--world-seed", str(world.seed)])


def summarise_virtual(run: Run, status: JobStatus, world: World, real_seconds: float) -> dict[str, Any]:
    """Make the summary of a run; all its seconds are virtual but those that are called real.

    Args:
        run: over, or as far as it came.
        status: of the run, with the scores of the final weights.
        world: in which it ran.
        real_seconds: that the simulation took.
    """
    summary = summarise(
        status, run.versions, weights_sha256=run.weights_sha256, wall_seconds=run.seconds, engine="sim"
    )
    summary["notes"] = [*summary["notes"], *_few(notes_of(run))]
    summary["virtual"] = {
        "world": {name: str(getattr(world, name)) for name in ("compute", "network", "faults")},
        "world_seed": world.seed,
        "real_seconds": real_seconds,
        **_bottlenecks(run),
    }
    return summary


def write_checkpoint(folder: RunFolder, run: Run) -> None:
    """Write the weights as the servers would; nothing where there never were any."""
    if not run.cuts:
        return
    files = []
    for cut in run.cuts:
        items = [
            SliceValues(part, values, cut.state.get(part, {})) for part, values in cut.snapshot.values.items()
        ]
        generation = run.status.generation
        files.append(
            write_shard(folder.checkpoint, cut.shard, len(run.cuts), items, cut.snapshot.version, generation)
        )
    job = run.status.job
    assert job is not None
    write_manifest(
        folder.checkpoint,
        job.tensors,
        files,
        run.status.generation,
        job.optimizer,
        checkpoint_details(run.status),
    )


def notes_of(run: Run) -> list[str]:
    """Return what the coordinator said and what befell workers, with virtual times."""
    return [f"At {when / NANOSECONDS:.3f} s: {sentence}" for when, sentence in run.notes]


def _few(notes: list[str]) -> list[str]:
    more = len(notes) - NOTES_MAX
    return [*notes[:NOTES_MAX], f"And {more} more in logs/world.log."] if more > 0 else notes


def _bottlenecks(run: Run) -> dict[str, Any]:
    """Return what was busy for how long, and who was waited for; all in virtual seconds."""
    waited: Counter[int] = Counter()
    for (_, other), nanoseconds in run.waits.items():
        waited[other] += nanoseconds
    return {
        "events": run.happened,
        "shards": [
            {
                "served": shard.served,
                "lock_held_seconds": shard.held_ns / NANOSECONDS,
                "lock_waited_seconds": shard.waited_ns / NANOSECONDS,
            }
            for shard in run.shards
        ],
        "servers": [
            {
                "handlers_busy_seconds": server.handlers_ns / NANOSECONDS,
                "link_in_busy_seconds": server.link_in_ns / NANOSECONDS,
                "link_out_busy_seconds": server.link_out_ns / NANOSECONDS,
            }
            for server in run.servers
        ],
        "waited_for": [
            {"rank": rank, "seconds": nanoseconds / NANOSECONDS}
            for rank, nanoseconds in waited.most_common(WAITED_FOR_MAX)
            if nanoseconds
        ],
    }
