"""Nothing that comes from the wire or from a file is executed: no pickle, no eval, no shell."""

import ast
from pathlib import Path

import pytest

import paramserver

ROOT = Path(paramserver.__file__).parent.parent
MODULES = sorted(path for part in ("paramserver", "server", "worker") for path in (ROOT / part).rglob("*.py"))

MODULES_THAT_EXECUTE = {
    "cloudpickle", "code", "dill", "joblib", "jsonpickle", "marshal", "pickle", "runpy", "shelve", "yaml",
    "_pickle",
}  # fmt: skip
CALLS_THAT_EXECUTE = {"eval", "exec", "compile", "__import__"}
USERS_FILE = "paramserver/user_code.py"
"""Runs the one Python file that the user has named on the command line, if its hash is the run's."""


def dangers(source):
    """Return the lines of a module that could execute data, with how."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        found += [(node.lineno, name) for name in names if name.partition(".")[0] in MODULES_THAT_EXECUTE]
        if isinstance(node, ast.Call):
            found += [(node.lineno, why) for why in dangers_of_call(node)]
    return found


def dangers_of_call(node):
    """Say what a call could execute."""
    name = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    last = name.rpartition(".")[2]
    if name in CALLS_THAT_EXECUTE:
        yield name
    # Safe by default, too, but only since NumPy 1.16.3: it has to be said.
    reads_arrays = last == "read_array" or name in ("np.load", "numpy.load")
    if reads_arrays and given.get("allow_pickle") != "False":
        yield f"{name} without allow_pickle=False"
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if given.get("shell", "False") != "False" or name in ("os.system", "os.popen"):
        yield "a shell"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_executes_no_data(path):
    found = dangers(path.read_text(encoding="utf-8"))
    if str(path.relative_to(ROOT)) == USERS_FILE:
        assert [why for _, why in found] == ["exec", "compile"]
    else:
        assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "eval(text)",
        "exec(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
    ],
)
def test_each_danger_is_seen(line):
    assert len(dangers(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "re.compile(text)",
        "model.eval()",
    ],
)
def test_what_executes_nothing_is_allowed(line):
    assert dangers(line) == []
