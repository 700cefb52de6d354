"""A dataset whose keys are known beforehand, and whose items are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from relprop.datasets.items import Item, Rejected, check_shard, digest_of
from relprop.datasets.places import Place

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Listed(Generic[Entry]):
    """Items by key; ``make`` turns a key and its entry into an item, or raises.

    An entry that is `Rejected` stays so, and so does a key that was given before. Where all files
    of a folder are items, ``all_of`` is that folder.
    """

    name: str
    classes: tuple[str, ...]
    entries: tuple[tuple[str, Entry | Rejected], ...]
    make: Callable[[str, Entry], Item]
    all_of: Place | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Item | Rejected]:
        for key, entry in self.entries:
            yield entry if isinstance(entry, Rejected) else self._made(key, entry)

    def shard(self, index: int, count: int) -> Listed[Entry]:
        """Return every ``count``-th item from ``index`` on."""
        check_shard(index, count)
        return replace(self, entries=self.entries[index::count])

    def sliced(self, part: slice) -> Listed[Entry]:
        """Return the items of a slice."""
        return replace(self, entries=self.entries[part])

    def digest(self) -> str:
        """Return a hash of the keys and of their labels or the like; no file is read."""
        return digest_of(self.entries)

    def _made(self, key: str, entry: Entry) -> Item | Rejected:
        try:
            return self.make(key, entry)
        except (OSError, ValueError) as error:
            return Rejected(key, str(error))


def once(
    entries: Iterable[tuple[str, Entry | Rejected]],
) -> tuple[tuple[str, Entry | Rejected], ...]:
    """Return the entries, those rejected whose key was given before."""
    seen: set[str] = set()
    unique: list[tuple[str, Entry | Rejected]] = []
    for key, entry in entries:
        again = key in seen and not isinstance(entry, Rejected)
        unique.append((key, Rejected(key, "the key was given before.") if again else entry))
        seen.add(key)
    return tuple(unique)
