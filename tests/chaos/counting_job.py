"""A job whose weights say how often each sample was applied.

The gradient of a batch is -1 at its samples and the learning rate is 1, so every update adds exactly 1 to
each of them, whatever the order. After E epochs every sample of the training set has to have E: less is a
lost update, more is one that was applied twice.
"""

import sys
import time

import numpy as np

SAMPLES = 1000
JOB = {
    "epochs": 8,
    "batch": 16,
    "optimizer": "sgd",
    "lr": 1.0,
    "schedule": "constant",
    "checkpoint_every": "40",
}

# Worker 1 is slow, so that under ssp the others wait for it.
STEP_SECONDS = 0.02 if "--worker 1" in " ".join(sys.argv) else 0.008


def data():
    """Return samples whose one feature is their number."""
    numbers = np.arange(SAMPLES)
    return numbers.astype(np.float32).reshape(-1, 1), numbers % 10


class Counting:
    """Counts samples in its weights, and predicts nothing."""

    def initial(self, seed):
        return {"seen": np.zeros(SAMPLES, np.float32)}

    def gradient(self, values, inputs, labels):
        time.sleep(STEP_SECONDS)
        gradient = np.zeros(SAMPLES, np.float32)
        gradient[inputs[:, 0].astype(int)] = -1
        return 0.0, {"seen": gradient}

    def logits(self, values, inputs):
        return np.zeros((len(inputs), 10), np.float32)


def model():
    return Counting()
