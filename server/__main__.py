"""``python -P -m server``: read the options, run, and end with one sentence and the right code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from types import FrameType

from paramserver.logs import set_up_logs

log = logging.getLogger("server")


def main(arguments: list[str]) -> int:
    """Run a server.

    Args:
        arguments: the command line without the program's name.

    Returns:
        The exit code: 0 the job finished, 1 it failed, 2 the options cannot be met, 130 or 143 interrupted.
    """
    signal.signal(signal.SIGTERM, _end_early)  # as process 1 there would be no handler at all until the loop
    _set_environment()
    set_up_logs("text", "info", "server", None, "server")
    from paramserver.errors import JobError, RequestError
    from server.options import read_options

    try:
        options = read_options(arguments)
        set_up_logs(options.log_format, options.log_level, "server", options.server, "server")
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_cancellation)
        # These take most of the start's time, and must not be loaded before the environment is set.
        from paramserver.wire.memory import keep_freed_memory
        from server.program import serve

        keep_freed_memory()
        return asyncio.run(serve(options))
    except RequestError as error:
        log.error("%s", error)
        return 2
    except JobError as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        log.info("The server was stopped by SIGINT.")
        return 130
    except Exception:
        log.exception("The server failed inside. Please report this with the lines above.")
        return 1


def _set_environment() -> None:
    """Set what libraries read when they are loaded, unless the user has set it."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes lines of its own to stderr, not sentences


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Leave out what gRPC says of calls that are under way when the server stops."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


def _end_early(_: int, __: FrameType | None) -> None:
    log.info("The server was stopped by SIGTERM.")
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
