"""A timeline shows who did what when, says for whom one waits, and says what it leaves out."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from paramserver.charts import View, draw_timeline
from paramserver.charts.page import COLOURS
from paramserver.charts.slices import (
    Window,
    choose_rows,
    rows_by_rank,
    slices_of,
    ways,
    window_of,
)
from paramserver.charts.timeline import ARROWS_MAX
from paramserver.cli import main
from paramserver.errors import RequestError
from paramserver.tracing import Arrow, Row, Span, chrome_trace

SVG = "{http://www.w3.org/2000/svg}"
MS = 1_000_000
SHARD, ONE, TWO = Row("server0", "shard 0"), Row("worker0", "worker0/0"), Row("worker1", "worker1/0")
ROWS = (SHARD, ONE, TWO)


def a_round() -> list[Span | Arrow]:
    """Replica 1 is slow, and replica 0 waits for it."""
    return [
        Span(ONE, "compute", 0, 20 * MS, {"clock": 0}),
        Span(TWO, "compute", 0, 80 * MS, {"clock": 0}),
        Span(ONE, "push", 20 * MS, 22 * MS, {"clock": 0, "verdict": "buffered 1 of 2 <round 0>"}),
        Span(ONE, "pull", 22 * MS, 90 * MS, {"clock": 1}),
        Span(ONE, "wait", 24 * MS, 88 * MS, {"for": 1}),
        Span(TWO, "push", 80 * MS, 83 * MS, {"clock": 0}),
        Span(SHARD, "apply", 82 * MS, 86 * MS, {"gradients": 2}),
        Arrow("0.1.0/0", "leaves", ONE, 20 * MS),
        Arrow("1.1.0/0", "leaves", TWO, 80 * MS),
        Arrow("0.1.0/0", "passes", SHARD, 82 * MS),
        Arrow("1.1.0/0", "passes", SHARD, 82 * MS),
        Arrow("0.1.0/0", "arrives", ONE, 90 * MS),
        Arrow("1.1.0/0", "arrives", ONE, 90 * MS),
    ]


def drawn(records, view=View(), rows=ROWS, **more) -> ElementTree.Element:  # noqa: B008 - frozen
    return ElementTree.fromstring(draw_timeline(rows, records, view, **more).svg)


def words(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def boxes(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """Return what can be pointed at, by what it says then."""
    found = {}
    for rect in root.iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            found[title.text or ""] = rect
    return found


def test_every_span_is_a_box_in_the_colour_of_its_kind_and_says_what_it_is():
    root = drawn(a_round(), title='"a" <run>', note="virtual time")
    told = boxes(root)
    assert list(told) == [
        "server0 shard 0: apply, 4 ms from 82 ms, gradients 2",
        "worker0/0: compute, 20 ms from 0 s, clock 0",
        "worker0/0: push, 2 ms from 20 ms, clock 0, verdict buffered 1 of 2 <round 0>",
        "worker0/0: pull, 68 ms from 22 ms, clock 1",
        "worker0/0: wait for worker1/0, 64 ms from 24 ms",
        "worker1/0: compute, 80 ms from 0 s, clock 0",
        "worker1/0: push, 3 ms from 80 ms, clock 0",
    ]
    for said, box in told.items():
        assert box.get("fill") == COLOURS[re.split("[, ]", said.partition(": ")[2])[0]][0]
    assert {'"a" <run>', "virtual time, 0 s to 90 ms", "wait for worker1/0", "compute, step 0"} <= set(
        words(root)
    )


def test_boxes_stand_where_their_times_are():
    told = boxes(drawn(a_round(), View(width=1000)))
    compute, push, wait, pull = (
        next(box for said, box in told.items() if f"worker0/0: {name}" in said)
        for name in ("compute", "push", "wait", "pull")
    )
    scale = float(compute.get("width", 0)) / 20
    assert float(push.get("x", 0)) - float(compute.get("x", 0)) == pytest.approx(20 * scale, rel=0.01)
    assert float(wait.get("x", 0)) > float(pull.get("x", 0))  # it lies in the pull, and lower
    assert float(wait.get("y", 0)) > float(pull.get("y", 0))
    assert float(wait.get("height", 0)) < float(pull.get("height", 0))


def test_a_gradient_is_an_arrow_from_push_to_apply_to_pull():
    root = drawn(a_round())
    tips = [path for path in root.iter(f"{SVG}path") if path.get("marker-end") == "url(#tip)"]
    assert len(tips) == 1 + 4  # one in the legend
    assert any("gradient" in word for word in words(root))


def test_how_much_a_row_waits_or_works_stands_at_its_end():
    told = words(drawn(a_round()))
    assert [word for word in told if "%" in word] == ["busy 4%", "waits 71%", "waits 0%"]


def test_the_axis_has_round_times_and_a_unit():
    root = drawn(a_round(), View(begin=20 * MS, end=60 * MS, width=800))
    times = [word for word in words(root) if re.fullmatch(r"[\d.]+ ms", word)]
    assert times == ["20 ms", "30 ms", "40 ms", "50 ms", "60 ms"]
    assert not any("push, 3 ms" in said for said in boxes(root))  # it is later


def test_spans_are_cut_to_the_window_but_say_their_whole_length():
    [piece] = slices_of([Span(ONE, "compute", 0, 100, {})], Window(40, 60), 0)
    assert (piece.begin, piece.end, piece.whole) == (40, 60, 100)
    assert slices_of([Span(ONE, "compute", 0, 30)], Window(40, 60), 0) == []


def test_what_is_too_thin_is_drawn_together_in_the_colour_of_the_most():
    spans = [Span(ONE, "compute", 10 * n, 10 * n + 7) for n in range(100)]
    spans += [Span(ONE, "push", 10 * n + 7, 10 * n + 10) for n in range(100)]
    pieces = slices_of(spans, Window(0, 1000), 100)
    assert 9 <= len(pieces) <= 12
    assert {piece.name for piece in pieces} == {"compute"}
    assert sum(sum(piece.several.values()) for piece in pieces) == 1000
    assert sum(piece.several.get("push", 0) for piece in pieces) == 300


def test_what_takes_no_time_is_beside_what_begins_then():
    pieces = slices_of([Span(ONE, "compute", 5, 9), Span(ONE, "pull", 5, 5)], Window(0, 10), 0)
    assert [(piece.name, piece.depth) for piece in pieces] == [("pull", 0), ("compute", 0)]


def test_too_many_rows_keep_some_of_each_kind_and_are_named():
    replicas = [Row(f"worker{number}", f"worker{number}/0") for number in range(200)]
    records = [Span(row, "compute", 0, 10) for row in replicas] + [Span(SHARD, "apply", 5, 6)]
    shown, hidden = choose_rows([SHARD, *replicas], records, 10)
    assert shown == [SHARD, *replicas[:9]]
    assert hidden == replicas[9:]
    picture = draw_timeline([SHARD, *replicas], records, View(rows_max=10))
    [sentence] = picture.left_out
    assert sentence.startswith("191 of 201 rows are left out (worker9/0, worker10/0, worker11/0, …)")
    assert sentence in words(ElementTree.fromstring(picture.svg))


def test_shards_do_not_take_all_the_room():
    shards = [Row("server0", f"shard {number}") for number in range(50)]
    records = [Span(row, "apply", 0, 1) for row in shards] + [Span(ONE, "compute", 0, 1)]
    assert choose_rows([*shards, ONE], records, 4)[0] == [*shards[:3], ONE]
    more = [Span(Row("w", f"w{number}"), "compute", 0, 1) for number in range(9)]
    assert len(choose_rows(shards, [*records, *more], 4)[0]) == 4


def test_too_many_arrows_are_left_out_and_said():
    arrows = [
        Arrow(f"0.1.{number}/0", stage, row, number)
        for number in range(ARROWS_MAX + 1)
        for stage, row in (("leaves", ONE), ("passes", SHARD))
    ]
    picture = draw_timeline(ROWS, [Span(ONE, "compute", 0, 1000), *arrows], View())
    assert "marker-end" not in picture.svg
    [sentence] = picture.left_out
    assert f"The {ARROWS_MAX + 1} arrows" in sentence
    fewer = draw_timeline(ROWS, [Span(ONE, "compute", 0, 1000), *arrows], View(begin=0, end=50))
    assert fewer.left_out == ()
    assert fewer.svg.count('marker-end="url(#tip)"') == 1 + 51


def test_an_arrow_with_one_station_in_sight_is_none():
    assert ways(a_round(), [ONE], Window(0, 50 * MS)) == []
    assert [len(way) for way in ways(a_round(), ROWS, Window(0, 85 * MS))] == [2, 2]


def test_ranks_are_known_from_pushes_and_else_named_by_number():
    assert rows_by_rank(a_round()) == {0: ONE, 1: TWO}
    spans = [record for record in a_round() if isinstance(record, Span)]
    assert "wait for rank 1" in words(drawn(spans))
    nobody = [Span(ONE, "wait", 0, 9, {"for": -1})]
    assert "wait" in words(drawn(nobody))


def test_a_trace_of_few_or_unknown_things_is_drawn():
    assert "nap" in words(drawn([Span(ONE, "nap", 7, 7)], rows=()))


@pytest.mark.parametrize(
    ("begin", "end", "sentence"),
    [
        (60 * MS, 20 * MS, "not from 60 ms to 20 ms"),
        (95 * MS, None, "goes from 5 ms to 90 ms, so nothing of it is after 95 ms"),
        (None, 2 * MS, "nothing of it is before 2 ms"),
    ],
)
def test_a_window_without_anything_is_refused(begin, end, sentence):
    with pytest.raises(RequestError, match=sentence):
        window_of([Span(ONE, "compute", 5 * MS, 90 * MS)], begin, end)


def test_an_early_beginning_is_shown_from_zero():
    assert window_of([Span(ONE, "compute", 2, 100)], None, None) == Window(0, 100)
    assert window_of([Span(ONE, "compute", 20, 100)], None, None) == Window(20, 100)


@pytest.fixture
def run_main(capsys, tmp_path, monkeypatch):
    """Run the command line in a folder with the trace of a run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trace.json").write_bytes(
        chrome_trace(a_round(), ROWS, {"time": "virtual", "forgotten": 1200, "missing": "worker 3"})
    )
    (tmp_path / "empty.json").write_bytes(chrome_trace([], ROWS))
    (tmp_path / "other.json").write_text("[1]")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["timeline", *arguments])
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


