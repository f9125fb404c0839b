"""Predict from the weights of a job while it is trained.

    python examples/predict_live.py

An observer only reads: nobody waits for it, and it is no replica. Here one script trains and looks in turn;
any other process that knows the address may look, too, at any moment, and never sees half an update.
"""

import numpy as np

from paramserver import build_model, connect, load, observe, score, serve

STEPS, BATCH = 300, 32

digits = load("digits")
model = build_model("mlp:32", digits.train.features, digits.train.classes)
job = {"weights": model.initial(0), "optimizer": "adam", "lr": 0.005, "consistency": "async"}

with serve(shards=2) as address, connect(address, **job) as replica, observe(address) as observer:
    rng = np.random.default_rng(0)
    for step in range(STEPS + 1):
        if step % 50 == 0:
            found = score(model, observer.pull(), digits.test.inputs, digits.test.labels)
            print(f"at version {observer.versions[0]:3}: test accuracy {found.accuracy:.3f}")
        inputs, labels = digits.train[rng.integers(len(digits.train), size=BATCH)]
        loss, gradients = model.gradient(replica.pull(), inputs, labels)
        replica.push(gradients, samples=BATCH, loss=loss)
