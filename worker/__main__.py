"""``python -P -m worker``: read the options, run, and end with one sentence and the right code."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace

from paramserver.logs import set_up_logs
from worker.stops import Stops

log = logging.getLogger("worker")

_BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def main(arguments: list[str]) -> int:
    """Run a worker.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 done, 1 it or the job failed, 2 the options or the data cannot be used, 130 or 143
        interrupted.
    """
    stops = Stops()
    from paramserver.errors import RequestError
    from worker.naming import take_index
    from worker.options import blas_threads, read_options

    try:
        options = read_options(arguments)
        named_in = options.named_in
        if named_in is not None:
            options = replace(options, worker=take_index(named_in), named_in=None)
    except RequestError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    role, index = ("evaluator", None) if options.evaluate else ("worker", options.index)
    set_up_logs(options.log_format, options.log_level, role, index, options.name)
    if named_in is not None:
        log.info("Called %s, the lowest name that was free in %s.", options.name, named_in)
    stops.listen(options.exit_with_parent)
    threads = blas_threads(options.job)
    if threads > 0:
        for name in _BLAS_VARIABLES:
            os.environ.setdefault(name, str(threads))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes lines of its own to stderr, not sentences
    # Only now, since these import numpy, which reads those variables once.
    from paramserver.wire.memory import keep_freed_memory
    from worker.program import run

    keep_freed_memory()
    return run(options, stops)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
