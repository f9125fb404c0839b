"""A job whose gradients can take longer than they compute: a real wait that stands for an accelerator's time.

    paramserver train benchmarks/padded.py --workers 4 --threads 1

Each gradient waits for a time drawn evenly from half to one and a half times PADDING_MS, an environment
variable, before it computes; 20 ms where nothing is said, and 0 for no wait. PADDING_FACTOR makes all waits
of a process so many times as long. PADDING_HIDDEN gives the widths of the layers.
"""

import os
import time

import numpy as np

from paramserver import Network

SAMPLES, FEATURES, CLASSES = 8192, 64, 10
HIDDEN = [int(width) for width in os.environ.get("PADDING_HIDDEN", "128").split(",")]
PADDING_SECONDS = (
    float(os.environ.get("PADDING_MS", "20")) / 1000 * float(os.environ.get("PADDING_FACTOR", "1"))
)

JOB = {"batch": 128, "epochs": 2, "threads": 1, "optimizer": "sgd", "lr": 0.01, "schedule": "constant"}


def data():
    """Draw points around one centre for each class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=SAMPLES)
    centres = rng.normal(size=(CLASSES, FEATURES))
    return (centres[labels] + rng.normal(scale=2.0, size=(SAMPLES, FEATURES))).astype(np.float32), labels


class Padded:
    """A network of dense layers that waits before each gradient."""

    def __init__(self, features, classes):
        net = Network(features, classes)
        layer = net.inputs
        for width in HIDDEN:
            layer = net.dense(layer, width, "relu")
        self._model = net.model(net.dense(layer, classes))
        self._rng = np.random.default_rng()  # every replica waits for other times
        self.initial, self.logits = self._model.initial, self._model.logits

    def gradient(self, values, inputs, labels):
        """Wait, then compute."""
        if PADDING_SECONDS:
            time.sleep(PADDING_SECONDS * self._rng.uniform(0.5, 1.5))
        return self._model.gradient(values, inputs, labels)


def model(features, classes):
    """Return the network."""
    return Padded(features, classes)
