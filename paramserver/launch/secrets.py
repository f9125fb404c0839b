"""The secrets of one run: its token for all its processes, and the servers' own.

They travel in the environment, which only this user and root can read, unlike a command line.
"""

from __future__ import annotations

from collections.abc import Mapping

from paramserver.launch.engine import Role
from paramserver.security import INTERNAL_TOKEN, TOKEN, Access, new_secret, read_access


class Secrets:
    """New secrets for one run.

    Attributes:
        token: of the run.
    """

    def __init__(self) -> None:
        self.token = new_secret()
        self._internal_token = new_secret()

    def environment(self, role: Role) -> Mapping[str, str]:
        """Return the variables of a process: what only servers may know is empty for all others."""
        return {TOKEN: self.token, INTERNAL_TOKEN: self._internal_token if role == "server" else ""}

    def access(self) -> Access:
        """Return what opens the doors of the run's servers; with TLS if the environment says so."""
        return read_access(token=self.token)
