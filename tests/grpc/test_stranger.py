"""A client that knows only proto/paramserver.proto trains against the real server."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from raw import SECONDS, ServerProcess

STRANGER = Path(__file__).with_name("stranger.py")


def test_the_stranger_knows_only_the_generated_stubs_and_numpy() -> None:
    source = STRANGER.read_text()
    assert len(source.splitlines()) <= 100
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{name.name}" for name in node.names}
    stubs = {"paramserver.wire.paramserver_pb2", "paramserver.wire.paramserver_pb2_grpc"}
    assert imported == {"grpc", "numpy", "sys", "uuid"} | stubs


@pytest.mark.parametrize("consistency", ["sync", "async", "ssp:1"])
def test_the_stranger_trains(consistency: str) -> None:
    with ServerProcess("--shards", "3") as server:
        command = [sys.executable, str(STRANGER), server.address, consistency, "30"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    losses = [float(line) for line in done.stdout.split()]
    assert len(losses) == 31
    assert losses[-1] < 0.01 * losses[0]
