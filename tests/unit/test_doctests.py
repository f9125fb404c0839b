"""The small examples in docstrings hold."""

import doctest
import importlib
from pathlib import Path

import pytest

import paramserver

ROOT = Path(paramserver.__file__).parent
MODULES = sorted(
    ".".join(("paramserver", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_many():
    assert len(MODULES) > 20
