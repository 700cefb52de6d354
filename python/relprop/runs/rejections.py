"""The items that a run could not use, and why; and when they are too many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from relprop.datasets import Rejected
from relprop.errors import TooManyRejectedError
from relprop.runs.tables import write_table

REJECTED = "rejected.csv"

FREE = 100
"""Items before which no share of rejected ones is too large."""


class Rejections:
    """How many items a run has seen, and which of them it could not use.

    ``position`` counts all items so far, ``rejected`` has a key and a reason for each rejected one.
    """

    def __init__(self, position: int = 0, rejected: Iterable[tuple[str, str]] = ()) -> None:
        self.position = position
        self.rejected = list(rejected)

    def reject(self, item: Rejected) -> None:
        """List an item; whoever counts the others counts it as well."""
        self.rejected.append((item.key, item.reason))

    def too_many(self, most: float) -> bool:
        """Whether the share of rejected items is beyond ``most``."""
        return self.position >= FREE and len(self.rejected) > most * self.position

    def refusal(self, folder: Path) -> TooManyRejectedError:
        """Write the list, and say that they are too many."""
        self.write(folder)
        key, reason = self.rejected[-1] if self.rejected else ("", "the dataset is empty")
        last = f"{key}: {reason}" if key else reason
        return TooManyRejectedError(
            f"{len(self.rejected)} of {self.position} items were rejected, see "
            f"{folder / REJECTED}; the last: {last}"
        )

    def interruption(self) -> KeyboardInterrupt:
        """Say how far the run is, and that it can go on."""
        return KeyboardInterrupt(
            f"stopped after {self.position} items; the same call goes on from there."
        )

    def write(self, folder: Path) -> None:
        """Write which items were not used, and why."""
        rows = [{"key": key, "reason": reason} for key, reason in self.rejected]
        write_table(folder / REJECTED, rows, ("key", "reason"))
