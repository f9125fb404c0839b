"""A model and data of your own in one file, which every engine trains as it is.

    paramserver train examples/own_model.py
    paramserver train examples/own_model.py --engine sequential

Options are those of the command line; what is given there wins over JOB.
"""

import numpy as np

from paramserver import Network

JOB = {"epochs": 30, "lr": 0.01}


def data():
    """Draw two interleaved half moons."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=1000)
    angles = rng.uniform(0, np.pi, size=1000)
    moons = np.stack([np.cos(angles) + labels, np.where(labels, -1, 1) * np.sin(angles) + labels / 2], axis=1)
    return (moons + rng.normal(scale=0.15, size=(1000, 2))).astype(np.float32), labels


def model(features, classes):
    """Build a network of two hidden layers."""
    net = Network(features, classes)
    hidden = net.dense(net.inputs, 32, "tanh")
    hidden = net.dense(hidden, 32, "tanh")
    return net.model(net.dense(hidden, classes))
