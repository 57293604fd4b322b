"""Who gives the commands, for the ledger."""

from __future__ import annotations

import getpass


def user() -> str | None:
    """The name of the account; None in a process without one, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
