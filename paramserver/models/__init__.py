"""Models: what a job trains, built on the computation graph.

``build_model("mlp:256,128", features=784, classes=10)`` gives a ``Model``: the shapes of its tensors by key,
their initial values, its logits, its loss and gradients. ``score`` and ``probabilities`` turn logits into
what people read.
"""

from paramserver.models.kinds import MODELS, build_model
from paramserver.models.model import Model
from paramserver.models.scoring import Score, area_under_curve, probabilities, score
from paramserver.models.spec import OPTIONS

__all__ = ["MODELS", "OPTIONS", "Model", "Score", "area_under_curve", "build_model", "probabilities", "score"]
