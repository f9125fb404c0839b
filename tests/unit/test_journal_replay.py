"""A journal done again: the same answers, and from the full form the same weights; a lie is seen."""

from dataclasses import replace

import numpy as np
import pytest
from cluster import Cluster
from test_journal_format import plain

from paramserver import events as ev
from paramserver.session import PullExchange, Session
from paramserver.shard import Shard
from paramserver.storage.journal import (
    Header,
    Replay,
    Replayed,
    Seam,
    SegmentWriter,
    encode,
    is_recorded,
    journal_folder,
    read_journal,
)

SPECS = (ev.TensorSpec("bias", (3,)), ev.TensorSpec("w", (5, 2)))


class Noted(Shard):
    """A shard that writes its journal, a segment from each cut on."""

    def __init__(self, index, run, full):
        super().__init__(index)
        self._writer, self._full, self._slices = SegmentWriter(run, index, 1 << 30), full, {}
        self._begin(None, None)

    def close(self):
        self._writer.close()

    def handle(self, event, now):
        effects = super().handle(event, now)
        if isinstance(event, ev.JobAnnounced | ev.GenerationBegun):
            self._slices = {part: place for place, part in enumerate(event.slices)}
        if is_recorded(event):
            self._writer.write([encode(now, event, effects, self._slices, full=self._full)])
            if isinstance(event, ev.CutOrdered):
                self._begin(event.checkpoint, self.record())
            self._writer.flush()
        return effects

    def _begin(self, checkpoint, record):
        header = Header(self.index, 0, self._full, record is not None, checkpoint, record)
        self._writer.begin(header, self._slices)


class Run:
    """Two shards, two replicas, some steps; a checkpoint each two updates."""

    def __init__(self, run, consistency, full, steps=7, checkpoints=True):
        self.cluster = Cluster(2, lambda _: None, recovers=checkpoints)
        self.cluster.shards = [Noted(shard, run, full) for shard in range(2)]
        self.answers = []
        job = ev.JobSpec(
            SPECS, consistency=consistency, optimizer="adam", replicas=2, replicas_max=2, checkpoint_updates=2
        )
        rng = np.random.default_rng(0)
        for name in "ab":
            self.cluster.tell_coordinator(ev.JoinReceived(self._request(), name, "1", job))
        self._move()
        self.sessions = [Session(each) for each in self.answers if isinstance(each, ev.JoinGranted)]
        first = {spec.key: rng.normal(size=spec.shape).astype(np.float32) for spec in SPECS}
        for shard, request in self.sessions[0].initialise("i", first).items():
            self.cluster.ask_shard(shard, request, self.answers.append)
        self._move()
        clocks = [0, 0]
        for turn in range(2 * steps):
            rank = turn % 2
            exchange = self.sessions[rank].pull(clocks[rank])
            self._pull(exchange)
            gradient = {spec.key: rng.normal(size=spec.shape).astype(np.float32) for spec in SPECS}
            push = self.sessions[rank].push(clocks[rank], gradient, 8)
            for shard, request in push.requests.items():
                self.cluster.ask_shard(shard, request, self.answers.append)
                if turn == 3:  # a lost reply: it comes twice
                    self.cluster.ask_shard(shard, request, self.answers.append)
            clocks[rank] += 1
            if turn % 3 == 0:
                self._move()
            beat = ev.Beat(self.sessions[rank].granted.replica, clocks[rank], 0, ev.Phase.PULL, ev.Counters())
            self.cluster.tell_coordinator(ev.HeartbeatReceived(self._request(), (beat,)))
            if rank:
                self._move()

        for shard in self.cluster.shards:
            shard.close()

    def _request(self):
        return self.cluster.request(self.answers.append)

    def _move(self):
        for _ in range(10):
            for shard in range(2):
                while self.cluster.orders[shard]:
                    self.cluster.deliver_order(shard)
                while self.cluster.reports[shard]:
                    self.cluster.deliver_report(shard)

    def _pull(self, exchange: PullExchange):
        for shard, request in exchange.requests.items():

            def answer(effect, shard=shard):
                if isinstance(effect, ev.PullGranted):
                    for part, values in effect.values().items():
                        exchange.destination(part)[...] = values
                    exchange.receive(shard, effect)

            self.cluster.ask_shard(shard, request, answer)


def whole(shard):
    """Return all that a shard is, with arrays as bytes."""
    record = shard.record()
    cut = shard.handle(ev.CutAsked(10**9), 0.0)[0].cut
    return (
        replace(record, gathered=(), waiting=()),
        [plain(push) for push in record.gathered],
        [(replace(pull, rows={}), since) for pull, since in record.waiting],
        {part: value.tobytes() for part, value in cut.snapshot.values.items()},
        {part: {name: a.tobytes() for name, a in state.items()} for part, state in cut.state.items()},
    )


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
def test_the_light_form_says_the_same_again(tmp_path, consistency):
    run = Run(tmp_path, consistency, full=False)
    for shard in run.cluster.shards:
        segments = read_journal(journal_folder(tmp_path, shard.index))
        replay = Replay(shard.index)
        found = list(replay.run(segments))
        assert len(segments) > 2
        assert not [each for each in found if each.differs]
        assert [each.is_new for each in found if isinstance(each, Seam)] == [True] + [False] * (
            len(segments) - 1
        )
        assert replay.shard.record().version == shard.record().version > 6
        assert replay.shard.record().verdicts == shard.record().verdicts


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
def test_the_light_form_can_be_read_from_any_segment_on(tmp_path, consistency):
    run = Run(tmp_path, consistency, full=False)
    segments = read_journal(journal_folder(tmp_path, 1))
    for first in range(1, len(segments)):
        replay = Replay(1)
        assert not [each for each in replay.run(segments[first:]) if each.differs]
        assert replay.shard.record().version == run.cluster.shards[1].record().version


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
def test_the_full_form_gives_the_very_shard_from_any_checkpoint_on(tmp_path, consistency):
    run = Run(tmp_path, consistency, full=True)
    for shard in run.cluster.shards:
        segments = read_journal(journal_folder(tmp_path, shard.index))
        for first in range(len(segments)):

            def read_cut(checkpoint, _, shard=shard):
                return run.cluster.cuts[checkpoint][shard.index]

            replay = Replay(shard.index, read_cut)
            assert not [each for each in replay.run(segments[first:]) if each.differs]
            assert whole(replay.shard) == whole(shard)


def test_a_lie_is_seen(tmp_path):
    Run(tmp_path, "async", full=False)
    segments = read_journal(journal_folder(tmp_path, 0))
    records = list(segments[1].records)
    pushes = [place for place, each in enumerate(records) if isinstance(each.event, ev.PushReceived)]
    record = records[pushes[0]]
    answered = record.effects[0]
    wrong = replace(answered, verdict=replace(answered.verdict, version=answered.verdict.version + 1))
    records[pushes[0]] = replace(record, effects=(wrong, *record.effects[1:]))
    segments[1] = replace(segments[1], records=tuple(records))
    found = [each for each in Replay(0).run(segments) if each.differs]
    assert [each.record.effects[0] for each in found if isinstance(each, Replayed)] == [wrong]


def test_a_header_that_lies_is_seen(tmp_path):
    Run(tmp_path, "async", full=False)
    segments = read_journal(journal_folder(tmp_path, 0))
    header = segments[2].header
    segments[2] = replace(
        segments[2], header=replace(header, record=replace(header.record, clocks={0: 99, 1: 0}))
    )
    assert [each.segment for each in Replay(0).run(segments) if isinstance(each, Seam) and each.differs] == [
        2
    ]
