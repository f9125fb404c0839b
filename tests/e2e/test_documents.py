"""Every command and every Python block in README.md and docs/ runs.

A document's commands run in order, in one empty folder that has the examples in it. To be quick and to need
nothing from outside, they are shortened by these rules and no others:

* ``pip install ... &&`` before a command is left out, and so are commands of other programs than
  ``paramserver`` and ``python``;
* ``paramserver train`` trains for one epoch;
* data that would have to be fetched or take long is replaced, as ``STAND_INS`` says;
* ``runs/LAST`` is the newest run folder, and ``job.toml`` a job of one worker;
* a server listens to a free port, whose address stands for the written one, and has to end well by itself
  once the other commands of its block are done; metrics have free ports, too.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECONDS = 100.0

STAND_INS = {"fashion-mnist": "digits", "flights": "synthetic:clicks"}
JOB = "epochs = 1\nworkers = 1\n"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path, kind):
    """Return the contents of all code blocks of a kind in a document."""
    return [text for found, text in BLOCK.findall(path.read_text(encoding="utf-8")) if found == kind]


def commands(block):
    """Return the commands of a console block that are run here, each as its words.

    Example:
        >>> commands("$ pip install . && paramserver train  # quick\\nfine\\n$ pytest\\n")
        [['paramserver', 'train']]
    """
    joined = block.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        if line.startswith("$ "):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:2] == ["pip", "install"] and "&&" in words:
                words = words[words.index("&&") + 1 :]
            if words[0] in ("paramserver", "python"):
                found.append(words)
    return found


RUN = [path for path in DOCUMENTS if any(commands(block) for block in blocks(path, "console"))]
PYTHON = [(path, index) for path in DOCUMENTS for index in range(len(blocks(path, "python")))]


class Folder:
    """Where the commands of a document run.

    Attributes:
        path: the folder.
        addresses: what stands for an address that a document names.
    """

    def __init__(self, path):
        self.path = path
        self.addresses = {}
        shutil.copytree(ROOT / "examples", path / "examples")
        for example in (path / "examples").glob("*.py"):
            shutil.copy(example, path)
        (path / "job.toml").write_text(JOB)

    def run(self, block):
        """Run the commands of a block to their end."""
        with ExitStack() as stack:
            servers = []
            for words in commands(block):
                process = stack.enter_context(self.start(words))
                stack.callback(process.kill)
                if words[:2] == ["paramserver", "server"] and "--help" not in words:
                    servers.append((words, process))
                    self.note_address(words, process)
                else:
                    self.finish(words, process)
            for words, process in servers:
                self.finish(words, process)

    def start(self, words):
        return subprocess.Popen(
            self.shortened(words),
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def shortened(self, words):
        """Apply the rules to one command."""
        assert not {"|", ">", "<", "&", "&&", ";", "..."} & set(words), f"This needs a shell: {words}"
        shorter = [self.addresses.get(STAND_INS.get(word, word), STAND_INS.get(word, word)) for word in words]
        if any("runs/LAST" in word for word in words):
            last = max((self.path / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns).name
            shorter = [word.replace("runs/LAST", f"runs/{last}") for word in shorter]
        if words[:2] == ["paramserver", "train"] and "--help" not in words:
            shorter += ["--epochs", "1"]
        if words[:2] == ["paramserver", "server"] and "--listen" in words:
            shorter[words.index("--listen") + 1] = "127.0.0.1:0"
        if "--metrics-port" in words:
            shorter[words.index("--metrics-port") + 1] = "0"
        python = (
            [sys.executable, "-P", "-m", "paramserver"] if words[0] == "paramserver" else [sys.executable]
        )
        return [*python, *shorter[1:]]

    def note_address(self, words, process):
        """Remember where a server really listens."""
        line = process.stdout.readline()
        assert line.startswith("listening "), f"{words}: {process.stderr.read()}"
        self.addresses[words[words.index("--listen") + 1]] = line.removeprefix("listening ").strip()

    def finish(self, words, process):
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, f"{shlex.join(words)}\n{err}"


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_every_command_runs(path, tmp_path):
    folder = Folder(tmp_path)
    for block in blocks(path, "console"):
        folder.run(block)


@pytest.mark.parametrize(("path", "index"), PYTHON, ids=lambda part: getattr(part, "name", part))
def test_every_python_block_runs(path, index, tmp_path):
    program = blocks(path, "python")[index]
    if "import torch" in program and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed.")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_commands_of_a_block_are_found():
    block = (
        "$ pip install .\n$ pip install '.[x]' && paramserver train \\\n  --seed 1  # why\n"
        "output\n$ python a.py\n$ pytest\n"
    )
    assert commands(block) == [["paramserver", "train", "--seed", "1"], ["python", "a.py"]]


def test_the_api_is_among_what_runs():
    assert (ROOT / "docs" / "api.md", 0) in PYTHON


def test_what_needs_a_shell_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="needs a shell"):
        Folder(tmp_path).shortened(["paramserver", "train", "|", "head"])
