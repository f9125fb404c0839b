"""The core and the simulator have no threads, no time, no network, no files and no chance of their own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paramserver

ROOT = Path(paramserver.__file__).parent
SHELLS = {
    "wire",
    "storage",
    "datasets",
    "chaos",
    "check",
    "client",
    "job_file.py",
    "launch",
    "calibration",
    "logs.py",
    "cli",
    "own_server.py",
    "prediction.py",
    "security",
    "toml_file.py",
    "torch.py",
    "user_code.py",
    "workload.py",
    "__main__.py",
}
"""What may do all that: the bytes, the files, the channels, the processes. Everything else is pure."""

MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in SHELLS)
IMPURE_MODULES = {
    "asyncio", "concurrent", "datetime", "grpc", "io", "multiprocessing", "os", "pathlib", "queue", "random",
    "secrets", "selectors", "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time",
    "uuid",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
LOCAL_CHANCE = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"}
"""What of ``numpy.random`` has no global state."""


def impurities(source):
    """Return the lines of a module that reach outside, with what they reach for."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        found += [(node.lineno, name) for name in names if name.partition(".")[0] in IMPURE_MODULES]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            found.append((node.lineno, node.func.id))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np.random", "numpy.random"):
            found += [(node.lineno, ast.unparse(node))] * (node.attr not in LOCAL_CHANCE)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".default_rng") and not node.args:
            found.append((node.lineno, "default_rng without a seed"))
        if isinstance(node, ast.ImportFrom) and node.module == "numpy.random":
            found += [(node.lineno, a.name) for a in node.names if a.name not in LOCAL_CHANCE]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_pure_module_reaches_for_nothing_outside(path):
    assert impurities(path.read_text(encoding="utf-8")) == []


def test_the_core_is_among_what_is_checked():
    names = {path.relative_to(ROOT).as_posix() for path in MODULES}
    core = {
        "shard/machine.py",
        "coordinator/machine.py",
        "session.py",
        "training.py",
        "membership/members.py",
        "consistency.py",
    }
    assert core | {"events/orders.py", "optim/combine.py", "weights.py", "types.py"} <= names


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import os.path",
        "from threading import Lock",
        "import grpc.aio",
        "print(1)",
        "open('x')",
        "np.random.seed(0)",
        "x = np.random.rand(3)",
        "rng = np.random.default_rng()",
        "from numpy.random import normal",
        "def f():\n    import random",
    ],
)
def test_each_way_out_is_seen(line):
    assert len(impurities(line)) == 1


@pytest.mark.parametrize("line", ["np.random.default_rng(3)", "x: np.random.Generator", "self.open(1)"])
def test_what_has_no_global_state_is_allowed(line):
    assert impurities(line) == []


def test_the_pure_modules_load_no_grpc():
    names = []
    for path in MODULES:
        parts = ("paramserver", *path.relative_to(ROOT).with_suffix("").parts)
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('grpc', 'google')))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.stdout.strip() == "[]"
