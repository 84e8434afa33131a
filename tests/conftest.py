"""What holds for every test: drawn cases are the same each time, and no clock decides whether one passes."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("causeway", deadline=None, derandomize=True)
settings.load_profile("causeway")
