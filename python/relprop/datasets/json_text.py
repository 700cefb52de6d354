"""JSON that anybody may have written: its size, its depth and the kinds of its values checked."""

from __future__ import annotations

import json
from typing import Any


def parsed(data: bytes, name: str) -> Any:
    """Return what JSON text holds.

    Raises
    ------
    ValueError
        If it is broken, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: cannot be read as JSON: {error}") from None


def objects(value: Any, name: str) -> list[dict[str, Any]]:
    """Return a list of JSON objects; raise ValueError if it is none."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"{name} must be a list of objects.")
    return value


def numbers(value: Any, name: str, count: int | None = None) -> list[float]:
    """Return a list of finite numbers, ``count`` of them; raise ValueError if it is none."""
    if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
        raise ValueError(f"{name} must be a list of numbers.")
    if count is not None and len(value) != count:
        raise ValueError(f"{name} must be {count} numbers, not {len(value)}.")
    if not all(abs(each) < 1e9 for each in value):
        raise ValueError(f"{name} must be finite numbers below 1e9.")
    return value
