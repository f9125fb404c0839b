"""``python -m benchmarks transfer|train|predict|sim``: measure, and print Markdown."""

from __future__ import annotations

import argparse
import os
import platform


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", choices=["transfer", "train", "predict", "sim"])
    parser.add_argument("--pairs", type=int, default=7, help="measurements of each side, in turns (7)")
    parser.add_argument("--workers", type=int, default=1000, help="virtual workers of the whole jobs (1000)")
    parser.add_argument("--steps", type=int, default=10, help="steps of each virtual worker (10)")
    options = parser.parse_args()
    # Before numpy is imported: one thread of linear algebra in each process, as the programs have it.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    print(machine(), end="\n\n")
    if options.benchmark == "transfer":
        from benchmarks import transfer

        print(transfer.table(transfer.run(options.pairs)))
    elif options.benchmark == "predict":
        from benchmarks import predict

        print(predict.table(predict.run(options.pairs)))
    elif options.benchmark == "sim":
        from benchmarks import virtual_time

        print(virtual_time.table(virtual_time.run(options.pairs)), end="\n\n")
        print(virtual_time.run_jobs(options.workers, options.steps), end="\n\n")
        print(virtual_time.profile())
    else:
        from benchmarks import train

        print(train.table(train.run(options.pairs)))


def machine() -> str:
    """Describe where this runs."""
    import grpc
    import numpy as np

    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, gRPC {grpc.__version__}"
    )


if __name__ == "__main__":
    main()
