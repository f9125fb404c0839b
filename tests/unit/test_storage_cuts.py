"""A cut comes back as it was, also for other shards; a torn checkpoint is passed over."""

import os
from dataclasses import replace

import numpy as np
import pytest

from paramserver.errors import RequestError
from paramserver.events import (
    Counters,
    Cut,
    JobRecord,
    JobSpec,
    Kept,
    MemberRecord,
    Outcome,
    Score,
    Snapshot,
    Standing,
    TensorSpec,
    Verdict,
)
from paramserver.placement import place, rows
from paramserver.storage import (
    MetricsWriter,
    checkpoint_folder,
    checkpoints_begun,
    finish_checkpoint,
    keep_also,
    newest_checkpoint,
    read_cut,
    read_job_record,
    read_metrics,
    remove_old,
    remove_partial,
    remove_unfinished,
    resumed,
    seconds_trained,
    write_cut,
    write_job_record,
)

SPECS = (TensorSpec("bias", (5,)), TensorSpec("scale", ()), TensorSpec("weight", (7, 3)))
JOB = JobSpec(SPECS, optimizer="adam", replicas=2, replicas_max=3)
RNG = np.random.default_rng(0)
WEIGHTS, FIRST, SECOND = (
    {spec.key: np.asarray(RNG.normal(size=spec.shape), np.float32) for spec in SPECS} for _ in range(3)
)
APPLIED = Verdict(Outcome.APPLIED, 12, 3)
DROPPED = Verdict(Outcome.DROPPED, reason="It holds nan.")


def cut(shard, shards):
    parts = [part for part in place(SPECS, shards) if part.shard == shard]
    return Cut(
        shard,
        Snapshot(12 + shard, 4, {part: rows(WEIGHTS[part.key], part) for part in parts}),
        {part: {"m": rows(FIRST[part.key], part), "v": rows(SECOND[part.key], part)} for part in parts},
        {0: 6 + shard, 1: 5},
        {0: (5 + shard, APPLIED), 1: (4, DROPPED)},
    )


def write(run, checkpoint=0, shards=2, generation=1):
    folder = checkpoint_folder(run, checkpoint)
    files = [write_cut(folder, cut(shard, shards), shards, generation) for shard in range(shards)]
    finish_checkpoint(folder, JOB, files, generation, 4)
    return folder


def slices(shard, shards):
    return [part for part in place(SPECS, shards) if part.shard == shard]


def plain(arrays):
    return {part: array.tolist() for part, array in arrays.items()}


@pytest.mark.parametrize("shard", [0, 1])
def test_a_cut_comes_back(tmp_path, shard):
    found, before = read_cut(write(tmp_path), shard, slices(shard, 2)), cut(shard, 2)
    assert plain(found.snapshot.values) == plain(before.snapshot.values)
    for part, arrays in before.state.items():
        assert plain(found.state[part]) == plain(arrays)
    assert (found.shard, found.snapshot.version, found.snapshot.rounds) == (shard, 12 + shard, 4)
    assert (found.clocks, found.verdicts) == (before.clocks, before.verdicts)


@pytest.mark.parametrize("shards", [1, 3, 5])
def test_a_cut_of_two_shards_becomes_one_of_others(tmp_path, shards):
    folder, seen = write(tmp_path), {spec.key: np.full(spec.shape, np.nan, np.float32) for spec in SPECS}
    for shard in range(shards):
        found = read_cut(folder, shard, slices(shard, shards))
        for part, values in found.snapshot.values.items():
            rows(seen[part.key], part)[...] = values
            assert found.state[part]["v"].tolist() == rows(SECOND[part.key], part).tolist()
        assert found.snapshot.version in (12, 13)
        assert found.clocks[0] == found.snapshot.version - 6, "the clocks are those of the furthest source"
        assert found.verdicts[0][0] == found.clocks[0] - 1
    assert {key: array.tolist() for key, array in seen.items()} == {
        key: array.tolist() for key, array in WEIGHTS.items()
    }


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    with pytest.raises(RequestError, match="has no tensor 'other'"):
        read_cut(write(tmp_path), 0, [replace(slices(0, 2)[0], key="other")])


