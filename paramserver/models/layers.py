"""Layers: small patterns of nodes that models are made of, with the values that their weights begin with."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from paramserver.autodiff import GraphBuilder, Node
from paramserver.errors import RequestError

Activation = Literal["relu", "tanh", "sigmoid"]

TABLE_DEVIATION = 0.1
"""Of a table's first values: small, so that a row that is seldom read says little."""


class Initial(NamedTuple):
    """What a tensor begins with: normal values of this mean and standard deviation."""

    mean: float
    deviation: float


class Layers:
    """Add layers to a graph, and remember how their weights begin.

    Weights before a relu are normal with variance 2 / inputs (He et al., Delving Deep into Rectifiers,
    2015, section 2.2), other weights with variance 2 / (inputs + outputs) (Glorot and Bengio, Understanding
    the difficulty of training deep feedforward neural networks, 2010, section 4.2.1); biases are zero.

    Args:
        build: where the nodes go.

    Attributes:
        initials: by key.
    """

    def __init__(self, build: GraphBuilder) -> None:
        self.build = build
        self.initials: dict[str, Initial] = {}

    def dense(
        self, layer: str, inputs: Node, outputs: int, activation: Activation | None, name: str = ""
    ) -> Node:
        """Add ``inputs @ weight + bias``.

        Args:
            layer: such as ``dense1``; the keys are ``dense1/weight`` (in, out) and ``dense1/bias`` (out,).
            inputs: a node ``(batch, in)``.
            outputs: the width of the result.
            activation: what will follow; it is not added.
            name: of the result; ``dense1/add`` by default.

        Returns:
            A node ``(batch, outputs)``.

        Raises:
            RequestError: the inputs are no matrix with a known width.
        """
        width = inputs.shape[-1] if len(inputs.shape) == 2 else None
        if not isinstance(width, int):
            raise RequestError(
                f"Layer '{layer}' takes (batch, features), but '{inputs.name}' is {inputs.type_text}. "
                "Give it one flat row for each sample."
            )
        initial = _spread(width, outputs, activation)
        weight = self.parameter(f"{layer}/weight", (width, outputs), initial)
        bias = self.parameter(f"{layer}/bias", (outputs,), Initial(0, 0))
        product = self.build.apply("matmul", inputs, weight, name=f"{layer}/matmul")
        return self.build.apply("add", product, bias, name=name or f"{layer}/add")

    def conv(
        self, layer: str, images: Node, filters: int, size: int, padding: int, activation: Activation
    ) -> Node:
        """Add a convolution with a bias for each filter.

        Args:
            layer: such as ``conv1``; the keys are ``conv1/weight`` (filters, size, size, channels) and
                ``conv1/bias`` (filters,).
            images: a node ``(batch, height, width, channels)``.
            filters: channels of the result.
            size: height and width of a filter, in pixels.
            padding: zeros around the image, in pixels.
            activation: what will follow; it is not added.

        Returns:
            A node ``(batch, height + 2 padding - size + 1, ..., filters)``.
        """
        channels = int(images.shape[3])
        initial = _spread(size * size * channels, size * size * filters, activation)
        weight = self.parameter(f"{layer}/weight", (filters, size, size, channels), initial)
        bias = self.parameter(f"{layer}/bias", (filters,), Initial(0, 0))
        product = self.build.apply(
            "conv2d", images, weight, name=f"{layer}/conv2d", stride=1, padding=padding
        )
        return self.build.apply("add", product, bias, name=f"{layer}/add")

    def norm(self, layer: str, inputs: Node) -> Node:
        """Add layer normalisation with the keys ``layer/gain`` and ``layer/offset``, both ``(width,)``."""
        width = int(inputs.shape[-1])
        gain = self.parameter(f"{layer}/gain", (width,), Initial(1, 0))
        offset = self.parameter(f"{layer}/offset", (width,), Initial(0, 0))
        return self.build.apply("layer_norm", inputs, gain, offset, name=f"{layer}/norm")

    def dropout(self, layer: str, inputs: Node, rate: float) -> Node:
        """Add dropout, with an input ``layer/chance`` that a training step fills with uniform numbers."""
        if rate == 0:
            return inputs
        chance = self.build.input(f"{layer}/chance", inputs.shape)
        return self.build.apply("dropout", inputs, chance, name=f"{layer}/dropout", rate=rate)

    def parameter(self, key: str, shape: tuple[int, ...], initial: Initial) -> Node:
        """Add a tensor that is learnt."""
        self.initials[key] = initial
        return self.build.parameter(key, shape)


def _spread(inputs: int, outputs: int, activation: Activation | None) -> Initial:
    return Initial(0, math.sqrt(2 / inputs if activation == "relu" else 2 / (inputs + outputs)))
