"""Every example runs, as its first lines say, and shows what it promises."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 100.0


def start(*arguments, folder):
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Return what a process printed; fail if it does not end well."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return out


def run(name, folder):
    return finish(start(EXAMPLES / name, folder=folder))


def test_every_example_is_run_here_and_says_how_to_run_it():
    tested = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert tested.count(f'"{path.name}"') == 1, path
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert re.search(rf"^    (python|paramserver train) examples/{path.name}", docstring, re.MULTILINE)


def test_own_loop(tmp_path):
    server = start("-P", "-m", "paramserver", "server", "--listen", "127.0.0.1:0", folder=tmp_path)
    address = server.stdout.readline().removeprefix("listening ").strip()
    replicas = [start(EXAMPLES / "own_loop.py", address, folder=tmp_path) for _ in range(2)]
    said = "".join(finish(replica) for replica in replicas)
    finish(server)
    accuracies = re.findall(r"^replica [01]: test accuracy (\S+)$", said, re.MULTILINE)
    assert len(accuracies) == 2
    assert accuracies[0] == accuracies[1], "both have the weights of the last round"
    assert float(accuracies[0]) >= 0.9
    assert said.count("buffered 1 of 2 for round 50\n") == said.count("buffered 2 of 2 for round 50\n") == 1


def test_straggler(tmp_path):
    rows = [line.split() for line in run("straggler.py", tmp_path).splitlines()[1:]]
    largest = {"sync": 0, "ssp:3": 0, "async": 0}
    for mode, *_, version, _, staleness in rows:
        assert int(staleness) >= 0
        largest[mode] = max(largest[mode], int(version.strip(",")))
    assert [(row[0], row[1]) for row in rows] == [
        (mode, speed) for mode in largest for speed in ("fast", "fast", "slow")
    ]
    assert largest == {"sync": 30, "ssp:3": 90, "async": 90}
    worst = {(row[0], row[1]): int(row[8]) for row in rows}
    assert worst["sync", "slow"] == worst["sync", "fast"] == 0
    assert 0 < worst["ssp:3", "slow"] <= (2 * 3 + 1) * (3 - 1)


def test_predict_live(tmp_path):
    found = re.findall(r"at version +(\d+): test accuracy (\S+)\n", run("predict_live.py", tmp_path))
    assert [int(version) for version, _ in found] == list(range(0, 301, 50))
    assert float(found[0][1]) < 0.3
    assert float(found[-1][1]) > 0.9


def test_own_model_is_the_same_in_every_engine(tmp_path):
    found = []
    for engine in ("local", "sequential"):
        options = ["--engine", engine, "--out", engine, "--json"]
        train = ["-P", "-m", "paramserver", "train", EXAMPLES / "own_model.py"]
        found.append(json.loads(finish(start(*train, *options, folder=tmp_path))))
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
    assert min(summary["accuracy"] for summary in found) >= 0.95
    assert found[0]["visits"] == found[1]["visits"]
    assert found[1]["visits"]["share"] == 1.0


def test_pytorch_digits_is_as_good_as_the_same_module_without_a_server(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed.")
    path = EXAMPLES / "pytorch_digits.py"
    found = re.fullmatch(r"test accuracy (\S+) on \d+ samples\n", finish(start(path, folder=tmp_path)))
    assert found
    spec = importlib.util.spec_from_file_location("pytorch_digits", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    torch.set_num_threads(1)
    data, module = example.load("digits"), example.make_module()
    samplers = [example.DistributedSampler(data.train, example.REPLICAS, rank) for rank in range(2)]
    steps = len(data.train) // (example.REPLICAS * example.BATCH)
    adam = torch.optim.Adam(module.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, example.EPOCHS * steps)
    for epoch in range(example.EPOCHS):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        shares = [torch.tensor(list(sampler)).split(example.BATCH) for sampler in samplers]
        for step in range(steps):
            indices = torch.cat([share[step] for share in shares])
            inputs, labels = (torch.tensor(array) for array in data.train[indices.numpy()])
            adam.zero_grad()
            torch.nn.functional.cross_entropy(module(inputs), labels).backward()
            adam.step()
            schedule.step()
    alone = example.accuracy(module, data.test)
    assert alone > 0.95
    assert abs(float(found[1]) - alone) <= 0.01
