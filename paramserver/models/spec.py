"""The text of a model, such as ``mlp:256,128:tanh:dropout=0.2``, taken apart.

It is a kind, then numbers between commas where the kind has some, then options in any order, each after a
colon.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, get_args

from paramserver.errors import RequestError, did_you_mean
from paramserver.models.layers import Activation

NUMBERS: Final = re.compile(r"[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*", re.ASCII)

OPTIONS: Final = {
    "activation": "relu, tanh or sigmoid: what follows each hidden layer (relu)",
    "norm": "norm: layer normalisation before each activation",
    "dropout": "dropout=RATE: the share of hidden values that a training step leaves out",
    "image": "HEIGHTxWIDTHxCHANNELS: of images that are not square",
}
"""The options of models, with a line each."""

_ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)


@dataclass(frozen=True, slots=True)
class Spec:
    """A model's text, taken apart.

    Attributes:
        text: without spaces, in lower case.
        kind: the word before the first colon.
        numbers: after it; empty where there are none.
        activation: after each hidden layer.
        norm: whether there is layer normalisation.
        dropout: the share of hidden values left out in training, in [0, 1).
        image: height, width and channels, where they are stated.
    """

    text: str
    kind: str
    numbers: tuple[int, ...] = ()
    activation: Activation = "relu"
    norm: bool = False
    dropout: float = 0.0
    image: tuple[int, int, int] | None = None


def parse_spec(text: str, numbers: tuple[int, int], options: Collection[str]) -> Spec:
    """Take a model's text apart.

    Args:
        text: without spaces, in lower case.
        numbers: how many numbers this kind of model takes, at least and at most.
        options: names in ``OPTIONS`` that it has.

    Raises:
        RequestError: numbers are missing or surplus, or an option is unknown, stated twice, or not of this
            kind of model.

    Example:
        >>> spec = parse_spec("mlp:64,32:tanh:dropout=0.5", (1, 64), ["activation", "dropout"])
        >>> spec.numbers, spec.activation, spec.dropout
        ((64, 32), 'tanh', 0.5)
    """
    kind, *parts = text.split(":")
    stated: tuple[int, ...] = ()
    if parts and NUMBERS.fullmatch(parts[0]):
        stated = tuple(int(number) for number in parts.pop(0).split(","))
    least, most = numbers
    if len(stated) < least:
        raise RequestError(
            f"The model '{text}' does not say its sizes: expected {least} or more whole numbers from 1 up "
            f"between commas after the word, such as {kind}:256,128."
        )
    if len(stated) > most:
        raise RequestError(
            f"The model '{text}' states {len(stated)} numbers, but {kind} takes "
            + (f"at most {most}. Leave some out." if most else "none. Leave them out, or choose mlp.")
        )
    found: dict[str, Any] = {}
    for part in parts:
        name, value = _option(part)
        if name not in options:
            known = "; ".join(OPTIONS[name] for name in options) or "none"
            near = did_you_mean(part, [*_ACTIVATIONS, "norm", "dropout=0.2"]) if options else ""
            raise RequestError(
                f"The model '{text}' has the option '{part}', but the options of {kind} are: {known}.{near}"
            )
        if name in found:
            raise RequestError(f"The model '{text}' states its {name} twice. Leave one out.")
        found[name] = value
    return Spec(text, kind, stated, **found)


def _option(part: str) -> tuple[str, Any]:
    """Give the name of an option and its value; no name where it is none."""
    if part in _ACTIVATIONS:
        return "activation", part
    if part == "norm":
        return "norm", True
    if re.fullmatch(r"dropout=(0|0?\.[0-9]+)", part, re.ASCII):
        return "dropout", float(part.removeprefix("dropout="))
    if re.fullmatch(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}(x[1-9][0-9]{0,3})?", part, re.ASCII):
        height, width, *channels = map(int, part.split("x"))
        return "image", (height, width, *(channels or [1]))
    return "", None
