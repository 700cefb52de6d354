"""Fixtures that several test files use, and how hypothesis draws."""

import os

from hypothesis import settings

from command_line import run

__all__ = ["run"]

# In CI the same draws every time, so that what fails is what changed; elsewhere new ones.
settings.register_profile("ci", derandomize=True)
if "CI" in os.environ:
    settings.load_profile("ci")
