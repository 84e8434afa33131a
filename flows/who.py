"""Who asks: the name that orders, backfills and decisions are recorded under."""

from __future__ import annotations

import getpass
import os


def user() -> str:
    """Return the name of the user of this process, or the number where the system knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
