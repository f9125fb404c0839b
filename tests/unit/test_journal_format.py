"""Frames, records and segments: what was written comes back, and what is torn or changed is seen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver import events as ev
from paramserver.errors import Fault, RequestError
from paramserver.rows import RowGradient
from paramserver.storage.journal import (
    MAGIC,
    FrameDigest,
    Header,
    SegmentWriter,
    decode,
    encode,
    is_recorded,
    journal_folder,
    light,
    read_frames,
    read_journal,
    read_segment,
    segment_numbers,
    segment_path,
)

PART, TABLE = ev.Slice("w", 0, 2, 1), ev.Slice("table", 3, 8, 1)
PLACES = {PART: 0, TABLE: 1}
SPECS = (ev.TensorSpec("table", (8, 2), table=True), ev.TensorSpec("w", (4, 3)))
JOB = ev.JobSpec(SPECS, replicas=2, replicas_max=2, shares=(3, 4))
WHOLE = st.integers(0, 2**62)
RANKS = st.integers(0, 2**31 - 1)
REPLICAS = st.builds(ev.Replica, RANKS, RANKS)
VERDICTS = st.builds(
    ev.Verdict,
    st.sampled_from(ev.Outcome),
    WHOLE,
    WHOLE,
    st.integers(-1, 2**62),
    RANKS,
    RANKS,
    st.text(max_size=20),
    st.booleans(),
    WHOLE,
    WHOLE,
)
EFFECTS = st.one_of(
    st.builds(ev.PushAnswered, WHOLE, VERDICTS),
    st.builds(
        lambda request, version, rounds, gap, verdict: ev.PullGranted(
            request, ev.Snapshot(version, rounds, {}), gap, verdict
        ),
        WHOLE,
        WHOLE,
        WHOLE,
        st.integers(-(2**62), 2**62),
        st.none() | VERDICTS,
    ),
    st.builds(lambda request: ev.PullParked(request, ((1, 2),), "ssp:1", 3.5, 4), WHOLE),
    st.builds(ev.PullFenced, WHOLE, WHOLE, WHOLE, st.text(max_size=20)),
    st.builds(ev.Refused, WHOLE, st.text(max_size=20), st.sampled_from(Fault)),
    st.builds(ev.Ended, WHOLE, st.text(max_size=20)),
    st.builds(ev.InitialiseAnswered, WHOLE, st.booleans()),
    st.just(ev.Reported(ev.Staged(1, "a"))),
)
MEMBERS = st.lists(st.builds(ev.Member, RANKS, RANKS, st.booleans(), st.booleans()), max_size=3).map(tuple)
ORDERS = st.one_of(
    st.just(ev.JobAnnounced(1, JOB, (PART, TABLE))),
    st.builds(ev.MembershipChanged, WHOLE, MEMBERS, st.booleans(), RANKS),
    st.builds(ev.Sealed, WHOLE, st.text(max_size=20)),
    st.builds(ev.RoundClosed, WHOLE, WHOLE, st.lists(RANKS, max_size=3).map(tuple)),
    st.builds(ev.JobEnded, WHOLE, st.text(max_size=20)),
    st.builds(ev.CutOrdered, WHOLE, WHOLE),
    st.builds(
        lambda number, members, cut: ev.GenerationBegun(
            number, 2, JOB, (PART, TABLE), members, True, 2, 5, cut
        ),
        WHOLE,
        MEMBERS,
        st.none() | st.builds(lambda v: ev.Cut(1, ev.Snapshot(v, 3, {}), {}, {0: 4}, {0: (3, V)}), WHOLE),
    ),
)
V = ev.Verdict(ev.Outcome.APPLIED, 12, 3)


def floats(shape):
    return st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    )


def row_gradients():
    rows = st.lists(st.integers(0, 4), unique=True, max_size=4).map(sorted)
    return rows.flatmap(
        lambda found: floats((len(found), 2)).map(
            lambda values: RowGradient(np.array(found, np.int64), values, (5, 2))
        )
    )


PUSHES = st.builds(
    ev.PushReceived,
    WHOLE,
    REPLICAS,
    WHOLE,
    WHOLE,
    WHOLE,
    WHOLE,
    st.just({}) | st.fixed_dictionaries({PART: floats((2, 3)), TABLE: row_gradients() | floats((5, 2))}),
    st.text(max_size=20),
)
EVENTS = st.one_of(
    PUSHES,
    st.builds(lambda n, r, g, c: ev.PullReceived(n, r, g, c), WHOLE, REPLICAS, WHOLE, WHOLE),
    st.builds(ev.PullCancelled, WHOLE),
    st.builds(
        ev.InitialiseReceived,
        WHOLE,
        st.text(max_size=20),
        st.fixed_dictionaries({PART: floats((2, 3)), TABLE: floats((5, 2))}),
    ),
    ORDERS,
)


def plain(event):
    """Return an event with its arrays as bytes, which can be compared."""
    for name in ("gradients", "values"):
        if hasattr(event, name):
            return replace(
                event, **{name: {part: shown(each) for part, each in getattr(event, name).items()}}
            )
    return event


def shown(tensor):
    if isinstance(tensor, RowGradient):
        return (tensor.indices.tolist(), tensor.rows.tobytes(), tensor.shape)
    return (tensor.tobytes(), tensor.shape)


def written(event, effects=(), full=True, now=1.5):
    kind, pieces = encode(now, event, effects, PLACES, full=full)
    return decode(kind, memoryview(b"".join(pieces)), tuple(PLACES))


@given(EVENTS, st.lists(EFFECTS, max_size=4), st.floats(0, 1e12))
def test_a_full_record_comes_back(event, effects, now):
    found = written(event, effects, now=now)
    assert plain(found.event) == plain(event)
    assert found.now == now
    assert list(found.effects) == [each for each in map(light, effects) if each is not None]


@given(EVENTS)
def test_a_light_record_is_the_same_without_tensors(event):
    found = written(event, full=False).event
    for name in ("gradients", "values"):
        if hasattr(event, name):
            event = replace(event, **{name: {}})
    assert found == event


def test_what_changes_nothing_is_not_recorded():
    assert not is_recorded(ev.PullReceived(1, None))
    assert not is_recorded(ev.WaitAsked(1))
    assert not is_recorded(ev.CutAsked(1))
    assert is_recorded(ev.PullReceived(1, ev.Replica(0, 1)))
    assert is_recorded(ev.CutOrdered(4, 1))


# -------------------------------------------------------------------------------------------------- frames

PAYLOADS = [b"", b"first", b"x" * 300, bytes(range(256))]


def frames_of(payloads):
    digest, data = FrameDigest(), MAGIC
    ends = [len(data)]
    for kind, payload in enumerate(payloads, 1):
        data += digest.frame(kind, [payload[:3], payload[3:]]) + payload
        ends.append(len(data))
    return data, ends, digest.digest()


def test_frames_come_back():
    data, _, digest = frames_of(PAYLOADS)
    found = read_frames(data)
    assert [(frame.kind, bytes(frame.payload)) for frame in found.frames] == [*enumerate(PAYLOADS, 1)]
    assert (found.sound_bytes, found.digest, found.torn) == (len(data), digest, "")


def test_a_file_that_is_cut_off_anywhere_ends_with_its_last_whole_frame():
    data, ends, _ = frames_of(PAYLOADS)
    for length in range(len(data)):
        found = read_frames(data[:length])
        whole = [end for end in ends if end <= length]
        assert len(found.frames) == max(len(whole) - 1, 0)
        assert found.sound_bytes == (whole[-1] if whole else 0)
        assert bool(found.torn) == (length not in ends)


def test_any_flipped_bit_is_noticed():
    data, ends, _ = frames_of(PAYLOADS)
    for byte in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[byte] ^= 1 << bit
            found = read_frames(bytes(changed))
            before = sum(end <= byte for end in ends[1:]) if byte >= ends[0] else 0
            assert len(found.frames) == before
            assert found.torn


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=60))
def test_whatever_follows_the_frames_never_becomes_one(payloads, rest):
    data, _, _ = frames_of(payloads)
    found = read_frames(data + rest)
    assert [bytes(frame.payload) for frame in found.frames] == payloads
    assert bool(found.torn) == bool(rest)


# ------------------------------------------------------------------------------------------------ segments

PUSH = ev.PushReceived(
    3, ev.Replica(1, 1), 0, 5, 4, 32, {PART: np.float32(np.ones((2, 3))), TABLE: np.zeros((5, 2), np.float32)}
)
RECORD = ev.ShardRecord(
    JOB, (PART, TABLE), 1, 9, True, 2, None, 4, 4, (ev.Member(0, 1), ev.Member(1, 2, False, True)),
    {0: 4, 1: 6}, {0: 1}, {1: (5, V)}, (PUSH,), ((ev.PullReceived(8, ev.Replica(0, 1), 0, 5), 2.5),),
    {"applied": 4}, {0: 3, 2: 1},
)  # fmt: skip


def header(full=True, checkpoint=None):
    return Header(1, 0, full, True, checkpoint, RECORD, JOB.fingerprint())


def frame(number, full=True):
    return encode(float(number), replace(PUSH, sequence=number), (), PLACES, full=full)


def write(run, segments, full=True, bytes_max=1 << 20, records=3):
    writer = SegmentWriter(run, 1, bytes_max)
    for _ in range(segments):
        writer.begin(header(full), PLACES)
        writer.write(frame(number, full) for number in range(records))
        writer.sync()
    writer.close()
    return journal_folder(run, 1)


def test_a_segment_comes_back_with_what_the_shard_was(tmp_path):
    folder = write(tmp_path, 1)
    (found,) = read_journal(folder)
    record = found.header.record
    assert replace(record, gathered=()) == replace(RECORD, gathered=())
    assert [plain(push) for push in record.gathered] == [plain(PUSH)]
    assert [each.event.sequence for each in found.records] == [0, 1, 2]
    assert found.torn == ""


def test_segments_link_up_also_over_processes(tmp_path):
    write(tmp_path, 2)
    found = read_journal(write(tmp_path, 2))
    assert [each.header.segment for each in found] == [0, 1, 2, 3]
    assert [each.header.previous for each in found] == ["", *(each.digest for each in found[:-1])]


def test_a_torn_tail_is_cut_off_and_said_wherever_it_is(tmp_path):
    whole = segment_path(write(tmp_path / "whole", 1), 0).read_bytes()
    for lost in range(1, 120):
        run = tmp_path / f"{lost}"
        journal_folder(run, 1).mkdir(parents=True)
        segment_path(journal_folder(run, 1), 0).write_bytes(whole[:-lost])
        before = read_segment(segment_path(journal_folder(run, 1), 0))
        assert before.torn
        first, second = read_journal(write(run, 1))
        assert first.torn == ""
        assert [each.event.sequence for each in first.records] == [0, 1]
        assert second.header.torn == len(whole) - lost - before.sound_bytes


def test_a_segment_torn_in_its_header_never_was(tmp_path):
    folder = write(tmp_path, 2)
    segment_path(folder, 1).write_bytes(segment_path(folder, 1).read_bytes()[:60])
    found = read_journal(write(tmp_path, 1))
    assert [each.header.segment for each in found] == [0, 1]
    assert found[1].header.torn == 60


@pytest.mark.parametrize("what", ["missing", "cut", "other"])
def test_segments_that_do_not_link_up_are_refused(tmp_path, what):
    folder = write(tmp_path, 3)
    path = segment_path(folder, 1)
    if what == "missing":
        path.unlink()
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.write_bytes(segment_path(write(tmp_path / "other", 2, records=4), 1).read_bytes())
    words = {"missing": "a segment is missing", "cut": "changed or cut off", "other": "does not follow"}
    with pytest.raises(RequestError, match=words[what]):
        read_journal(folder)


def test_a_light_journal_keeps_its_newest_segments(tmp_path):
    size = segment_path(write(tmp_path / "one", 1, full=False), 0).stat().st_size
    folder = write(tmp_path, 7, full=False, bytes_max=int(3.5 * size), records=3)
    assert segment_numbers(folder)[-1] == 6
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4.5 * size
    assert read_journal(folder)


def test_a_full_journal_keeps_what_a_kept_checkpoint_needs(tmp_path):
    writer = SegmentWriter(tmp_path, 1, 0)
    for checkpoint in (None, 0, 1, 2, 3):
        if checkpoint == 3:
            kept = tmp_path / "checkpoints" / "000002"
            kept.mkdir(parents=True)
            (kept / "manifest.json").write_text("{}")
        writer.begin(header(True, checkpoint), PLACES)
        writer.sync()
    writer.close()
    found = read_journal(journal_folder(tmp_path, 1))
    assert [each.header.checkpoint for each in found] == [2, 3]
