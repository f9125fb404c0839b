"""What the coordinator decides: who counts, which rounds and cuts are made, generations, the end."""

from __future__ import annotations

from paramserver import events as ev
from paramserver.errors import RequestError
from paramserver.roll import Roll
from paramserver.shard import pulls, pushes, records
from paramserver.shard.state import Effects, ShardState


def obey(state: ShardState, order: ev.Order) -> Effects:
    """Handle an order, the next one, and report that it has been handled."""
    # A job may fail while a server is lost, so its end may come to a shard that has missed orders.
    failed = isinstance(order, ev.JobEnded) and order.reason
    if order.number != state.orders + 1 and not failed:
        raise AssertionError(f"Order {order.number} came to shard {state.index} after {state.orders}.")
    state.orders = order.number
    clocks: dict[int, int] = {}
    effects: Effects = []
    match order:
        case ev.JobAnnounced():
            state.announce(order.job, order.slices)
        case ev.MembershipChanged():
            effects = _change_membership(state, order)
            clocks = {member.rank: state.roll.clocks[member.rank] for member in order.members}
        case ev.Sealed():
            state.weights.seal(order.initialiser)
            effects = pulls.open_gates(state)
        case ev.RoundClosed():
            return pushes.close_round(state, order)
        case ev.CutOrdered():
            effects = [ev.CutMade(order.checkpoint, records.cut(state))]
        case ev.JobEnded():
            state.ended = order.reason
            effects = [ev.Ended(parked.pull.request, order.reason) for parked in state.parked.empty()]
    return [*effects, ev.Reported(ev.OrderHandled(state.index, order.number, clocks))]


def begin_generation(state: ShardState, order: ev.GenerationBegun) -> Effects:
    """Become what the shard was at a checkpoint, or at first; whoever waits here has to begin anew."""
    cut = order.cut
    if cut is None and order.checkpoint is not None:
        raise AssertionError(f"Generation {order.generation} came to shard {state.index} without its cut.")
    waiting = state.parked.empty()
    state.orders, state.ended = order.number, None
    state.started, state.expected = order.started, order.expected
    state.round.clear()
    state.announce(order.job, order.slices)
    weights, rule = state.weights, state.rule
    clocks: dict[int, int] = {}
    verdicts: dict[int, tuple[int, ev.Verdict]] = {}
    if cut is not None:
        weights.restore(cut)
        clocks, verdicts = dict(cut.clocks), dict(cut.verdicts)
    if rule.gathers:  # the open round is gathered anew
        clocks = {rank: min(clock, weights.rounds) for rank, clock in clocks.items()}
        verdicts = {rank: last for rank, last in verdicts.items() if last[0] < weights.rounds}
    state.roll = Roll(state.index, order.generation)
    # Who had not joined yet when the cut was made begins with the others, and in rounds who was away.
    begins = weights.rounds if rule.gathers else min(clocks.values(), default=0)
    clocks = {
        member.rank: begins if rule.gathers and member.live else clocks.get(member.rank, begins)
        for member in order.members
    }
    state.roll.restore(clocks, verdicts, order.members)
    effects: Effects = []
    for parked in waiting:
        fenced = state.roll.check(parked.replica, parked.pull.generation)
        assert fenced is not None, "every earlier generation is void"
        request = parked.pull.request
        effects.append(ev.PullFenced(request, fenced.generation, fenced.clock, fenced.reason))
    here = {member.rank: state.roll.clocks[member.rank] for member in order.members}
    return [*effects, ev.Reported(ev.OrderHandled(state.index, order.number, here))]


def _change_membership(state: ShardState, order: ev.MembershipChanged) -> Effects:
    begins = state.rule.begins(state.weights.rounds, state.roll.clocks.slowest())
    state.roll.change(order.members, begins)
    just_started = order.started and not state.started
    state.started, state.expected = order.started, order.expected
    effects = _fence_parked(state, {member.rank for member in order.members})
    return effects + (pulls.open_gates(state) if just_started else pulls.wake(state))


def _fence_parked(state: ShardState, ranks: set[int]) -> Effects:
    """Answer the parked pulls of replicas that an order has made to count no more."""
    effects: Effects = []
    for parked in state.parked:
        if parked.replica.rank not in ranks:
            continue
        request = parked.pull.request
        try:
            fenced = state.roll.check(parked.replica, parked.pull.generation)
        except RequestError as error:
            state.parked.remove(request)
            effects.append(ev.Refused.of(request, error))
            continue
        if fenced:
            state.parked.remove(request)
            effects.append(ev.PullFenced(request, fenced.generation, fenced.clock, fenced.reason))
    return effects
