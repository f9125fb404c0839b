"""Mistakes that somebody could make in the core, each a small change of its source."""

from __future__ import annotations

import inspect
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass

from paramserver import consistency, membership, parking, roll, rounds, session, weights
from paramserver.coordinator import joining, presence, progress
from paramserver.shard import Shard, orders, pulls, pushes


@dataclass(frozen=True)
class Mutant:
    """One mistake: in this function this text, which is there once, becomes that."""

    name: str
    owner: object
    function: str
    old: str
    new: str

    @contextmanager
    def planted(self):
        """Make the mistake for a while.

        Raises:
            AssertionError: the text is not there, or more than once: the core has changed, so change this.
        """
        original = inspect.getattr_static(self.owner, self.function)
        source = textwrap.dedent(inspect.getsource(original))
        assert source.count(self.old) == 1, f"{self.name}: {self.function} has no single {self.old!r}"
        module = sys.modules[original.__module__]
        made: dict[str, object] = {}
        code = compile(
            f"from __future__ import annotations\n{source.replace(self.old, self.new)}", self.name, "exec"
        )
        exec(code, vars(module), made)
        setattr(self.owner, self.function, made[self.function])
        others = [(m, n) for m in _users(module) for n, each in list(vars(m).items()) if each is original]
        for user, name in others:
            setattr(user, name, made[self.function])
        try:
            yield
        finally:
            setattr(self.owner, self.function, original)
            for user, name in others:
                setattr(user, name, original)


def _users(module):
    core = (membership, parking, roll, rounds, session, weights, consistency)
    return [other for other in core if other is not module]


R, M = roll.Roll, membership.Membership

MUTANTS = [
    Mutant("a reader is let in one clock too early", consistency.Consistency, "needs",
           "return clock - self.bound if", "return clock - self.bound - 1 if"),
    Mutant("the fastest clock instead of the slowest", consistency.Clocks, "slowest", "min(", "max("),
    Mutant("a gradient on one shard makes a round", consistency, "round_members",
           "len(where) == shards", "len(where) >= 1"),
    Mutant("a wake-up is lost at the very bound", parking.ParkingLot, "wake",
           "need <= frontier", "need < frontier"),
    Mutant("nobody is woken when somebody leaves or dies", orders, "_change_membership",
           "else pulls.wake(state)", "else []"),
    Mutant("nobody is woken by a closed round", pushes, "close_round",
           "return pulls.wake(state)", "return []"),
    Mutant("those who came before the start are forgotten", pulls, "open_gates",
           "return wake(state)", "return []"),
    Mutant("a cancelled read is kept", Shard, "handle", "state.parked.remove(event.request)", "pass"),
    Mutant("a repeated push is not known again", pushes, "push", " or state.roll.repeated(event)", ""),
    Mutant("a repeated push is applied again", R, "repeated",
           "if not 0 <= push.sequence < self.clocks[rank]:",
           "self.clocks.advance(rank, min(push.sequence, self.clocks[rank]))\n"
           "    if not 0 <= push.sequence < self.clocks[rank]:"),
    Mutant("the sum instead of the mean", weights.Weights, "_mean", "return out", "return out * len(leaves)"),
    Mutant("a mean that is not weighted by samples", weights.Weights, "_mean",
           "(dense(leaf[0][part]), leaf[1])", "(dense(leaf[0][part]), 1)"),
    Mutant("gradients are summed in the order of arrival", pushes, "close_round",
           "[_leaf(pushes.get(rank)) for rank in range(max(pushes, default=-1) + 1)]",
           "[_leaf(each) for rank, each in state.round.items() if rank in pushes]"),
    Mutant("a round's gradients are kept for the next", pushes, "close_round", "state.round.clear()", "pass"),
    Mutant("an update does not count", weights.Weights, "_updated", "before.version + 1,", "before.version,"),
    Mutant("staleness is measured after the update", pushes, "push",
           "staleness=before - event.version", "staleness=before + 1 - event.version"),
    Mutant("one shard's version is said to every shard", session.Session, "push",
           "self.versions[shard]", "self.versions[0]"),
    Mutant("an answer is complete with one shard missing", session.PullExchange, "receive",
           "< len(self.requests)", "< len(self.requests) - 1"),
    Mutant("a round's verdict is lost", pulls, "_grant",
           "state.roll.verdict(rank, clock - 1)", "state.roll.verdict(rank, clock)"),
    Mutant("old incarnations are not fenced", R, "check",
           "if replica.incarnation < member.incarnation:", "if False:"),
    Mutant("the dead keep their incarnation", M, "expire", "member.fence()", "pass"),
    Mutant("the dead stay in the minimum", R, "change", "self.clocks.leave(member.rank)", "pass"),
    Mutant("the others wait for the dropped", M, "_stand",
           'standing is Standing.DEAD and self._job.on_death == "restart"', "standing is Standing.DEAD"),
    Mutant("a leaver's gradient is left out", rounds.Rounds, "close",
           "required += [leaver.rank for leaver in self._leavers.values()]", "pass"),
    Mutant("a contribution counts for the next round, too", rounds.Rounds, "close",
           "self._contributed.clear()", "pass"),
    Mutant("a refused gradient is in the round", rounds.Rounds, "close",
           "if rank not in self._refused", "if True"),
    Mutant("a restart begins at its furthest clock", joining, "note_announced",
           "max(clocks) if job.members.member(replica.rank).late else min(clocks)", "max(clocks)"),
    Mutant("a round is ordered twice", progress, "close_round",
           "effects.append(ev.Ordered(ev.RoundClosed(state.next_order(), closed.number, closed.ranks)))",
           "effects += [ev.Ordered(ev.RoundClosed(state.next_order(), closed.number, closed.ranks))] * 2"),
    Mutant("a death closes no round", presence, "expire",
           "return effects + progress.close_round(state, job, now) + progress.end_if_done(state, job)",
           "return effects + progress.end_if_done(state, job)"),
    Mutant("weights are sealed when one shard has them", progress, "note_staged",
           "if len(shards) < state.shards:", "if not shards:"),
]  # fmt: skip
