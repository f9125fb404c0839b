"""The command line: ``paramserver train``, ``paramserver server``, ``paramserver worker``.

To the next editor: asking for help must be quick, so nothing here imports numpy, grpc or the rest of the
library before a command really runs.
"""

from paramserver.cli.app import main

__all__ = ["main"]
