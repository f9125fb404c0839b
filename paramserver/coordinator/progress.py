"""How the job goes on: first weights, rounds, checkpoints, and its end."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.coordinator import joining
from paramserver.coordinator.state import CoordinatorState, Effects, JobState


def note_staged(state: CoordinatorState, job: JobState, report: ev.Staged, now: float) -> Effects:
    """Seal the first weights that every shard has."""
    if job.sealed or state.ended is not None:
        return []
    shards = job.staged.setdefault(report.initialiser, set())
    shards.add(report.shard)
    if len(shards) < state.shards:
        return []
    job.sealed = state.has_news = True
    job.staged.clear()
    sealed = ev.Ordered(ev.Sealed(state.next_order(), report.initialiser))
    return [sealed, *_cut(state, job, now), *close_round(state, job, now)]


def close_round(state: CoordinatorState, job: JobState, now: float) -> Effects:
    """Close the open round if all who are in it have contributed, on every shard."""
    if not job.members.started or not job.sealed or state.ended is not None:
        return []
    if job.recovery.is_interrupted:
        return []
    if job.rounds.surely_lacks(job.members.required_count):
        return []
    closed = job.rounds.close(job.members.required())
    if closed is None:
        return []
    effects: Effects = [ev.Noted(closed.remark)] if closed.remark else []
    effects.append(ev.Ordered(ev.RoundClosed(state.next_order(), closed.number, closed.ranks)))
    return effects + cut_if_due(state, job, now)


def cut_if_due(state: CoordinatorState, job: JobState, now: float) -> Effects:
    """Begin another checkpoint if it is time."""
    due = job.sealed and state.ended is None and job.recovery.is_due(now, job.updates)
    return _cut(state, job, now) if due else []


def _cut(state: CoordinatorState, job: JobState, now: float) -> Effects:
    if not state.recovers:
        return []
    number = state.next_order()
    return [ev.Ordered(ev.CutOrdered(number, job.recovery.cut(now, job.updates)))]


def keep_checkpoint(state: CoordinatorState, event: ev.CheckpointKept) -> Effects:
    """Note that a checkpoint is whole, from which the job can go on."""
    if event.kept is None:
        state.is_final_kept = state.has_news = True
        return []
    state.has_news = state.known_job().recovery.keep(event.kept)
    if state.has_news:
        state.log.trim(event.kept.checkpoint)
        state.trouble = ""
    return []


def miss_checkpoint(state: CoordinatorState, event: ev.CheckpointFailed) -> Effects:
    """Note that a checkpoint could not be kept; later another one is tried, unless it was the last."""
    if event.checkpoint is None:
        state.ended = state.ended or event.reason
        return []
    if not state.known_job().recovery.fail(event.checkpoint):
        return []
    failed = f"Checkpoint {event.checkpoint} could not be kept. {event.reason}"
    state.trouble = f"{failed} The training goes on, and tries again with the next one."
    return [ev.Noted(failed)]


def take_score(state: CoordinatorState, event: ev.ScoreReceived) -> Effects:
    """Note how good some weights are; end the job, well, where they reach what it was to reach."""
    score = event.score
    state.scores.append(score)
    state.has_news |= score.split == "test"  # who sends it may be gone once it is answered
    effects: Effects = [ev.Acknowledged(event.request)]
    target = state.job.spec.target_accuracy if state.job is not None else 0.0
    if not target or score.split != "validation" or score.accuracy < target or state.ended is not None:
        return effects
    reached = f"At version {score.version} the validation accuracy is {score.accuracy:.4f}"
    return [*effects, ev.Noted(f"{reached}, which reaches the target {target:g}."), *state.end("")]


def end_if_done(state: CoordinatorState, job: JobState) -> Effects:
    """End the job if nobody is left who could do another step; who waits to come in is let in before."""
    if not job.members.finished() or job.rounds.waits_for_leavers or state.ended is not None:
        return []
    if job.recovery.is_interrupted or job.dealing.goes_on:
        return []
    if entering := joining.admit(state, job):
        return entering
    dropped = job.members.dropped()
    if dropped and len(dropped) == len(job.members):
        return state.end("Every replica is dead.")
    if left := job.dealing.epochs.left:
        return state.end(
            f"Every replica has left, and {left} of {job.spec.epochs} epochs have not been begun."
        )
    return state.end("")
