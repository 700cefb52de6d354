"""Packages that only some functions need, imported when those are called."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_optional(package: str, extra: str, purpose: str) -> Any:
    """Import a package, or say which extra of relprop brings it.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(f"{purpose} needs {package}: pip install 'relprop[{extra}]'") from error
