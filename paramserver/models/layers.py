"""Layers: small patterns of nodes that models are made of."""

from __future__ import annotations

from paramserver.autodiff import GraphBuilder, Node
from paramserver.errors import RequestError


def dense(build: GraphBuilder, layer: str, inputs: Node, outputs: int, name: str | None = None) -> Node:
    """Add ``inputs @ weight + bias``.

    Args:
        build: where the nodes go.
        layer: such as ``dense1``; the keys are ``dense1/weight`` (in, out) and ``dense1/bias`` (out,).
        inputs: a node ``(batch, in)``.
        outputs: the width of the result.
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
    weight = build.parameter(f"{layer}/weight", (width, outputs))
    bias = build.parameter(f"{layer}/bias", (outputs,))
    product = build.apply("matmul", inputs, weight, name=f"{layer}/matmul")
    return build.apply("add", product, bias, name=name or f"{layer}/add")
