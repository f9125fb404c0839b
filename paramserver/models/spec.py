"""From the text of a model, such as ``mlp:256,128``, to the model.

To add a kind of model, write a function from its text after the colon to nodes, and add a row to ``KINDS``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Final

from paramserver.autodiff import GraphBuilder, Node
from paramserver.errors import RequestError, did_you_mean
from paramserver.models.layers import dense
from paramserver.models.model import Model

HIDDEN_LAYERS_MAX: Final = 64
"""Deeper stacks of plain dense layers do not train, and each layer costs two keys."""

WEIGHTS_MAX: Final = 2**31
"""8 GiB of float32 in one job: more is a slip of the pen."""

Scales = dict[str, float]
"""The standard deviation of the initial values, by key."""


def build_model(spec: str, features: int, classes: int) -> Model:
    """Build a model from its text.

    Args:
        spec: ``softmax`` (softmax regression) or ``mlp:256,128`` (a multi-layer perceptron with relu after
            each hidden layer of the given widths).
        features: the width of an input row, at least 1.
        classes: the number of classes, at least 2.

    Returns:
        The model; its ``spec`` is the text without spaces, in lower case.

    Raises:
        RequestError: the text names no model, or a number is out of range.

    Example:
        >>> model = build_model("mlp:16", features=4, classes=3)
        >>> dict(model.shapes)
        {'dense1/bias': (16,), 'dense1/weight': (4, 16), 'dense2/bias': (3,), 'dense2/weight': (16, 3)}
    """
    if features < 1 or classes < 2:
        raise RequestError(
            f"A model takes at least 1 feature and 2 classes, found {features} and {classes}. "
            "Check the data: a classifier has nothing to learn from a single class."
        )
    canonical = "".join(spec.split()).lower()
    kind = canonical.partition(":")[0]
    if kind not in KINDS:
        raise RequestError(
            f"The model '{spec}' is unknown: expected softmax, or mlp with its hidden widths "
            f"such as mlp:256,128.{did_you_mean(kind, KINDS)}"
        )
    build = GraphBuilder()
    inputs = build.input("inputs", ("batch", features))
    labels = build.input("labels", ("batch",), "int64")
    logits, scales = KINDS[kind](build, inputs, classes, canonical)
    build.apply("softmax_cross_entropy", logits, labels, name="loss")
    graph = build.graph()
    weights = sum(math.prod(map(int, node.shape)) for node in graph.parameters)
    if weights > WEIGHTS_MAX:
        raise RequestError(
            f"The model '{canonical}' on {features} features has {weights} weights; "
            f"at most {WEIGHTS_MAX} are allowed. Make its layers narrower."
        )
    return Model(canonical, features, classes, graph, MappingProxyType(scales))


def _softmax(build: GraphBuilder, inputs: Node, classes: int, spec: str) -> tuple[Node, Scales]:
    if spec != "softmax":
        raise RequestError(f"The model softmax has no hidden layers, found '{spec}'. Did you mean 'mlp'?")
    return _stack(build, inputs, [], classes)


def _mlp(build: GraphBuilder, inputs: Node, classes: int, spec: str) -> tuple[Node, Scales]:
    if not re.fullmatch(r"mlp:[1-9][0-9]{0,9}(,[1-9][0-9]{0,9})*", spec):
        raise RequestError(
            f"The model '{spec}' does not say its hidden widths: expected whole numbers from 1 up "
            "between commas, such as mlp:128 or mlp:256,128."
        )
    widths = [int(width) for width in spec.removeprefix("mlp:").split(",")]
    if len(widths) > HIDDEN_LAYERS_MAX:
        raise RequestError(
            f"The model '{spec}' has {len(widths)} hidden layers; at most {HIDDEN_LAYERS_MAX} are allowed. "
            "Leave some out."
        )
    return _stack(build, inputs, widths, classes)


def _stack(build: GraphBuilder, inputs: Node, widths: list[int], classes: int) -> tuple[Node, Scales]:
    """Add dense layers dense1, dense2, ...: the hidden ones with relu, the last one to the logits."""
    scales: Scales = {}
    hidden = inputs
    for number, width in enumerate([*widths, classes], start=1):
        layer, fan_in = f"dense{number}", int(hidden.shape[-1])
        scales[f"{layer}/bias"] = 0.0
        if number > len(widths):
            scales[f"{layer}/weight"] = math.sqrt(2 / (fan_in + width))
            hidden = dense(build, layer, hidden, width, name="logits")
        else:
            scales[f"{layer}/weight"] = math.sqrt(2 / fan_in)
            hidden = build.apply("relu", dense(build, layer, hidden, width), name=f"{layer}/relu")
    return hidden, scales


KINDS: Final[dict[str, Callable[[GraphBuilder, Node, int, str], tuple[Node, Scales]]]] = {
    "softmax": _softmax,
    "mlp": _mlp,
}
"""The kinds of models by the word before the colon."""
