"""Orders and reports on the link between servers."""

from __future__ import annotations

from collections.abc import Iterable

from paramserver.errors import RequestError
from paramserver.events import (
    CaughtUp,
    Contributed,
    CutOrdered,
    GenerationBegun,
    JobAnnounced,
    JobEnded,
    Member,
    MembershipChanged,
    Order,
    OrderHandled,
    Report,
    RoundClosed,
    Sealed,
    Staged,
)
from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire.jobs import decode_job, decode_slices, encode_job, encode_slices
from paramserver.wire.numbers import whole

NO_CHECKPOINT = -1
"""What a generation that begins anew says in place of a checkpoint's number."""


def encode_report(report: Report) -> pb.LinkUp:
    """Return the message of a shard's report."""
    match report:
        case OrderHandled():
            handled = pb.OrderHandled(shard=report.shard, number=report.number, clocks=report.clocks)
            return pb.LinkUp(handled=handled)
        case CaughtUp():
            caught_up = pb.CaughtUp(shard=report.shard, number=report.number, clocks=report.clocks)
            return pb.LinkUp(caught_up=caught_up)
        case Staged():
            return pb.LinkUp(staged=pb.Staged(shard=report.shard, initialiser=report.initialiser))
        case Contributed():
            return pb.LinkUp(
                contributed=pb.Contributed(
                    shard=report.shard,
                    round=report.round,
                    rank=report.rank,
                    samples=report.samples,
                    refusal=report.refusal,
                )
            )


def decode_report(message: pb.LinkUp) -> Report | None:
    """Return a shard's report; None for messages of the link that are no reports.

    Raises:
        RequestError: a field is out of its range.
    """
    part = message.WhichOneof("part")
    if part == "handled":
        handled = message.handled
        return OrderHandled(handled.shard, whole(handled.number, "number", 1), dict(handled.clocks))
    if part == "caught_up":
        there = message.caught_up
        return CaughtUp(there.shard, whole(there.number, "number"), dict(there.clocks))
    if part == "staged":
        return Staged(message.staged.shard, message.staged.initialiser)
    if part == "contributed":
        gradient = message.contributed
        return Contributed(
            gradient.shard,
            whole(gradient.round, "round"),
            whole(gradient.rank, "rank"),
            whole(gradient.samples, "samples"),
            gradient.refusal,
        )
    return None


def encode_order(order: Order, shard: int) -> pb.LinkDown:
    """Return the message of an order to one shard."""
    message = pb.LinkDown(number=order.number, shard=shard)
    match order:
        case JobAnnounced():
            message.job_announced.CopyFrom(
                pb.JobAnnounced(job=encode_job(order.job), slices=encode_slices(order.slices))
            )
        case MembershipChanged():
            message.membership_changed.CopyFrom(
                pb.MembershipChanged(
                    members=_encode_members(order.members), started=order.started, expected=order.expected
                )
            )
        case Sealed():
            message.sealed.CopyFrom(pb.Sealed(initialiser=order.initialiser))
        case RoundClosed():
            message.round_closed.CopyFrom(pb.RoundClosed(round=order.round, ranks=order.ranks))
        case JobEnded():
            message.job_ended.CopyFrom(pb.JobEnded(reason=order.reason))
        case CutOrdered():
            message.cut_ordered.CopyFrom(pb.CutOrdered(checkpoint=order.checkpoint))
        case GenerationBegun():
            message.generation_begun.CopyFrom(
                pb.GenerationBegun(
                    generation=order.generation,
                    job=encode_job(order.job),
                    slices=encode_slices(order.slices),
                    members=_encode_members(order.members),
                    started=order.started,
                    expected=order.expected,
                    checkpoint=NO_CHECKPOINT if order.checkpoint is None else order.checkpoint,
                )
            )
    return message


def decode_order(message: pb.LinkDown) -> Order:
    """Return the order of a message.

    Raises:
        RequestError: it is none that this release knows.
    """
    number, order = message.number, message.WhichOneof("order")
    if order == "job_announced":
        announced = message.job_announced
        return JobAnnounced(number, decode_job(announced.job), decode_slices(announced.slices))
    if order == "membership_changed":
        changed = message.membership_changed
        members = _decode_members(changed.members)
        return MembershipChanged(number, members, changed.started, changed.expected)
    if order == "sealed":
        return Sealed(number, message.sealed.initialiser)
    if order == "round_closed":
        return RoundClosed(number, message.round_closed.round, tuple(message.round_closed.ranks))
    if order == "job_ended":
        return JobEnded(number, message.job_ended.reason)
    if order == "cut_ordered":
        return CutOrdered(number, whole(message.cut_ordered.checkpoint, "checkpoint"))
    if order == "generation_begun":
        begun = message.generation_begun
        checkpoint = whole(begun.checkpoint, "checkpoint", NO_CHECKPOINT)
        return GenerationBegun(
            number,
            whole(begun.generation, "generation", 1),
            decode_job(begun.job),
            decode_slices(begun.slices),
            _decode_members(begun.members),
            begun.started,
            begun.expected,
            None if checkpoint == NO_CHECKPOINT else checkpoint,
        )
    raise RequestError(
        f"Order {number} is of a kind that this release does not know. Install the same release of "
        "paramserver on all servers."
    )


def _encode_members(members: Iterable[Member]) -> list[pb.Member]:
    return [
        pb.Member(rank=member.rank, incarnation=member.incarnation, live=member.live, late=member.late)
        for member in members
    ]


def _decode_members(members: Iterable[pb.Member]) -> tuple[Member, ...]:
    return tuple(Member(member.rank, member.incarnation, member.live, member.late) for member in members)
