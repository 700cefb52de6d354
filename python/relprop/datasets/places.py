"""Where files lie: a local folder, or a remote one through fsspec. Names never lead out of it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

MAX_FILE = 1 << 28
"""Bytes of a photo's file; larger ones are refused."""

_PART = 1 << 20


class Place(Protocol):
    """A folder and what lies below it; names are relative, with ``/`` between their parts."""

    @property
    def name(self) -> str:
        """How the user may call it."""

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        OSError
            If it cannot be read.
        ValueError
            If it is no regular file, lies outside or has more than ``limit`` bytes.
        """

    def open(self, name: str) -> BinaryIO:
        """Return a file opened for reading in any order."""

    def is_file(self, name: str) -> bool:
        """Whether there is such a file."""

    def is_folder(self, name: str) -> bool:
        """Whether there is such a folder."""

    def folders(self, name: str = "") -> list[str]:
        """Return the names of the folders directly in a folder, sorted."""

    def files(self, name: str = "", *, deep: bool = True) -> list[str]:
        """Return the files of a folder, and of those in it if ``deep``, sorted.

        Names count from the place. Hidden files and folders are left out.
        """

    def below(self, name: str) -> Place:
        """Return a folder as a place of its own."""

    def above(self) -> Place:
        """Return the folder that it lies in."""

    def holds(self, path: Path) -> bool:
        """Whether it is a folder of this machine, and a path of this machine lies in it."""


class _LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        with self.open(name) as file:
            return _limited(file, name, limit)

    def open(self, name: str) -> BinaryIO:
        path = self._path(name)
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file.")
        if not path.is_file():  # reading a pipe would wait for ever
            raise ValueError(f"{path}: not a regular file.")
        return path.open("rb")

    def is_file(self, name: str) -> bool:
        return self._path(name).is_file()

    def is_folder(self, name: str) -> bool:
        return self._path(name).is_dir()

    def folders(self, name: str = "") -> list[str]:
        found = (path.name for path in self._path(name).iterdir() if path.is_dir())
        return sorted(folder for folder in found if not folder.startswith("."))

    def files(self, name: str = "", *, deep: bool = True) -> list[str]:
        found: list[str] = []
        for folder, below, files in os.walk(self._path(name)):
            below[:] = [each for each in below if deep and not each.startswith(".")]
            where = Path(folder).relative_to(self.root)
            found += [(where / file).as_posix() for file in files if not file.startswith(".")]
        return sorted(found)

    def below(self, name: str) -> _LocalPlace:
        return _LocalPlace(self._path(name))

    def above(self) -> _LocalPlace:
        return _LocalPlace(self.root.absolute().parent)

    def holds(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root.resolve())

    def _path(self, name: str) -> Path:
        return self.root / inside(name)


class _RemotePlace:
    """A folder of one of fsspec's file systems."""

    def __init__(self, system: Any, root: str) -> None:
        self.system = system
        self.root = root.rstrip("/")
        self.name = str(system.unstrip_protocol(self.root))

    def read(self, name: str, limit: int = MAX_FILE) -> bytes:
        with self.open(name) as file:
            try:
                return _limited(file, name, limit)
            except ValueError:
                raise
            except Exception as error:  # every protocol has exceptions of its own
                raise OSError(f"{name}: {error}") from error

    def open(self, name: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self.system.open(self._path(name), "rb"))
        except ValueError:
            raise
        except FileNotFoundError:
            raise FileNotFoundError(f"{self._path(name)}: there is no such file.") from None
        except Exception as error:
            raise OSError(f"{name}: {error}") from error

    def is_file(self, name: str) -> bool:
        return bool(self.system.isfile(self._path(name)))

    def is_folder(self, name: str) -> bool:
        return bool(self.system.isdir(self._path(name)))

    def folders(self, name: str = "") -> list[str]:
        listed = self.system.ls(self._path(name), detail=True)
        found = (entry["name"] for entry in listed if entry["type"] == "directory")
        names = (PurePosixPath(path.rstrip("/")).name for path in found)
        return sorted(folder for folder in names if not folder.startswith("."))

    def files(self, name: str = "", *, deep: bool = True) -> list[str]:
        found = self.system.find(self._path(name), maxdepth=None if deep else 1)
        names = (path[len(self.root) :].lstrip("/") for path in found)
        return sorted(file for file in names if not _hidden(file))

    def below(self, name: str) -> _RemotePlace:
        return _RemotePlace(self.system, self._path(name))

    def above(self) -> _RemotePlace:
        return _RemotePlace(self.system, self.root.rpartition("/")[0])

    def holds(self, path: Path) -> bool:
        return False

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.root, inside(name)) if part)


def is_remote(spec: str) -> bool:
    """Whether fsspec is needed to find it."""
    return "://" in spec or "::" in spec


def find(spec: str | os.PathLike[str]) -> tuple[Place, str]:
    """Return the place that a path or address names, and the name of the file in it or "".

    Raises
    ------
    FileNotFoundError
        If nothing lies there.
    ValueError
        If the path is empty.
    ImportError
        If it is remote and fsspec, or what fsspec needs for it, is not installed.
    """
    spec = os.fspath(spec)
    if not spec:
        raise ValueError("a dataset's path must not be empty.")
    if is_remote(spec):
        return _find_remote(spec)
    path = Path(spec)
    if path.is_dir():
        return _LocalPlace(path), ""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder.")
    return _LocalPlace(path.parent), path.name


def inside(name: str) -> str:
    """Return a relative name as it is; refuse one that leads out of its folder.

    Raises
    ------
    ValueError
        If the name is absolute, goes upwards or holds a null character.
    """
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name or Path(name).is_absolute():
        raise ValueError(f"{name!r} leads out of the dataset's folder.")
    return name


def _find_remote(spec: str) -> tuple[Place, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImportError(f"{spec} is remote; that needs fsspec: pip install fsspec") from None
    system, path = url_to_fs(spec)
    path = str(path).rstrip("/")
    kinds = [system.isfile, system.isdir]
    if not PurePosixPath(path).suffix:  # on a web server every folder is a file, too
        kinds.reverse()
    kind = next((kind for kind in kinds if kind(path)), None)
    if kind is None:
        raise FileNotFoundError(f"{spec}: there is no such file or folder.")
    if kind == system.isdir:
        return _RemotePlace(system, path), ""
    folder, _, name = path.rpartition("/")
    return _RemotePlace(system, folder), name


def _limited(file: BinaryIO, name: str, limit: int) -> bytes:
    data = bytearray()
    while part := file.read(_PART):  # memory for all that is asked for would be taken at once
        data += part
        if len(data) > limit:
            raise ValueError(f"{name}: it has more than the {limit} bytes allowed.")
    return bytes(data)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
