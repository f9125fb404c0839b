"""From the text of a model, such as ``mlp:256,128``, to the model.

To add a kind of model, write a function that adds its layers and returns the last one, and add a row to
``KINDS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from paramserver.autodiff import GraphBuilder, Node
from paramserver.errors import RequestError, did_you_mean
from paramserver.models.layers import TABLE_DEVIATION, Initial, Layers
from paramserver.models.model import Model
from paramserver.models.spec import Spec, parse_spec

HIDDEN_LAYERS_MAX: Final = 64
"""Deeper stacks of plain layers do not train, and each layer costs two keys."""

WEIGHTS_MAX: Final = 2**31
"""8 GiB of float32 in one job: more is a slip of the pen."""

CNN_FILTERS: Final = (16, 32)
"""Of ``cnn`` without numbers. Measured on Fashion-MNIST with adam at 0.003 (cosine) and batches of 32: 0.903
of the test set after 3 epochs, 12 s an epoch on one core; with 8 and 16 filters 0.897 after 5, 8 s each."""

Predicts = Literal["classes", "two classes", "a number", "any"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model.

    Attributes:
        line: what it is, for a list.
        layers: adds the layers, from the inputs and the number of classes (0 for a number) to the last one.
        predicts: what it can predict.
        numbers: how many numbers its text has, at least and at most.
        options: names in ``OPTIONS``.
        rows: whether its inputs are row indices of a table of ``numbers[0]`` rows.
    """

    line: str
    layers: Callable[[Layers, Node, int, Spec], Node]
    predicts: Predicts
    numbers: tuple[int, int] = (0, 0)
    options: tuple[str, ...] = ()
    rows: bool = False


def build_model(spec: str, features: int, classes: int, rows: int = 0) -> Model:
    """Build a model from its text.

    Args:
        spec: such as ``softmax``, ``mlp:256,128``, ``cnn`` or ``logistic:262144``; ``MODELS`` lists them.
        features: the width of an input row, at least 1.
        classes: the number of classes, at least 2; 0 where the labels are numbers to be predicted.
        rows: of the table that inputs of row indices point into, which ``logistic`` takes for its own; 0
            where inputs are numbers.

    Returns:
        The model; its ``spec`` is the text without spaces, in lower case.

    Raises:
        RequestError: the text names no model, a number is out of range, or the model cannot predict such
            labels.

    Example:
        >>> model = build_model("mlp:16", features=4, classes=3)
        >>> dict(model.shapes)
        {'dense1/bias': (16,), 'dense1/weight': (4, 16), 'dense2/bias': (3,), 'dense2/weight': (16, 3)}
    """
    if features < 1 or classes < 0 or classes == 1:
        raise RequestError(
            f"A model takes at least 1 feature and 2 classes, or 0 where labels are numbers; found "
            f"{features} and {classes}. Check the data: from a single class there is nothing to learn."
        )
    canonical = "".join(spec.split()).lower()
    name = canonical.partition(":")[0]
    if name not in KINDS:
        raise RequestError(
            f"The model '{spec}' is unknown: expected one of {', '.join(MODELS)}.{did_you_mean(name, KINDS)}"
        )
    kind = KINDS[name]
    if rows and kind.rows and canonical == name and kind.numbers[0] == 0:
        canonical = f"{name}:{rows}"
    parsed = parse_spec(canonical, kind.numbers, kind.options)
    _check_task(canonical, kind, classes)
    build = GraphBuilder()
    layers = Layers(build)
    by_rows = kind.rows and parsed.numbers != ()
    inputs = build.input("inputs", ("batch", features), "int64" if by_rows else "float32")
    labels = build.input("labels", ("batch",), "int64" if classes else "float32")
    outputs = kind.layers(layers, inputs, classes, parsed)
    loss = "squared_error" if not classes else "binary_cross_entropy"
    build.apply("softmax_cross_entropy" if len(outputs.shape) == 2 else loss, outputs, labels, name="loss")
    graph = build.graph()
    weights = sum(node.weights for node in graph.parameters)
    if weights > WEIGHTS_MAX:
        raise RequestError(
            f"The model '{canonical}' on {features} features has {weights} weights; "
            f"at most {WEIGHTS_MAX} are allowed. Make its layers narrower."
        )
    return Model(canonical, features, classes, graph, MappingProxyType(layers.initials))


def _check_task(text: str, kind: Kind, classes: int) -> None:
    found = f"{classes} classes" if classes else "numbers as labels"
    if kind.predicts == "a number" and classes:
        raise RequestError(
            f"The model '{text}' predicts a number, but the data has {found}. "
            "Choose a classifier such as softmax, or data whose labels are numbers."
        )
    if kind.predicts == "classes" and not classes:
        raise RequestError(
            f"The model '{text}' predicts classes, but the data has {found}. Choose linear or mlp."
        )
    if kind.predicts == "two classes" and classes != 2:
        raise RequestError(
            f"The model '{text}' predicts one of two classes, but the data has {found}. "
            f"Choose {'softmax' if classes else 'linear'}."
        )


def _linear(layers: Layers, inputs: Node, classes: int, spec: Spec) -> Node:
    return _one_value(layers, layers.dense("dense1", inputs, 1, None))


def _softmax(layers: Layers, inputs: Node, classes: int, spec: Spec) -> Node:
    return layers.dense("dense1", inputs, classes, None, name="logits")


def _mlp(layers: Layers, inputs: Node, classes: int, spec: Spec) -> Node:
    return _head(layers, *_hidden(layers, inputs, spec.numbers, spec), classes)


