"""What a virtual replica asks: each question until it is answered, again after a pause where nobody answers.

To the next editor: everything here is a reaction, to an answer or to a timer. A replica that has died, or has
begun anew, has another `life`, and what was meant for an earlier one is not for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from paramserver import events as ev
from paramserver.quantities import NANOSECONDS
from paramserver.sim.calls import Call
from paramserver.sim.servers import Servers

RETRY_SECONDS = (0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, *6 * (0.8,))
"""How long the client waits before it asks again after a lost message; after the last one it gives up."""

PATIENT_RETRY_SECONDS = 1.0
"""The same after all of those, where a server that is lost may come back."""


class Receiver(Protocol):
    """Whoever hears answers for a replica: its worker, once it is not paused."""

    index: int

    def receive(self, action: Callable[[Any], object], argument: Any) -> None:
        """Call an action, now or when the worker is not paused any more."""


class Asking:
    """The questions of one replica.

    Args:
        name: of the replica.
        home: its worker.
        servers: whom it asks.
        take: called with a call and an effect that answers it.
        read_again: called with how often a pull has been sent when it has to begin anew on every shard.
        give_up: called with a sentence when nobody has answered for too long.

    Attributes:
        life: the present one.
        calls: of the pull or push that is under way.
    """

    def __init__(
        self,
        name: str,
        home: Receiver,
        servers: Servers,
        take: Callable[[Call, Any], object],
        read_again: Callable[[int], object],
        give_up: Callable[[str], object],
    ) -> None:
        self.life = 0
        self.calls: list[Call] = []
        self._name, self._home, self._servers, self._heap = name, home, servers, servers.heap
        self._take, self._read_again, self._give_up = take, read_again, give_up

    def ask(self, shard: int, event: Any, size: int, answer: Callable[[Call, Any], object]) -> Call:
        """Ask a shard or the coordinator.

        Args:
            shard: its number, or ``COORDINATOR``.
            event: what to ask.
            size: bytes of tensors that go with it.
            answer: what is to be done with the call and an effect that answers it, in this life.
        """
        call = Call(self._home.index, shard, event, size, self._answered, self._unanswered, self.life, answer)
        self._servers.ask(call)
        return call

    def end_life(self) -> None:
        """Want no answer to anything that was asked so far."""
        self.life += 1
        self.calls = []

    def hang_up(self) -> None:
        """Let the servers notice that nobody waits any more for what is being read."""
        for call in self.calls:
            if isinstance(call.event, ev.PullReceived) and not call.done:
                self._servers.forget(call)

    def _answered(self, call: Call, effect: Any) -> None:
        self._home.receive(self._hear, (call, effect))

    def _hear(self, message: tuple[Call, Any]) -> None:
        call, effect = message
        if call.life != self.life or call.done:
            return
        if isinstance(effect, ev.Unavailable):
            self._ask_again(call)
            return
        call.done = not isinstance(effect, ev.PullParked)
        self._take(call, effect)

    def _unanswered(self, call: Call) -> None:
        """Ask again, as the client does, after a pause; a read begins anew on every shard."""
        if call.life != self.life or call.done:
            return
        if isinstance(call.event, ev.PullReceived):
            for other in self.calls:
                other.done = True
                self._servers.forget(other)
        self._ask_again(call)

    def _ask_again(self, call: Call) -> None:
        patience = self._servers.patience_seconds
        if isinstance(call.event, ev.JoinReceived) and call.event.job is not None:
            patience = max(patience, call.event.job.start_timeout_seconds)
        patient = math.ceil(max(0.0, patience - sum(RETRY_SECONDS)))
        if call.attempts >= len(RETRY_SECONDS) + patient / PATIENT_RETRY_SECONDS:
            self._give_up(f"The servers did not answer {self._name} in {call.attempts + 1} attempts.")
            return
        quick = call.attempts < len(RETRY_SECONDS)
        seconds = RETRY_SECONDS[call.attempts] if quick else PATIENT_RETRY_SECONDS
        call.attempts += 1
        self._heap.at(self._heap.now + round(seconds * NANOSECONDS), self._repeat, call)

    def _repeat(self, call: Call) -> None:
        self._home.receive(self._send_again, call)

    def _send_again(self, call: Call) -> None:
        if call.life != self.life:
            return
        if isinstance(call.event, ev.PullReceived):
            self._read_again(call.attempts)
        elif not call.done:
            self._servers.ask(call)
