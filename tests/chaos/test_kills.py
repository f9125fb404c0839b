"""Kill -9 at drawn moments: the job goes on in time, nothing is lost, nothing counts twice."""

from __future__ import annotations

import importlib
import json
import operator
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kill_judge import describe, judge
from kills import Kill, Strike, draw_kills, drawn
from running import INSIDE, SYNC_EPOCHS, Run, processes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(metafunc.config.getoption("--kills")))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the weights of the sync job when nobody disturbs it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    command = [sys.executable, "-P", "-m", "paramserver", "train", "--engine", "sequential", "--quiet"]
    command += ["--epochs", f"{SYNC_EPOCHS}", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return str(json.loads((out / "summary.json").read_text())["weights_sha256"])


def test_a_seed_always_draws_the_same_kills() -> None:
    first, second = draw_kills(7), draw_kills(7)
    assert [next(first) for _ in range(200)] == [next(second) for _ in range(200)]
    assert next(draw_kills(7)) != next(draw_kills(8))


def test_200_kills_have_every_victim_in_every_mode_and_phase() -> None:
    draws = draw_kills(20)
    kills = [next(draws) for _ in range(200)]
    assert len({(each.victim, each.consistency, each.durability) for each in kills}) == 5 * 3 * 2
    assert len({(each.victim, each.phase) for each in kills}) == 5 * 7


def test_every_moment_is_in_the_code() -> None:
    inside = runpy.run_path(str(INSIDE / "sitecustomize.py"), run_name="inside")
    for moment in (*inside["SERVER"].values(), *inside["WORKER"].values()):
        assert callable(operator.attrgetter(moment.name)(importlib.import_module(moment.module)))


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("consistency", "durability", "moment", "count", "victim"),
    [
        ("sync", "checkpoint", "has finished a checkpoint", 9, "server 0"),
        ("async", "journal", "has written a cut", 3, "server 0"),
        ("async", "checkpoint", "finishes the last weights", 1, "server 1"),
        ("sync", "journal", "has finished the last weights", 1, "server 0"),
        ("sync", "checkpoint", "writes the summary", 1, "server 0"),
    ],
)
def test_kills_between_two_things_that_belong_together(
    consistency: str,
    durability: str,
    moment: str,
    count: int,
    victim: str,
    tmp_path: Path,
    undisturbed: str,
    request: pytest.FixtureRequest,
) -> None:
    strikes = (Strike("server 0", moment, count, (victim,)),)
    strike(Kill(-1, victim, moment, consistency, durability, strikes), tmp_path, undisturbed, request)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_kills(number: int, tmp_path: Path, undisturbed: str, request: pytest.FixtureRequest) -> None:
    strike(drawn(request.config.getoption("--kill-seed"), number), tmp_path, undisturbed, request)


def strike(one: Kill, folder: Path, undisturbed: str, request: pytest.FixtureRequest) -> None:
    """Run the job of a kill, and judge what is left; a run that fails is kept if that was asked for."""
    run = Run(one, folder)
    try:
        run.go()
        judge(run, undisturbed)
        assert not processes(run.out)
    except BaseException:
        seed, count = (request.config.getoption(name) for name in ("--kill-seed", "--kills"))
        print(f"Kill {one.number} of seed {seed}: {one}")
        alone = f"--kills {max(count, one.number + 1)} --kill-seed {seed} -k 'kills[{one.number}]'"
        print(f"This one alone: pytest -m chaos tests/chaos {alone} --keep DIR")
        if keep := request.config.getoption("--keep"):
            kept = Path(keep) / f"{one.number}"
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            print(f"The run is kept in {kept}.")
        print(describe(folder))
        raise
    print(f"{one.number}: {one}: well after {run.seconds:.1f} s, still for {run.standstill_seconds:.1f} s")
