"""Who may talk to a server: tokens, TLS, the addresses to listen on, and certificates.

To the next editor: ``access`` is what one who calls brings, ``doors`` what a server asks for. Everything that
opens a channel does it with ``open_channel``, so that no call forgets its token.
"""

from paramserver.security.access import Access, read_access
from paramserver.security.secrets import INTERNAL_TOKEN, TOKEN, new_secret, read_secret

__all__ = ["INTERNAL_TOKEN", "TOKEN", "Access", "new_secret", "read_access", "read_secret"]
