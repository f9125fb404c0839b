"""The pulls and pushes of a virtual replica, one after the other, over all shards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from paramserver import events as ev
from paramserver.errors import JobError
from paramserver.session import Pulled, PullExchange, PushExchange, Session
from paramserver.sim.asking import Asking
from paramserver.sim.calls import Call
from paramserver.sim.diary import Diary
from paramserver.sim.servers import Servers
from paramserver.sim.toll import Toll
from paramserver.tally import Tally
from paramserver.training import Pull, Push


class Exchanges:
    """What one replica reads and sends.

    Args:
        asking: asks for it.
        servers: whom.
        diary: where the replica writes down what happens.
        toll: what its own work costs.
        pulled: called with what a pull has brought, and its clock.
        pushed: called with what has become of a push.
        failed: called with a sentence where the shards contradict each other.

    Attributes:
        session: of the present life; set by the replica.
        tally: its counts; set by the replica.
    """

    session: Session

    def __init__(
        self,
        asking: Asking,
        servers: Servers,
        diary: Diary,
        toll: Toll,
        pulled: Callable[[Pulled, int], object],
        pushed: Callable[[ev.Verdict], object],
        failed: Callable[[str], object],
    ) -> None:
        self.tally = Tally(servers.now)
        self._asking, self._servers, self._heap = asking, servers, servers.heap
        self._diary, self._toll = diary, toll
        self._on_pulled, self._on_pushed, self._on_failed = pulled, pushed, failed
        self._received = 0
        self._loss = math.nan

    # --------------------------------------------------------------------------------------------- reading

    def pull(self, pull: Pull, attempts: int = 0) -> None:
        """Read the weights; ``attempts`` says how often that has been tried."""
        self._wish = pull
        self._diary.pull(self._heap.now, pull.clock, attempts)
        self.tally.enter(ev.Phase.PULL, self._servers.now)
        exchange = self._pull = self.session.pull(pull.clock, pull.rows)
        self._asking.calls, self._received = [], 0
        named = {
            shard: sum(indices.nbytes for indices in request.rows.values())
            for shard, request in exchange.requests.items()
        }
        read = (self._asking.life, exchange, named, attempts)
        self._toll.half(len(named), sum(named.values()), self._send_pull, read)

    def read_again(self, attempts: int) -> None:
        """Begin the present read anew."""
        self.pull(self._wish, attempts)

    def _send_pull(self, pull: tuple[int, PullExchange, Mapping[int, int], int]) -> None:
        life, exchange, named, attempts = pull
        if life != self._asking.life:
            return
        for shard, request in exchange.requests.items():
            call = self._asking.ask(shard, request, named[shard], self._granted)
            call.attempts = attempts
            self._asking.calls.append(call)

    def _granted(self, call: Call, effect: ev.PullParked | ev.PullGranted) -> None:
        tally, shard = self.tally, self._servers.shards[call.shard]
        if isinstance(effect, ev.PullParked):
            if tally.phase is not ev.Phase.WAIT:
                self._diary.park(self._heap.now)
                tally.enter(ev.Phase.WAIT, self._servers.now)
            return
        exchange = self._pull
        for part, value in effect.values().items():
            exchange.destination(part)[...] = value
        self._received += shard.weigh(effect.values()) if effect.rows else shard.size
        try:
            pulled = exchange.receive(call.shard, effect)
        except JobError as error:
            self._on_failed(str(error))
            return
        if pulled is None:
            return
        self._diary.granted(self._heap.now)
        taken = (self._asking.life, pulled, call)
        if self._toll.is_free:
            self._take_pulled(taken)
        else:
            tally.enter(ev.Phase.PULL, self._servers.now)
            self._toll.half(len(self._asking.calls), self._received, self._take_pulled, taken)

    def _take_pulled(self, taken: tuple[int, Pulled, Call]) -> None:
        life, pulled, call = taken
        if life == self._asking.life:
            self._diary.pulled(self._heap.now, pulled, self._asking.calls, call)
            self.tally.pulled(pulled.clock_gap, pulled.verdict)
            self._on_pulled(pulled, call.event.clock)

    # --------------------------------------------------------------------------------------------- sending

    def push(self, push: Push) -> None:
        """Send a gradient."""
        self._diary.push(self._heap.now, push.clock)
        self.tally.computed(push.samples, push.loss, push.clock)
        self.tally.enter(ev.Phase.PUSH, self._servers.now)
        self._loss = push.loss
        exchange = self._push = self.session.push(push.clock, push.gradients, push.samples)
        shards = self._servers.shards
        sizes = {
            shard: shards[shard].weigh(request.gradients) for shard, request in exchange.requests.items()
        }
        self._asking.calls = []
        sent = (self._asking.life, exchange, sizes)
        self._toll.half(len(sizes), sum(sizes.values()), self._send_push, sent)

    def _send_push(self, push: tuple[int, PushExchange, Mapping[int, int]]) -> None:
        life, exchange, sizes = push
        if life == self._asking.life:
            self._asking.calls = [
                self._asking.ask(shard, request, sizes[shard], self._pushed)
                for shard, request in exchange.requests.items()
            ]

    def _pushed(self, call: Call, effect: ev.PushAnswered) -> None:
        verdict = self._push.receive(call.shard, effect.verdict)
        if verdict is not None:
            taken = (self._asking.life, call, verdict)
            self._toll.half(len(self._asking.calls), 0, self._take_verdict, taken)

    def _take_verdict(self, taken: tuple[int, Call, ev.Verdict]) -> None:
        life, call, verdict = taken
        if life != self._asking.life:
            return
        self.tally.decided(verdict)
        self.tally.enter(ev.Phase.IDLE, self._servers.now)
        push, now = call.event, self._heap.now
        self._diary.pushed(now, push.replica, push.sequence, verdict, self._loss, self._asking.calls)
        self._on_pushed(verdict)
