"""How hard the fuzz tests try: RELPROP_FUZZ multiplies their number of examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Mark a test that must survive any input, and set how many it is tried on."""

    def mark(test: Any) -> Any:
        drawn = settings(
            max_examples=examples * int(os.environ.get("RELPROP_FUZZ", "1")),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        return pytest.mark.fuzz(drawn(test))

    return mark
