"""Prefect's settings for an embedded server, set before Prefect is imported: nothing to start, nothing sent out."""

from __future__ import annotations

import os
from pathlib import Path

QUIET = {
    # Neither Prefect's telemetry nor Great Expectations' analytics: nothing leaves this machine unasked.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLI_PROMPT": "false",
    # A SQLite that many runs write at once says 503 for a while. Prefect asks five more times, which is a minute, and
    # on two busy cores one of 118 partitions failed so; seven times are four minutes.
    "PREFECT_CLIENT_MAX_RETRIES": "7",
}


def configure(home: Path, console_logs: bool = False) -> None:
    """Point Prefect at the embedded server under `<home>/prefect`, unless the user has named a server.

    With `console_logs` off, Prefect's log lines go to its server only (the UI shows them), not between the lines of a
    progress display.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        folder = home.absolute() / "prefect"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(folder)
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", "true")
        # A cold server takes 14 s on two busy cores; Prefect's own limit is 20.
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    if not console_logs:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
