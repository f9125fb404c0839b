"""What a replica is dealt, as messages and back."""

from __future__ import annotations

from paramserver.errors import RequestError
from paramserver.events import Dealt, Part, PartAsked, PartGiven, Replica, Visits
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_replica, encode_replica
from paramserver.wire.numbers import whole


def encode_part_asked(replica: Replica, generation: int, clock: int) -> pb.PartRequest:
    """Return the message of a replica that asks what to do from a clock on."""
    return pb.PartRequest(replica=encode_replica(replica), generation=generation, clock=clock)


def decode_part_asked(message: pb.PartRequest, request: int) -> PartAsked:
    """Return its event.

    Raises:
        RequestError: a field is out of its range.
    """
    replica, generation = decode_replica(message.replica), whole(message.generation, "generation")
    return PartAsked(request, replica, generation, whole(message.clock, "clock"))


def encode_part_given(given: PartGiven) -> pb.PartReply:
    """Return the message of the answer."""
    reply = pb.PartReply(steps=given.steps, waits=given.waits, generation=given.generation)
    if given.dealt is not None:
        clock, part = given.dealt
        reply.clock = clock
        reply.part.CopyFrom(pb.Part(**part._asdict()))
    return reply


def decode_part_given(message: pb.PartReply) -> PartGiven:
    """Return the answer.

    Raises:
        RequestError: it is a part of nothing.
    """
    dealt = None
    if message.HasField("part"):
        part = message.part
        if not (0 <= part.place < part.places and 0 <= part.begin < part.end and part.epoch >= 0):
            raise RequestError(f"The coordinator has given a part that there cannot be: {part}.")
        dealt = Dealt(
            whole(message.clock, "clock"),
            Part(part.epoch, part.place, part.places, part.begin, part.end),
        )
    return PartGiven(0, dealt, whole(message.steps, "steps"), message.waits, message.generation)


def encode_visits(visits: Visits) -> pb.Visits:
    """Return the message of what became of an epoch's samples."""
    return pb.Visits(
        epoch=visits.epoch,
        samples=visits.samples,
        seen=visits.seen,
        refused=visits.refused,
        repeated=visits.repeated,
    )


def decode_visits(message: pb.Visits) -> Visits:
    """Return what became of an epoch's samples."""
    return Visits(message.epoch, message.samples, message.seen, message.refused, message.repeated)