def test_the_newest_whole_checkpoint_is_found_and_old_ones_are_removed(tmp_path):
    for number in range(4):
        write(tmp_path, number)
    torn = next(checkpoint_folder(tmp_path, 3).glob("*.safetensors"))
    torn.write_bytes(torn.read_bytes()[:-4] + b"0000")
    (checkpoint_folder(tmp_path, 4)).mkdir()  # one that was never finished
    number, problems = newest_checkpoint(tmp_path)
    assert number == 2
    assert len(problems) == 1
    assert "is not the file that the manifest means" in problems[0]
    remove_old(tmp_path, 2, keep=2)
    left = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert left == ["000001", "000002", "000003", "000004"]


def test_what_became_whole_while_a_server_was_lost_is_none_to_go_on_from(tmp_path):
    for number in range(3):
        write(tmp_path, number, generation=1)
    # As generation 1 ended, 2 was being finished; the job went on from 1.
    assert newest_checkpoint(tmp_path, replace(RECORD, generation=2, kept=Kept(1))) == (1, [])
    assert newest_checkpoint(tmp_path, replace(RECORD, generation=2, kept=Kept(2))) == (2, [])
    # The coordinator ended before it could say that 2 is whole.
    assert newest_checkpoint(tmp_path, replace(RECORD, generation=1, kept=Kept(1))) == (2, [])
    checkpoint_folder(tmp_path, 7).mkdir()
    assert checkpoints_begun(tmp_path) == 8, "its number is not given again"


def test_without_a_whole_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    with pytest.raises(RequestError, match="has no checkpoint to go on from"):
        newest_checkpoint(tmp_path)
    folder = write(tmp_path)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(RequestError, match=r"no checkpoint to go on from.*no sound JSON"):
        newest_checkpoint(tmp_path)


def test_a_final_checkpoint_is_none_to_go_on_from(tmp_path):
    from paramserver.storage import SliceValues, write_shard

    items = [SliceValues(part, rows(WEIGHTS[part.key], part), {}) for part in slices(0, 1)]
    finish_checkpoint(tmp_path, JOB, [write_shard(tmp_path, 0, 1, items, 3, 0)], 0, 3)
    with pytest.raises(RequestError, match="does not say where its shard's replicas were"):
        read_cut(tmp_path, 0, slices(0, 1))


COUNTERS = Counters(
    {"computed": 9, "applied": 8, "dropped": 1},
    {"computed": 90, "applied": 80, "dropped": 10},
    {0: 7, 3: 1},
    {-1: 1, 0: 8},
    {"compute": 1.5},
    0.25,
    0,
)
RECORD = JobRecord(
    JOB,
    generation=2,
    orders=40,
    sealed=True,
    members=(
        MemberRecord(0, "worker0/0", "abc", 3, Standing.DEAD, True, 2, 17, 90),
        MemberRecord(1, "worker0/1", "abd", 1, Standing.LIVE, False, 0, 9, 90, COUNTERS, COUNTERS),
    ),
    kept=Kept(6, 4, {0: 5, 1: 6}),
    cuts=7,
    scores=(Score("validation", 12, 12, 0.5, 0.75, 100),),
    seconds=2.5,
)


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, kept=None, members=())])
def test_a_record_comes_back(tmp_path, record):
    write_job_record(tmp_path, record)
    assert read_job_record(tmp_path) == record


def test_a_new_start_is_no_restart():
    assert resumed(RECORD).members[0].restarts == -1


def test_what_a_checkpoint_does_not_have_is_rolled_back_at_a_new_start():
    member = resumed(RECORD).members[1]
    assert member.counters == Counters()
    # Of 18 gradients 2 were dropped; 3 steps of 9 are not in the checkpoint, with 10 samples each.
    assert member.earlier.gradients == {"computed": 18, "applied": 13, "dropped": 2, "rolled_back": 3}
    assert member.earlier.samples == {"computed": 180, "applied": 130, "dropped": 20, "rolled_back": 30}


