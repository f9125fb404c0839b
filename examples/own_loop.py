"""A training loop of your own in plain NumPy: softmax regression on digits, by two replicas.

    paramserver server --listen 127.0.0.1:7070      # in one terminal
    python examples/own_loop.py                     # in a second one
    python examples/own_loop.py                     # and in a third

Nothing begins before both have joined. The server averages what the two push, applies it once, and ends when
both have left. Another address may be given as the argument.
"""

import sys

import numpy as np

from paramserver import connect, load

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7070"
digits = load("digits")
weights = {"weight": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}

with connect(address, weights=weights, consistency="sync", optimizer="sgd", lr=0.5, replicas=2) as replica:
    rng = np.random.default_rng(replica.rank)
    for step in range(replica.clock, 200):
        values = replica.pull()
        inputs, labels = digits.train[rng.integers(len(digits.train), size=32)]
        exponentials = np.exp(inputs @ values["weight"] + values["bias"])
        errors = exponentials / exponentials.sum(axis=1, keepdims=True) - np.eye(10)[labels]
        verdict = replica.push({"weight": inputs.T @ errors / 32, "bias": errors.mean(axis=0)}, samples=32)
        if step % 50 == 0:
            print(f"step {step}: {verdict}")
    values = replica.pull()

predicted = (digits.test.inputs @ values["weight"] + values["bias"]).argmax(axis=1)
print(f"replica {replica.rank}: test accuracy {(predicted == digits.test.labels).mean():.4f}")
