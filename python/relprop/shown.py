"""How a dataclass that holds arrays shows itself: their type and shape stand for the numbers."""

from __future__ import annotations

from typing import Any


class ShownByShapes:
    """A dataclass, made with ``repr=False``, that a person can read whatever it holds."""

    def __repr__(self) -> str:
        parts = (f"{name}={_shown(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({', '.join(parts)})"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_shown, value)) + ("," if len(value) == 1 else "") + ")"
    if hasattr(value, "dtype") and hasattr(value, "shape"):  # numpy's, torch's or cupy's
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return repr(value)
