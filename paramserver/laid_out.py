"""Parts of epochs, laid out along a replica's clock: cut there, laid out anew, written down as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from paramserver.events import Dealt, Part


def before(dealt: Dealt, clock: int) -> Dealt:
    """Return what of a part lies before a clock."""
    batches = min(max(0, clock - dealt.clock), dealt.part.batches)
    return dealt._replace(part=dealt.part._replace(end=dealt.part.begin + batches))


def after(dealt: Dealt, clock: int) -> Dealt:
    """Return what of a part lies at a clock and after it."""
    batches = before(dealt, clock).part.batches
    return Dealt(dealt.clock + batches, dealt.part._replace(begin=dealt.part.begin + batches))


def between(dealt: Dealt, begin: int, end: int) -> Part:
    """Return what of a part lies from one clock to another."""
    return before(after(dealt, begin), end).part


def one(dealt: Dealt, clock: int) -> Part:
    """Return the one batch of a part that lies at a clock."""
    return between(dealt, clock, clock + 1)


def anew(laid: Sequence[Dealt], done: int, clock: int) -> list[Dealt]:
    """Return the same parts with all that is not done laid out anew, without gap.

    Args:
        laid: parts along a clock.
        done: the clock before which they are done.
        clock: from which all the others are laid out; not below ``done``.
    """
    again = [kept for dealt in laid if (kept := before(dealt, done)).part.batches]
    for dealt in laid:
        part = after(dealt, done).part
        if not part.batches:
            continue
        if again and _follows(again[-1], Dealt(clock, part)):
            again[-1] = again[-1]._replace(part=again[-1].part._replace(end=part.end))
        else:
            again.append(Dealt(clock, part))
        clock += part.batches
    return again


def _follows(one: Dealt, other: Dealt) -> bool:
    """Say whether two parts are one that was cut in two."""
    whole = one.part._replace(end=other.part.end) == other.part._replace(begin=one.part.begin)
    return whole and (one.end, one.part.end) == (other.clock, other.part.begin)


def runs(laid: Iterable[Dealt]) -> Iterator[tuple[int, ...]]:
    """Write down alike parts of epochs that follow each other as one row: (clock, *part, how many)."""
    run: Dealt | None = None
    times = 0
    for dealt in laid:
        if run is not None and dealt == _later(run, times):
            times += 1
            continue
        if run is not None:
            yield (run.clock, *run.part, times)
        run, times = dealt, 1
    if run is not None:
        yield (run.clock, *run.part, times)


def unrolled(clock: int, *row: int) -> Iterator[Dealt]:
    """Return the parts that a row of `runs` stands for."""
    *part, times = row
    return (_later(Dealt(clock, Part(*part)), number) for number in range(times))


def _later(dealt: Dealt, epochs: int) -> Dealt:
    part = dealt.part
    return Dealt(dealt.clock + epochs * part.batches, part._replace(epoch=part.epoch + epochs))
