"""The public API is what docs/api.md says: no more, no less, and cheap to import."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import paramserver

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^### `(.+)`$", re.MULTILINE)
SECTIONS = dict(zip(*[iter(HEADING.split(API)[1:])] * 2, strict=True))


def torch_names():
    """Return the public names of paramserver.torch without importing it."""
    tree = ast.parse((Path(paramserver.__file__).parent / "torch.py").read_text(encoding="utf-8"))
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return [f"torch.{name}" for name in names]


def test_each_public_name_is_documented_once_and_each_documented_name_exists():
    documented = HEADING.findall(API)
    assert sorted(documented) == sorted([*paramserver.__all__, *torch_names()])
    assert paramserver.__all__ == sorted(paramserver.__all__)


def words_of(subject):
    """Return what a reader has to be told of a name: its parameters, methods and attributes."""
    if not isinstance(subject, type):
        return set(inspect.signature(subject).parameters)
    if issubclass(subject, Enum):
        return {member.name for member in subject}
    words = {name for name in vars(subject) if not name.startswith("_")}
    for name in list(words):
        if inspect.isfunction(vars(subject)[name]):
            words |= set(inspect.signature(vars(subject)[name]).parameters) - {"self"}
    if dataclasses.is_dataclass(subject):
        words |= {field.name for field in dataclasses.fields(subject) if not field.name.startswith("_")}
    attributes = (inspect.getdoc(subject) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    return words | set(re.findall(r"^    (\w+):", attributes, re.MULTILINE))


@pytest.mark.parametrize("name", paramserver.__all__)
def test_a_section_names_every_parameter_method_and_attribute(name):
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", SECTIONS[name]))))
    assert words_of(getattr(paramserver, name)) - told == set()


@pytest.mark.parametrize("name", paramserver.__all__)
def test_every_public_name_says_what_it_is(name):
    assert inspect.getdoc(getattr(paramserver, name))


def test_links_within_the_page_lead_somewhere():
    slug = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", API, re.M)
    }
    slug |= {"score-1"}  # the second heading whose name differs only in case
    assert set(re.findall(r"\]\(#([^)]+)\)", API)) <= slug


def test_the_table_of_connect_has_its_defaults():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", SECTIONS["connect"], re.MULTILINE)
    for name, told in rows:
        default = inspect.signature(paramserver.connect).parameters[name].default
        if default is inspect.Parameter.empty:
            assert told.strip() == ""
        elif name == "name":
            assert (default, told) == ("", "one that nobody else has")
        elif name == "tables":
            assert (default, told) == ((), "none")
        elif default is None:
            assert told == "none"
        else:
            assert told == (f'`"{default}"`' if isinstance(default, str) else f"{default:g}")


def in_a_fresh_interpreter(program):
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_neither_numpy_nor_grpc():
    program = "import sys, paramserver; print([m for m in ('numpy', 'grpc', 'google') if m in sys.modules])"
    assert in_a_fresh_interpreter(program) == "[]"


def test_every_name_can_be_had_in_any_order_and_with_a_star():
    for names in (paramserver.__all__, paramserver.__all__[::-1]):
        program = (
            f"import paramserver\n"
            f"for name in {names!r}: print(type(getattr(paramserver, name)).__name__)\n"
            "from paramserver import *\n"
            f"assert set({names!r}) <= set(globals())\n"
            f"assert set({names!r}) <= set(dir(paramserver))\n"
        )
        kinds = in_a_fresh_interpreter(program).split()
        assert len(kinds) == len(names)
        assert "module" not in kinds


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'paramserver' has no attribute 'conect'"):
        _ = paramserver.conect
