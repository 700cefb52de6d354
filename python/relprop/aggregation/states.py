"""State: what all mergeable states do, and the bytes that hold one.

The bytes are a safetensors file with one entry of metadata, JSON: the format's version, the kind of
state, a digest of everything else, the state's settings and what of its content is no array. Equal
states give equal bytes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from relprop.aggregation.moments import Arrays
from relprop.aggregation.records import Record

FORMAT = 1
"""The version of the bytes: raised when older releases could no longer read them rightly."""

_ENTRY = "relprop.state"

Row = dict[str, Any]
"""A row of a table: strings, whole numbers, numbers, and None for what is not defined."""

Self = TypeVar("Self", bound="State")


class State(ABC):
    """What is kept of any number of records, in memory that does not grow with them.

    ``settings`` are the constructor's arguments as JSON has them. States of equal settings merge,
    in any order, into what one state would hold after all the records.
    """

    kind: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = settings

    @abstractmethod
    def update(self, record: Record) -> None:
        """Add one item."""

    @abstractmethod
    def result(self) -> Any:
        """What the state says of all items: rows, unless its class says otherwise."""

    @abstractmethod
    def write(self, arrays: Arrays) -> Any:
        """Put what it holds among the arrays, and return the rest as JSON has it."""

    @abstractmethod
    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        """Take what :meth:`write` put there."""

    @abstractmethod
    def _join(self, other: Any) -> None:
        """Add what a state of the same class and settings holds."""

    def merge(self: Self, other: Self) -> None:
        """Add all items of another state, which stays as it is."""
        if type(other) is not type(self) or other.settings != self.settings:
            raise ValueError(
                f"states merge where their settings are equal; {self.kind} {shown(self.settings)} "
                f"is not {getattr(other, 'kind', type(other))} "
                f"{shown(getattr(other, 'settings', None))}."
            )
        self._join(other)

    def to_bytes(self) -> bytes:
        """Everything that the state holds; see :meth:`from_bytes`."""
        from safetensors.numpy import save

        arrays: Arrays = {}
        content = self.write(arrays)
        entry = {
            "format": FORMAT,
            "kind": self.kind,
            "settings": self.settings,
            "content": content,
        }
        entry["digest"] = _digest(entry, arrays)
        return save(arrays, {_ENTRY: json.dumps(entry, allow_nan=False)})

    @classmethod
    def from_bytes(cls: type[Self], data: bytes) -> Self:
        """Make the state that :meth:`to_bytes` wrote.

        Raises
        ------
        ValueError
            If the bytes are truncated or altered, hold another kind of state, or come from a
            newer relprop.
        """
        entry = _entry(data)
        if entry["format"] != FORMAT:
            raise ValueError(
                f"the state is of format {entry['format']}; this relprop reads format {FORMAT}."
            )
        if entry.get("kind") != cls.kind:
            raise ValueError(
                f"the state must be of kind {cls.kind!r}, not {shown(entry.get('kind'))}."
            )
        arrays = _arrays(data)
        if entry.pop("digest", None) != _digest(entry, arrays):
            raise ValueError("the state's bytes are altered: they do not give its digest.")
        try:
            state = cls(**entry["settings"])
            state.read(arrays, entry["content"])
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"the state's content makes no sense: {error}") from None
        return state


def _entry(data: bytes) -> dict[str, Any]:
    """The JSON of a state, whose format is a number; safetensors itself hides the metadata."""
    length = int.from_bytes(data[:8], "little")
    try:
        entry = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_ENTRY])
        if type(entry["format"]) is int:
            return dict(entry)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ValueError("the bytes are damaged, or no state of relprop's.")


def _arrays(data: bytes) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"the state's bytes are truncated or altered: {error}") from None


def _digest(entry: Mapping[str, Any], arrays: Arrays) -> str:
    """A checksum of all that counts; it finds damage, it proves no origin."""
    of = blake2b(json.dumps(entry, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        of.update(f"{name} {array.dtype} {array.shape} ".encode())
        of.update(array.reshape(-1).view(np.uint8).data)
    return of.hexdigest()


def shown(value: object) -> str:
    """A value as a message can hold it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def number(value: float) -> float | None:
    """A number as a row has it: None instead of NaN."""
    return None if np.isnan(value) else float(value)
