"""``python -m benchmarks NAME``: measure, and print Markdown; ``--help`` lists the names."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path


def main() -> None:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "benchmark", choices=["transfer", "train", "predict", "doors", "durability", "sim", "fidelity"]
    )
    parser.add_argument("--pairs", type=int, default=7, help="measurements of each side, in turns (7)")
    parser.add_argument("--workers", type=int, default=1000, help="virtual workers of the whole jobs (1000)")
    parser.add_argument("--steps", type=int, default=10, help="steps of each virtual worker (10)")
    parser.add_argument("--shards", type=int, default=1, help="shards of the whole jobs (1)")
    parser.add_argument("--rules", nargs="+", default=["async", "sync", "ssp:2"], help="of the whole jobs")
    parser.add_argument("--jobs-only", action="store_true", help="nothing but the whole jobs")
    fidelity = parser.add_argument_group("fidelity")
    fidelity.add_argument("--quick", action="store_true", help="a few cells")
    fidelity.add_argument("--runs", type=int, default=5, help="real runs of each cell (5)")
    fidelity.add_argument("--only", type=int, nargs="*", default=[], metavar="CELL", help="cells by number")
    fidelity.add_argument("--out", type=Path, help="the page to write; else it is printed")
    options = parser.parse_args()
    # Before numpy is imported: one thread of linear algebra in each process, as the programs have it.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if options.benchmark == "fidelity":
        run_fidelity(options)
        return
    print(machine(), end="\n\n")
    if options.benchmark == "transfer":
        from benchmarks import transfer

        print(transfer.table(transfer.run(options.pairs)))
    elif options.benchmark == "predict":
        from benchmarks import predict

        print(predict.table(predict.run(options.pairs)))
    elif options.benchmark == "doors":
        from benchmarks import doors

        print(doors.table(doors.run(options.pairs)))
    elif options.benchmark == "durability":
        from benchmarks import durability

        print(durability.table(durability.run(options.pairs)))
    elif options.benchmark == "sim":
        from benchmarks import virtual_time

        if not options.jobs_only:
            print(virtual_time.table(virtual_time.run(options.pairs)), end="\n\n")
            print(virtual_time.profile(), end="\n\n")
        print(virtual_time.run_jobs(options.workers, options.steps, options.shards, options.rules))
    else:
        from benchmarks import train

        print(train.table(train.run(options.pairs)))


def run_fidelity(options: argparse.Namespace) -> None:
    """Predict and measure; what happens meanwhile goes to standard error."""
    from benchmarks import fidelity, fidelity_page

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    result = fidelity.run(options.quick, options.runs, report, options.only)
    page = fidelity_page.page(result, machine())
    if options.out is None:
        print(page)
    else:
        options.out.write_text(page, encoding="utf-8")


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
