"""A coordinator at which tests sit: what they tell it, and what comes of that."""

from dataclasses import replace

from paramserver import events as ev
from paramserver.coordinator import Coordinator

JOB = ev.JobSpec(
    (ev.TensorSpec("w", (4,)),),
    replicas=2,
    replicas_max=3,
    lease_seconds=10,
    step_timeout_seconds=60,
    start_timeout_seconds=100,
)


class Desk:
    """A coordinator of one server with two shards, which report at once unless told not to."""

    def __init__(self, job=JOB, prompt=True, recovers=False):
        self.coordinator = Coordinator(1, 2, recovers=recovers)
        self.job, self.prompt = job, prompt
        self.now, self.orders, self.requests = 0.0, [], 0
        self.tell(ev.ServerRegistered(0, "here:1", 2))

    def tell(self, event):
        """Return what came of it but the orders, which are kept, and the reports that followed."""
        effects = self.coordinator.handle(event, self.now)
        rest = [effect for effect in effects if not isinstance(effect, ev.Ordered)]
        for effect in effects:
            if isinstance(effect, ev.Ordered):
                self.orders.append(effect)
                if self.prompt:
                    rest += self.report(effect)
        return rest

    def report(self, ordered):
        shards = (0, 1) if ordered.shard is None else (ordered.shard,)
        order = ordered.order
        members = order.members if isinstance(order, ev.MembershipChanged) else ()
        rest = []
        if isinstance(order, ev.RoundClosed):
            return rest
        for shard in shards:
            clocks = {member.rank: 0 for member in members}
            rest += self.tell(ev.OrderHandled(shard, order.number, clocks))
        return rest

    def ask(self, kind, *what):
        self.requests += 1
        return self.tell(kind(self.requests, *what))

    def join(self, name, attempt="1", **changes):
        return self.ask(ev.JoinReceived, name, attempt, replace(self.job, **changes))

    def leave(self, rank, failure=""):
        return self.ask(ev.LeaveReceived, ev.Replica(rank, 1), ev.Counters(), failure)

    def start(self):
        for rank in range(self.job.replicas):
            self.join(f"worker{rank}")
        for shard in (0, 1):
            self.tell(ev.Staged(shard, "me"))

    def contribute(self, rank, round, refusal="", shards=(0, 1)):
        for shard in shards:
            self.tell(ev.Contributed(shard, round, rank, 1, refusal))

    def closed(self):
        return [e.order.ranks for e in self.orders if isinstance(e.order, ev.RoundClosed)]

    def ended(self):
        return [e.order.reason for e in self.orders if isinstance(e.order, ev.JobEnded)]


def only(effects, kind):
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]
