"""Reverse-mode automatic differentiation on NumPy arrays, in four ideas.

1. A computation is a directed acyclic graph (``graph``), built node by node with its shapes checked
   (``build``, ``shapes``).
2. Forward: visit the nodes in topological order, each after its inputs (``evaluate``).
3. Backward: visit them in reverse, and turn the gradient of each node into gradients of its inputs.
4. How to do that is one line of a table for each operation (``rules``), and each line is compared with
   numeric differences (``check``).

Read ``rules`` first.
"""

from paramserver.autodiff.build import GraphBuilder
from paramserver.autodiff.check import gradient_check
from paramserver.autodiff.drawing import svg
from paramserver.autodiff.evaluate import Evaluator
from paramserver.autodiff.graph import Graph, Node
from paramserver.autodiff.losses import binary_cross_entropies, cross_entropies, sigmoid, softmax
from paramserver.autodiff.rules import RULES, Rule

__all__ = [
    "RULES",
    "Evaluator",
    "Graph",
    "GraphBuilder",
    "Node",
    "Rule",
    "binary_cross_entropies",
    "cross_entropies",
    "gradient_check",
    "sigmoid",
    "softmax",
    "svg",
]
