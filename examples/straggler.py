"""One slow replica among three: who waits for it in each consistency model, and how old gradients get.

    python examples/straggler.py

In sync everyone waits for the slowest, and no gradient is stale. In async nobody waits, and what the slow
replica pushes was computed at weights that the others have left behind. ssp:3 is in between: the fast ones go
ahead by three steps and no more. The verdict on each push says how stale it was.
"""

import threading
import time

import numpy as np

from paramserver import connect, serve

STEPS = 30
COMPUTE_SECONDS = (0.005, 0.005, 0.025)  # one step of each replica; the last one is the straggler


def train(address: str, consistency: str, index: int, lines: list[str]) -> None:
    job = {"weights": {"w": np.zeros(8, np.float32)}, "consistency": consistency}
    waited, staleness = 0.0, []
    with connect(address, replicas=len(COMPUTE_SECONDS), **job) as replica:
        replica.pull()  # nothing begins before all have joined
        began = time.perf_counter()
        for _ in range(STEPS):
            asked = time.perf_counter()
            values = replica.pull()
            waited += time.perf_counter() - asked
            if replica.verdict is not None:  # on the push before: in sync it comes with this pull
                staleness.append(replica.verdict.staleness)
            time.sleep(COMPUTE_SECONDS[index])
            replica.push({"w": values["w"] - 1}, samples=1)
        seconds = time.perf_counter() - began
    speed = "slow" if COMPUTE_SECONDS[index] > min(COMPUTE_SECONDS) else "fast"
    stale = f"mean {np.mean(staleness):.1f}, max {max(staleness)}"
    lines[index] = (
        f"{consistency:<8}{speed:<9}{seconds:4.2f} s{waited / seconds:9.0%}   {stale:<17} {replica.verdict}"
    )


def main() -> None:
    print("mode    replica  time    waiting  staleness         last verdict")
    for consistency in ("sync", "ssp:3", "async"):
        lines = [""] * len(COMPUTE_SECONDS)
        with serve() as address:
            threads = [
                threading.Thread(target=train, args=(address, consistency, index, lines))
                for index in range(len(lines))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        print(*lines, sep="\n")


if __name__ == "__main__":
    main()
