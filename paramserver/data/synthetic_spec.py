"""Synthetic data by its text, such as ``synthetic:spirals,n=3000,noise=0.1``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from paramserver.data import synthetic
from paramserver.data.dataset import Dataset
from paramserver.errors import Fault, RequestError, did_you_mean

PREFIX: Final = "synthetic:"

KINDS: Final[dict[str, Callable[..., Dataset]]] = {
    "spirals": synthetic.spirals,
    "linear": synthetic.linear,
    "teacher": synthetic.teacher,
    "clicks": synthetic.clicks,
}
"""The generators by name; their parameters are the options of the text."""

LINES: Final = {
    "spirals": "intertwined spirals in the plane, for classification",
    "linear": "a linear law with noise, for regression",
    "teacher": "labels by a fixed random network, for classification",
    "clicks": "sparse categories under Zipf's law with a yes or no",
}
"""What each kind is, in a line."""

NUMBERS_MAX = 1 << 28
"""Numbers in the inputs, or rows in the table: 1 GiB as float32."""

LIMITS: Final[dict[str, tuple[int, int]]] = {
    "n": (10, 10_000_000),
    "classes": (2, 1000),
    "features": (1, 100_000),
    "hidden": (1, 10_000),
    "fields": (1, 1000),
    "values": (2, 1 << 26),
    "noise": (0, 100),
    "zipf": (0, 10),
    "seed": (0, 2**63 - 1),
}
"""The least and the most of each option."""


def synthetic_data(text: str) -> Dataset:
    """Make the data set that a text describes.

    Args:
        text: ``synthetic:KIND`` and after commas options as ``name=number``: the parameters of the function
            of that name in `paramserver.data.synthetic`, all optional.

    Returns:
        The whole data set, not yet split, named by its text.

    Raises:
        RequestError: a kind or an option is unknown, or a number is out of range.

    Example:
        >>> data = synthetic_data("synthetic:linear, n=100, features=3")
        >>> data.inputs.shape, data.name
        ((100, 3), 'synthetic:linear,n=100,features=3')
    """
    name = "".join(text.split()).lower()
    kind, *options = name.removeprefix(PREFIX).split(",")
    if kind not in KINDS:
        raise RequestError(
            f"Unknown synthetic data '{kind}': expected one of {', '.join(KINDS)}, "
            f"such as {PREFIX}spirals,n=3000.{did_you_mean(kind, KINDS)}",
            Fault.UNKNOWN,
        )
    make = KINDS[kind]
    defaults = {key: parameter.default for key, parameter in inspect.signature(make).parameters.items()}
    chosen: dict[str, int | float] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if key not in defaults or not equals:
            raise RequestError(
                f"'{option}' is no option of {PREFIX}{kind}: expected name=number with the names "
                f"{', '.join(defaults)}.{did_you_mean(key, defaults)}"
            )
        if key in chosen:
            raise RequestError(f"'{name}' gives '{key}' twice. Drop one.")
        chosen[key] = _number(kind, key, value, type(defaults[key]))
    _check_size(name, {**defaults, **chosen})
    return replace(make(**chosen), name=name)


def _number(kind: str, key: str, value: str, number: type[int] | type[float]) -> int | float:
    least, most = LIMITS[key]
    if (kind, key) == ("teacher", "noise"):
        most = 1
    try:
        found = number(value)
    except ValueError:
        found = math.nan
    if not least <= found <= most:
        whole = "whole number" if number is int else "number"
        raise RequestError(
            f"'{key}' of {PREFIX}{kind} is a {whole} from {least} to {most}, but it is '{value}'."
        )
    return found


def _check_size(name: str, options: dict[str, int | float]) -> None:
    width = options.get("features", options.get("fields", 2))
    table = options.get("fields", 0) * options.get("values", 0)
    network = options.get("features", 0) * options.get("hidden", 0)
    if max(options["n"] * width, table, network) > NUMBERS_MAX:
        raise RequestError(
            f"'{name}' asks for more than {NUMBERS_MAX} numbers. Make it smaller.", Fault.EXHAUSTED
        )
