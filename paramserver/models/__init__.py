"""Models: what a job trains, built on the computation graph.

``build_model("mlp:256,128", features=784, classes=10)`` gives a ``Model``: the shapes of its tensors by key,
their initial values, its logits, its loss and gradients. ``score`` and ``probabilities`` turn logits into
what people read.
"""

from paramserver.models.model import Model
from paramserver.models.scoring import Score, probabilities, score
from paramserver.models.spec import build_model

__all__ = ["Model", "Score", "build_model", "probabilities", "score"]