def test_time_goes_on_over_the_end_of_a_coordinator(tmp_path):
    write_job_record(tmp_path, RECORD)
    assert 2.5 <= seconds_trained(tmp_path, RECORD, goes_on=True) < 60
    assert seconds_trained(tmp_path, RECORD, goes_on=False) == 2.5
    with MetricsWriter(tmp_path / "metrics.jsonl") as metrics:
        metrics.append({"kind": "progress", "seconds": 3.5})
    assert seconds_trained(tmp_path, RECORD, goes_on=False) == 3.5
    assert seconds_trained(tmp_path, replace(RECORD, seconds=0.0), goes_on=False) == 0.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', '{"format_version": 9}'])
def test_a_record_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(RequestError, match="cannot be read"):
        read_job_record(tmp_path)
    (tmp_path / "coordinator.json").write_text(text)
    with pytest.raises(RequestError, match="is not what a coordinator has written"):
        read_job_record(tmp_path)


def test_a_checkpoint_from_elsewhere_becomes_the_newest(tmp_path):
    write(tmp_path, 3)
    elsewhere = write(tmp_path / "other", 0)
    assert keep_also(tmp_path, elsewhere) == 4
    assert newest_checkpoint(tmp_path) == (4, [])
    assert plain(read_cut(checkpoint_folder(tmp_path, 4), 0, slices(0, 2)).snapshot.values) == plain(
        read_cut(elsewhere, 0, slices(0, 2)).snapshot.values
    )
    (elsewhere / "manifest.json").unlink()
    with pytest.raises(RequestError, match="is no finished checkpoint"):
        keep_also(tmp_path, elsewhere)
    assert newest_checkpoint(tmp_path) == (4, [])


def test_what_was_never_finished_is_removed_with_what_is_old(tmp_path):
    for number in range(5):
        write(tmp_path, number)
    for number in (1, 3):
        (checkpoint_folder(tmp_path, number) / "manifest.json").unlink()
    checkpoint_folder(tmp_path, 5).mkdir()
    remove_old(tmp_path, 4, keep=2)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == [
        "000002",
        "000004",
        "000005",  # it may be under way
    ]
    remove_unfinished(tmp_path)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["000002", "000004"]


@pytest.mark.parametrize("step", range(6))
def test_a_removal_that_is_ended_in_the_middle_leaves_whole_checkpoints_or_none(tmp_path, monkeypatch, step):
    for number in range(4):
        write(tmp_path, number)
    removed = []

    def unlink(path, *rest, **named):
        if len(removed) == step:
            raise KeyboardInterrupt
        removed.append(path)
        return real(path, *rest, **named)

    real = os.unlink
    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        remove_old(tmp_path, 3, keep=2)
    monkeypatch.undo()
    whole = [
        number for number in range(4) if (checkpoint_folder(tmp_path, number) / "manifest.json").exists()
    ]
    for number in whole:
        read_cut(checkpoint_folder(tmp_path, number), 0, slices(0, 2))
    assert whole[-2:] == [2, 3]
    remove_old(tmp_path, 3, keep=2)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["000002", "000003"]


def test_where_a_journal_says_the_rest_nothing_is_rolled_back():
    assert resumed(RECORD, exactly=True).members[1].earlier.gradients.get("rolled_back", 0) == 0


def test_a_line_that_was_torn_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"one": 1}\n{"two": ')
    with MetricsWriter(path) as metrics:
        metrics.append({"three": 3})
    assert read_metrics(path) == [{"one": 1}, {"three": 3}]


def test_what_writers_have_left_is_removed(tmp_path):
    (tmp_path / "job.toml").write_text("")
    for name in (".job.toml.0a1b.partial", ".coordinator.json.0a1c.partial", ".hidden"):
        (tmp_path / name).write_text("")
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "job.toml"]
