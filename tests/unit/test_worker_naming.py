"""Workers that share a folder have names of their own, and a dead one's name is free again."""

import subprocess
import sys

import pytest

from paramserver.errors import RequestError
from worker.naming import take_index

HOLD = """
import sys
from pathlib import Path
from worker.naming import take_index
print(take_index(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Start processes that each take an index and hold it until they are killed."""
    started = []

    def one():
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, int(process.stdout.readline())

    yield one
    for process in started:
        process.kill()
        process.communicate()


def test_the_lowest_index_that_nobody_living_has(hold):
    (first, zero), (_, one) = hold(), hold()
    assert (zero, one) == (0, 1)
    first.kill()
    first.wait()
    assert [hold()[1] for _ in range(2)] == [0, 2]


def test_a_folder_that_cannot_be_written_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(RequestError, match="has to be a folder that this worker can write to, but: No such"):
        take_index(tmp_path / "nowhere")
