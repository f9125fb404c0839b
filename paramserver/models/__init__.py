"""Models: what a job trains, built on the computation graph.

``build_model("mlp:256,128", features=784, classes=10)`` gives a ``Model``: the shapes of its tensors by key,
their initial values, its logits, its loss and gradients. ``Network`` builds one layer by layer, and
``OwnModel`` holds one that a user wrote to what it promises. ``score`` and ``probabilities`` turn logits into
what people read.
"""

from paramserver.models.fit import build_for, classes_of, predicts_a_number
from paramserver.models.kinds import MODELS, build_model
from paramserver.models.model import Model
from paramserver.models.network import Network
from paramserver.models.own import OwnModel
from paramserver.models.scoring import Score, area_under_curve, probabilities, score, score_logits
from paramserver.models.spec import OPTIONS
from paramserver.models.trainable import Trainable

__all__ = [
    "MODELS",
    "OPTIONS",
    "Model",
    "Network",
    "OwnModel",
    "Score",
    "Trainable",
    "area_under_curve",
    "build_for",
    "build_model",
    "classes_of",
    "predicts_a_number",
    "probabilities",
    "score",
    "score_logits",
]