def _cnn(layers: Layers, inputs: Node, classes: int, spec: Spec) -> Node:
    build = layers.build
    images = build.apply("reshape", inputs, name="images", shape=_image(spec, int(inputs.shape[1])))
    for number, filters in enumerate(spec.numbers or CNN_FILTERS, start=1):
        layer = f"conv{number}"
        if min(int(images.shape[1]), int(images.shape[2])) < 2:
            raise RequestError(
                f"The model '{spec.text}' halves its images in each layer, but before {layer} they are "
                f"{images.shape[1]} x {images.shape[2]}. Give it fewer numbers, or larger images."
            )
        images = layers.conv(layer, images, filters, size=3, padding=1, activation=spec.activation)
        # Activations rise with their input, so the largest may be taken first: a quarter of the work.
        images = build.apply("max_pool", images, name=f"{layer}/pool", size=2)
        images = build.apply(spec.activation, images, name=f"{layer}/{spec.activation}")
    flat = build.apply("flatten", images, name="flatten")
    return _head(layers, layers.dropout("flatten", flat, spec.dropout), 1, classes)


def _logistic(layers: Layers, inputs: Node, classes: int, spec: Spec) -> Node:
    if not spec.numbers:
        return _linear(layers, inputs, classes, spec)
    build = layers.build
    table = layers.parameter("linear/weight", (spec.numbers[0], 1), Initial(0, 0))
    bias = layers.parameter("linear/bias", (1,), Initial(0, 0))
    weights = build.apply("gather", table, inputs, name="linear/gather")
    total = build.apply("sum", weights, name="linear/sum", axis=1)
    return _one_value(layers, build.apply("add", total, bias, name="linear/add"))


def _embedding(layers: Layers, inputs: Node, classes: int, spec: Spec) -> Node:
    rows, width, *hidden = spec.numbers
    table = layers.parameter("embedding/weight", (rows, width), Initial(0, TABLE_DEVIATION))
    vectors = layers.build.apply("gather", table, inputs, name="embedding/gather")
    flat = layers.build.apply("flatten", vectors, name="embedding/flatten")
    return _head(layers, *_hidden(layers, flat, tuple(hidden), spec), classes)


def _hidden(layers: Layers, values: Node, widths: tuple[int, ...], spec: Spec) -> tuple[Node, int]:
    """Add dense layers dense1, dense2, ...; give the last one, and the number of the next."""
    for number, width in enumerate(widths, start=1):
        layer = f"dense{number}"
        values = layers.dense(layer, values, width, spec.activation)
        if spec.norm:
            values = layers.norm(layer, values)
        values = layers.build.apply(spec.activation, values, name=f"{layer}/{spec.activation}")
        values = layers.dropout(layer, values, spec.dropout)
    return values, len(widths) + 1


def _head(layers: Layers, values: Node, number: int, classes: int) -> Node:
    if classes:
        return layers.dense(f"dense{number}", values, classes, None, name="logits")
    return _one_value(layers, layers.dense(f"dense{number}", values, 1, None))


def _one_value(layers: Layers, values: Node) -> Node:
    """Turn ``(batch, 1)`` into ``(batch,)``."""
    return layers.build.apply("reshape", values, name="logits", shape=())


def _image(spec: Spec, features: int) -> tuple[int, int, int]:
    """Give height, width and channels of square images of one or three channels, or as stated."""
    if spec.image is not None:
        if math.prod(spec.image) != features:
            raise RequestError(
                f"The model '{spec.text}' takes images of {math.prod(spec.image)} values, but the data has "
                f"{features} features. Correct the size of the image."
            )
        return spec.image
    for channels in (1, 3):  # no number is both a square and three times a square
        side = math.isqrt(features // channels)
        if side * side * channels == features:
            return side, side, channels
    raise RequestError(
        f"The model '{spec.text}' takes images, but {features} features are no square of pixels with one or "
        "three channels. State the size, as in cnn:16,32:28x28x1, or choose mlp."
    )


KINDS: Final[dict[str, Kind]] = {
    "linear": Kind("linear regression, squared error", _linear, "a number"),
    "logistic": Kind(
        "logistic regression on two classes; logistic:ROWS on categories hashed into that many rows",
        _logistic,
        "two classes",
        numbers=(0, 1),
        rows=True,
    ),
    "softmax": Kind("softmax regression on any number of classes", _softmax, "classes"),
    "mlp": Kind(
        "multi-layer perceptron, mlp:H1,H2,… with the widths of its hidden layers "
        "[:tanh|sigmoid] [:norm] [:dropout=RATE]",
        _mlp,
        "any",
        numbers=(1, HIDDEN_LAYERS_MAX),
        options=("activation", "norm", "dropout"),
    ),
    "cnn": Kind(
        f"convolutions of 3 x 3 and pools of 2 x 2, cnn:F1,F2,… with their filters "
        f"({','.join(map(str, CNN_FILTERS))}) [:tanh|sigmoid] [:dropout=RATE] [:HxWxC]",
        _cnn,
        "any",
        numbers=(0, HIDDEN_LAYERS_MAX),
        options=("activation", "dropout", "image"),
    ),
    "embedding": Kind(
        "embedding:ROWS,WIDTH,H1,…: a vector for each hashed category, then hidden layers as in mlp",
        _embedding,
        "any",
        numbers=(2, HIDDEN_LAYERS_MAX),
        options=("activation", "norm", "dropout"),
        rows=True,
    ),
}
"""The kinds of models by the word before the colon."""

MODELS: Final = MappingProxyType({name: kind.line for name, kind in KINDS.items()})
"""The models that a job may name, with a line each."""
