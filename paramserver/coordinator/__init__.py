"""The one place that gives ranks, seals the first weights, closes rounds and ends the job.

To the next editor: like a shard, this is a state machine with one door, `Coordinator.handle`. What concerns
every shard leaves as a numbered order, and all shards handle all orders in that order; so a death in the
middle of a round is decided once, here. A join is answered when every shard has handled the order that
announces it: after that, no shard can meet an unknown replica.

``machine`` has the door. ``state`` is all that is known; each other module is one subject, as functions that
take the state and what has come, change the state and return effects. Each calls only those before it:
``joining`` (who comes, and what it does), ``progress`` (first weights, rounds, checkpoints, the end),
``presence`` (who leaves, lives or dies), ``recovering`` (servers that are lost and come back), ``reports``
(what shards have to say). ``records`` is what is written down, to go on from.
"""

from paramserver.coordinator.machine import Coordinator
from paramserver.coordinator.state import SCORES_MAX

__all__ = ["SCORES_MAX", "Coordinator"]
