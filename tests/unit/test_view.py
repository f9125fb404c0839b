"""What a terminal shows of a job, at any width, height and taste for colours."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from jobs import job, member, parked, server, sighting
from rich.console import Console

from paramserver import events as ev
from paramserver.launch.live import LiveTable
from paramserver.launch.overview import Overview
from paramserver.launch.progress import Moment, PlainLines
from paramserver.launch.sighting import overview
from paramserver.launch.view import MARGIN_LINES, JobView


def shown(seen: Overview, width: int = 80, height: int = 24, **options: Any) -> list[str]:
    """Return the lines that a terminal of this size has."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(JobView(seen, **options))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert max(len(line) for line in lines) <= width
    return lines


def four() -> Overview:
    """Return a job of four replicas, of which one waits for two others."""
    members = [member(rank, clock=1_020 - rank, steps=3_000) for rank in range(4)]
    return overview(sighting(job(*members), server(0, ((0, parked((3, 1_017), (2, 1_018), others=3)),), ())))


def many(workers: int, threads: int) -> Overview:
    names = [f"worker{worker}/{thread}" for worker in range(workers) for thread in range(threads)]
    members = [member(rank, clock=500 + rank, name=name) for rank, name in enumerate(names)]
    waiting = tuple((rank, parked((0, 500), seconds=2.0)) for rank in range(1, 9))
    return overview(sighting(job(*members), server(0, waiting)))


def test_at_80_columns_there_is_a_row_for_each_replica() -> None:
    lines = shown(four())
    assert lines[0].startswith("mlp:8, ssp:2  ━")
    assert lines[0].endswith(" 34%  19 s to go")
    assert lines[1] == "loss 0.500  validation 0.875  13,037 samples/s  version 40-41  4 live"
    assert lines[3:] == [
        "rank  replica    clock  staleness  samples/s  now      waits for",
        "   0  worker0/0  1,020          0      3,264  wait     3, 2 +3",
        "   1  worker0/1  1,019          1      3,261  compute",
        "   2  worker1/0  1,018          2      3,258  compute",
        "   3  worker1/1  1,017          3      3,254  compute",
    ]


def test_at_40_columns_the_numbers_are_still_there() -> None:
    lines = shown(four(), width=40)
    assert lines[0].endswith(" 34%  19 s to go")
    assert lines[1:3] == ["loss 0.500  validation 0.875", "13,037 samples/s  version 40-41  4 live"]
    assert lines[4:6] == ["rank clock stale smp/s now     for", "   0 1,020     0 3,264 wait    3, 2 +3"]


def test_at_200_columns_there_is_more_to_see() -> None:
    lines = shown(four(), width=200)
    assert lines[4].split("  ")[-1] == "ssp:2 lets nobody on"
    assert lines[4].split()[:9] == [
        "0", "worker0/0", "1,020", "3,000", "0", "3,264", "0.500", "0.2", "s",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1, 7, 20, 40, 71, 72, 89, 90, 110, 140, 200, 1_000])
@pytest.mark.parametrize("parts", [False, True])
def test_no_line_is_ever_longer_than_the_terminal(width: int, parts: bool) -> None:
    assert len(shown(four(), width=width, parts=parts)) > 5


@pytest.mark.parametrize("height", [8, 12, 24, 50, 100])
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize(("workers", "threads"), [(8, 8), (64, 1), (2, 2)])
def test_a_live_view_fits_the_height(height: int, parts: bool, workers: int, threads: int) -> None:
    lines = shown(many(workers, threads), height=height, live=True, parts=parts)
    assert len(lines) <= height - MARGIN_LINES


def test_64_replicas_have_a_row_for_each_worker_where_their_own_do_not_fit() -> None:
    lines = shown(many(8, 8), live=True)
    assert lines[3].split() == [
        "worker",
        "replicas",
        "clock",
        "staleness",
        "samples/s",
        "waits",
        "for",
        "now",
    ]
    assert lines[4].split("  ")[0] == "worker0"
    assert lines[4].endswith("worker0    7 wait, 1 compute")
    assert len(lines) == 3 + 1 + 8 + 1
    assert lines[-1] == "A row for each worker: 64 replicas do not fit this height."
    assert len(shown(many(8, 8), height=80, live=True)) == 3 + 1 + 64
    assert len(shown(many(8, 8))) == 3 + 1 + 64


