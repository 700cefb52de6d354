"""Names of classes and the like as files may be called, on every system."""

from __future__ import annotations

import re


def file_name(name: str) -> str:
    """Return a name without what files cannot have in theirs, cut off after 60 characters."""
    return re.sub(r"[^\w.-]+", "_", name)[:60]
