"""What must hold of a run in which processes were killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from counting_job import JOB
from running import GRACE_SECONDS, SYNC_EPOCHS, Run

from paramserver.storage import load_manifest, read_checkpoint
from paramserver.storage.journal import Replay, read_journal

CANCELLED_BY_GRPC = re.compile(r"Traceback .*\n.*_schedule_rpc_coro\nasyncio.exceptions.CancelledError\n")
"""What gRPC writes by itself of a call that came just as its server stopped."""

ENDS = ("applied", "dropped", "fenced", "partial", "lost", "rolled_back")
REPLICAS, THREADS, BATCH = 4, 2, 16
ROUNDS = SYNC_EPOCHS * 11


def judge(run: Run, undisturbed: str) -> None:
    """Look at all that must hold of a run.

    Args:
        run: that has ended.
        undisturbed: the hash of the weights that the sync job has when nobody disturbs it.
    """
    assert "Traceback" not in CANCELLED_BY_GRPC.sub("", run.said() + run.logs())
    assert run.strikes_made == len(run.kill.strikes), "The moment never came."
    # A busy machine starts processes late.
    load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert run.standstill_seconds <= GRACE_SECONDS * load, f"No progress for {run.standstill_seconds:.1f} s."
    if run.was_over:  # the launcher was killed when all was done; only the summary may be missing
        assert run.code == 2
        judge_weights(run, undisturbed, {})
        return
    assert run.code == 0, run.said()
    summary = run.summary()
    assert summary["outcome"] == "finished", summary["reason"]
    judge_weights(run, undisturbed, summary)
    judge_account(summary)
    judge_recovery(run, summary)
    judge_journals(run)
    audit(run)


def judge_weights(run: Run, undisturbed: str, summary: Mapping[str, Any]) -> None:
    """See that nothing that was acknowledged is missing in the weights, and nothing is in them twice."""
    manifest = load_manifest(run.out / "checkpoint")
    if run.kill.consistency == "sync":
        assert manifest.weights_sha256 == undisturbed, "The weights are others."
        assert set(manifest.versions) == {ROUNDS}
        return
    counts = read_checkpoint(run.out / "checkpoint").weights["seen"].astype(int)
    epochs = JOB["epochs"]
    killed = {victim for strike in run.kill.strikes for victim in strike.victims}
    dead = 2 if "launcher" in killed else sum(victim.startswith("worker") for victim in killed)
    if not summary or "launcher" in killed or not dead:
        lost = np.flatnonzero((counts > 0) & (counts < epochs))
        assert not len(lost), f"Lost: samples {lost} were applied {counts[lost]} times, not {epochs}."
    # Under drop, what the dead had sent to one shard alone is done again by others: one step of each thread.
    again = dead * THREADS * BATCH
    assert counts.max() <= epochs + (dead > 0), f"Applied {counts.max()} times, not {epochs}."
    assert (counts > epochs).sum() <= again, f"{(counts > epochs).sum()} samples were applied once too often."
    if summary:  # those who live may have done all that is theirs, and have left, before a death is noticed
        seen = summary["visits"]["seen"]
        if not summary["generation"]:  # else who died has not heard what became void
            assert summary["samples"]["applied"] <= counts.sum(), summary["samples"]
        assert seen <= counts.sum() <= seen + again, (
            f"{counts.sum()} were applied, and {seen} are said to be."
        )


def judge_account(summary: Mapping[str, Any]) -> None:
    """See that every gradient and every sample ended as exactly one thing."""
    for counts in (summary["gradients"], summary["samples"]):
        assert counts["computed"] == sum(counts[name] for name in ENDS), counts
    assert not any("accounts for more" in note for note in summary["notes"]), summary["notes"]
    if summary["consistency"] == "sync":
        assert summary["rounds"] == ROUNDS


def judge_recovery(run: Run, summary: Mapping[str, Any]) -> None:
    """See that nothing was done again but what the durability allows to be."""
    launcher = any("launcher" in strike.victims for strike in run.kill.strikes)
    if run.kill.durability == "journal" and not run.begun_anew:
        assert summary["generation"] == 0
        assert "goes on from checkpoint" not in run.logs()
        assert launcher or summary["gradients"]["rolled_back"] == 0
    elif run.kill.durability == "checkpoint" and not run.begun_anew:
        went_back_to = map(int, re.findall(r"goes on from checkpoint (\d+)", run.said() + run.logs()))
        assert all(number >= run.checkpoints[0] for number in went_back_to)


def judge_journals(run: Run) -> None:
    """Do again what the shards did, and see that each answer was the right one."""
    for shard in range(2):
        segments = read_journal(run.out / "journal" / f"shard-{shard:04d}")
        differing = [each for each in Replay(shard).run(segments) if each.differs]
        assert not differing, differing[0]


def audit(run: Run) -> None:
    """Let ``paramserver check`` look at the run."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "paramserver", "check", str(run.out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "No such command" in done.stderr:
        return
    assert done.returncode == 0, done.stdout + done.stderr


def describe(folder: Path) -> str:
    """Return what a run has left that says how it went."""
    texts = [f"== {path.relative_to(folder)}\n{path.read_text()}" for path in sorted(folder.rglob("*.log"))]
    return "\n".join(texts)