def test_the_command_draws_the_trace_of_a_run_folder(run_main, tmp_path):
    code, out, err = run_main("run", "--from", "10ms", "--to", "0.05s", "--width", "700")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "The trace has lost its 1,200 oldest records: it keeps only the newest.",
        "Some processes left no trace: worker 3.",
        "The timeline is in run/timeline.svg.",
    ]
    root = ElementTree.parse(tmp_path / "run" / "timeline.svg").getroot()
    assert root.get("width") == "700"
    assert "virtual time, 10 ms to 50 ms" in words(root)


def test_the_title_says_what_ran(run_main, tmp_path):
    (tmp_path / "run" / "summary.json").write_text(
        '{"consistency": "ssp:3", "replicas": 2, "model": "mlp:128"}'
    )
    assert run_main("run/trace.json", "--out", "t.svg")[0] == 0
    assert "ssp:3, 2 replicas, mlp:128" in words(ElementTree.parse(tmp_path / "t.svg").getroot())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.json"], "There is no trace none.json."),
        (["."], "There is no trace trace.json."),
        (["empty.json"], "The trace is empty"),
        (["other.json"], "traceEvents"),
        (["run", "--from", "50ms", "--to", "10ms"], "not from 50 ms to 10 ms. Exchange --from and --to."),
        (["run", "--from", "5"], "'5' has no unit"),
        (["run", "--to", "soon"], "Expected a duration such as 20ms as --to, but found 'soon'."),
        (["run", "--from", "1h"], "nothing of it is after"),
        (["run", "--out", "t.png"], "t.png does not end in that"),
        (["run", "--rows", "0"], "1 row or more"),
        (["run", "--width", "10"], "400 to 20,000 pixels"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_a_sentence(run_main, tmp_path, arguments, sentence):
    code, out, err = run_main(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert sentence in err
    assert not (tmp_path / "run" / "timeline.svg").exists()
