"""Fixtures that several test files use."""

from command_line import run

__all__ = ["run"]
