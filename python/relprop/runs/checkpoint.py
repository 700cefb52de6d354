"""A run's checkpoint: all that it knows after some items, in one file that is never half written.

The file is a line of JSON and behind it the state's bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from relprop.atomic import write_atomically
from relprop.runs.fingerprint import Fingerprint

FORMAT = "relprop checkpoint 1"


@dataclass
class Checkpoint:
    """The state after the first ``position`` items, and which of them were ``rejected``, and why.

    ``kept`` counts the relevance maps that were kept. ``finished`` is set once every item has
    been read.
    """

    fingerprint: Fingerprint
    state: bytes
    position: int = 0
    kept: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    finished: bool = False

    def write(self, path: Path) -> None:
        """Write the file in place of an older one."""
        head = {name: value for name, value in asdict(self).items() if name != "state"}
        head |= {"format": FORMAT, "digest": _digest(self.state)}
        write_atomically(path, json.dumps(head).encode() + b"\n" + self.state)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a file that :meth:`write` wrote.

        Raises
        ------
        ValueError
            If it is damaged or none of these.
        OSError
            If it cannot be read.
        """
        line, _, state = path.read_bytes().partition(b"\n")
        try:
            head = json.loads(line)
            if head.pop("format") != FORMAT:
                raise ValueError("of another format")
            if head.pop("digest") != _digest(state):
                raise ValueError("its state has changed since it was written")
            if set(head) != {one.name for one in fields(cls)} - {"state"}:
                raise ValueError("entries are missing")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: damaged, or no checkpoint of relprop: {error}: take another folder, or "
                "overwrite it (force, --force)."
            ) from None
        head["rejected"] = [(key, reason) for key, reason in head["rejected"]]
        return cls(state=state, **head)


def _digest(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()