def test_64_workers_show_the_slowest_and_say_how_many_are_not_shown() -> None:
    lines = shown(many(64, 1), live=True)
    assert [line.split()[0] for line in lines[4:-1]] == [f"worker{worker}" for worker in range(16)]
    assert lines[-1] == "The slowest workers; 48 of 64 are not shown, none of them slower."


def test_the_dead_are_always_among_those_shown() -> None:
    seen = many(64, 1)
    rows = (*seen.replicas[:60], replace(seen.replicas[60], does="dead"), *seen.replicas[61:])
    lines = shown(replace(seen, replicas=rows), live=True)
    assert lines[-2].split()[0] == "worker60"
    assert lines[-2].endswith("dead")


def test_what_was_started_again_is_counted() -> None:
    seen = four()
    rows = (replace(seen.replicas[0], incarnation=3), *seen.replicas[1:])
    assert "4 live  2 restarts of replicas" in " ".join(shown(replace(seen, replicas=rows), width=120))
    assert shown(replace(seen, generation=1), width=120)[1].endswith("4 live  recovered 1 time")


def test_servers_and_shards_are_shown_to_who_asks() -> None:
    lines = shown(four(), parts=True)
    assert "     0    2.0 MB  3.0 kB       2  h:0" in lines
    assert "    0       0       40        1      0.250 s    0.500 s  40 applied" in lines
    missing = shown(overview(sighting(job(servers=2), server(0, (), ()))), parts=True)
    assert any("no answer" in line and "h:1" in line for line in missing)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (job(job=None), "There is no job yet: 1 of 1 servers are up, and no replica has joined."),
        (job(job=None, servers=2, servers_expected=3), "There is no job yet: 2 of 3 servers are up."),
        (job(member(0), started=False), "1 of 1 replicas have joined."),
        (job(sealed=False), "All replicas have joined; nobody has initialised the weights yet."),
        (job(ended=True), "The job is over."),
        (job(ended=True, reason="Replica 0 failed: why."), "The job failed: Replica 0 failed: why."),
    ],
)
def test_a_job_that_does_not_train_says_so(status: ev.JobStatus, sentence: str) -> None:
    assert shown(overview(sighting(status)))[0] == sentence


def test_before_the_start_a_replica_waits_for_it_and_at_a_rounds_end_for_the_coordinator() -> None:
    because = "sync ...; shard 0 has all of its gradients, so the coordinator is next"
    for bound, whom in (
        ("the job begins when 2 replicas have joined", "the start"),
        (because, "coordinator"),
    ):
        seen = overview(sighting(job(member(0)), server(0, ((0, parked(bound=bound)),))))
        assert shown(seen)[-1].endswith(f"wait  {whom}")


def test_a_name_cannot_move_the_cursor_and_leaves_room() -> None:
    seen = overview(sighting(job(member(0, name="\x1b[2J" + "x" * 100))))
    row = shown(seen)[-1]
    assert "?[2J" in row
    assert "compute" in row


def terminal(**environment: str) -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(
        file=stream,
        width=60,
        height=20,
        force_terminal=True,
        _environ={"TERM": "xterm-256color", **environment},
    )


def test_colours_say_what_a_replica_does_unless_no_color_is_set() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        stream, console = terminal(**environment)
        console.print(JobView(four()))
        assert bool(colour.search(stream.getvalue())) == coloured
        assert "compute" in stream.getvalue()


def test_a_live_table_is_drawn_in_its_place_and_taken_away() -> None:
    stream, console = terminal()
    table = LiveTable(console)
    table.note("Training.")
    table.show(four())
    table.close()
    drawn = stream.getvalue()
    assert "worker0/0" in drawn
    assert drawn.index("Training.") < drawn.index("worker0/0")
    assert drawn.rstrip().endswith("\x1b[2K")  # the last line that it had is erased


def test_a_job_without_replicas_has_a_bar() -> None:
    stream, console = terminal()
    table = LiveTable(console)
    table.update(Moment(0.5, 320, 0.25))
    table.close()
    assert " 50%" in stream.getvalue()
    assert "loss 0.250" in stream.getvalue()


def test_plain_lines_have_the_figures_of_the_overview() -> None:
    lines: list[str] = []
    PlainLines(lines.append, lambda: 0.0).show(four())
    assert lines == [" 34%, 19 s to go, loss 0.500, validation 0.875, 13,037 samples/s"]
