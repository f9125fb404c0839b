"""The picture of the layers in the README is the one that import-linter holds."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
LAYER = {
    name.strip().removeprefix("paramserver."): place
    for place, line in enumerate(CONTRACT["layers"])
    for name in line.split("|")
}


def drawn():
    """Return the groups of neighbours in the picture, from the top down."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Architecture\n")[2]
    picture = text.split("```")[1]
    names = [re.split(r"\s{2,}", line[4:])[0] for line in picture.strip("\n").splitlines()]
    return [[name.strip() for name in group.split("|")] for line in names for group in line.split(",")]


def test_every_module_is_in_the_picture_once():
    found = [name for group in drawn() for name in group]
    assert sorted(found) == sorted(LAYER)


def test_neighbours_are_on_one_layer_and_what_is_lower_is_drawn_lower():
    places = [[LAYER[name] for name in group] for group in drawn()]
    assert all(len(set(group)) == 1 for group in places)
    assert [group[0] for group in places] == sorted(group[0] for group in places)


def test_every_module_has_a_layer():
    package = ROOT / "paramserver"
    modules = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert modules - {"__init__", "__main__"} | {"server", "worker"} == set(LAYER)
