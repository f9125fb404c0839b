"""One owner of some rows of some tensors: weights, optimizer state, clocks, waiting pulls.

To the next editor: this is a state machine with one door, `Shard.handle`. It never waits; a pull that must
wait is parked as data and answered by the event that moves the frontier. It is deterministic: the same events
give the same effects and the same bytes, on any clock, which is what replay and simulation stand on. A
request that is refused has changed nothing.

``machine`` has the door. ``state`` is all that a shard holds; each other module is one subject, as functions
that take the state and what has come, change the state and return effects. Each calls only those before it:
``pulls`` (who may read, who waits, who is woken), ``pushes`` (from a gradient to an update), ``orders`` (what
the coordinator decides). ``records`` is what a shard is, to be written down and to go on from.
"""

from paramserver.shard.machine import Shard

__all__ = ["Shard"]
