"""Local and remote folders: the same names and bytes, and nothing outside of them."""

from __future__ import annotations

import os
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from annotated_photos import write
from relprop import Preprocessing
from relprop.datasets import Sample, open_dataset, read_ahead
from relprop.datasets.places import Place, find

FILES = {"a.txt": "a", "b/c.txt": "cc", "b/d/e.txt": "eee", ".hidden/f": "f", "b/.g": "g"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address at which a web server of this machine offers ``tmp_path``."""
    pytest.importorskip("aiohttp", reason="fsspec's HTTP needs aiohttp")
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.fixture(params=["local", "memory", "zip"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    for name, content in FILES.items():
        write(tmp_path / "data" / name, content)
    if request.param == "local":
        yield find(tmp_path / "data")[0]
        return
    pytest.importorskip("fsspec", reason="remote places need fsspec")
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
        yield find(f"zip://::{tmp_path / 'data.zip'}")[0]
        return
    from fsspec.implementations.memory import MemoryFileSystem

    system = MemoryFileSystem()
    for name, content in FILES.items():
        system.pipe(f"/relprop-places/{name}", content.encode())
    yield find("memory://relprop-places")[0]
    system.rm("/relprop-places", recursive=True)


def test_names_and_contents(place: Place) -> None:
    assert place.files() == ["a.txt", "b/c.txt", "b/d/e.txt"]
    assert place.files(deep=False) == ["a.txt"]
    assert place.files("b") == ["b/c.txt", "b/d/e.txt"]
    assert place.folders() == ["b"]
    assert place.is_file("b/c.txt") and not place.is_file("b") and not place.is_file("none")
    assert place.is_folder("b") and not place.is_folder("a.txt") and not place.is_folder("none")
    assert place.read("b/d/e.txt") == b"eee"
    assert place.below("b").read("c.txt") == b"cc"
    assert place.below("b").files() == ["c.txt", "d/e.txt"]
    assert place.below("b").above().files() == place.files()
    with place.open("b/c.txt") as file:
        assert file.seek(1) == 1 and file.read() == b"c"


def test_what_cannot_be_read(place: Place) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt: there is no such file"):
        place.read("none.txt")
    assert place.read("b/c.txt", limit=2) == b"cc"
    with pytest.raises(ValueError, match=r"b/c\.txt: it has more than the 1 bytes allowed"):
        place.read("b/c.txt", limit=1)


@pytest.mark.parametrize("name", ["../data/a.txt", "b/../../x", "/etc/passwd", "a\0b"])
def test_no_name_leads_outside(place: Place, name: str) -> None:
    with pytest.raises(ValueError, match="leads out of the dataset's folder"):
        place.read(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: not a regular file"):
        find(tmp_path)[0].read("pipe")


def test_a_file_is_found_in_its_folder(tmp_path: Path) -> None:
    place, name = find(write(tmp_path / "list.txt", "x"))
    assert (place.name, name) == (str(tmp_path), "list.txt")
    with pytest.raises(FileNotFoundError, match=r"none: there is no such file or folder"):
        find(tmp_path / "none")


def test_remote_places_ask_for_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match=r"s3://bucket/x is remote; that needs fsspec: pip"):
        find("s3://bucket/x")


def test_remote_nothing() -> None:
    pytest.importorskip("fsspec", reason="remote places need fsspec")
    with pytest.raises(FileNotFoundError, match="memory://relprop-none: there is no such"):
        find("memory://relprop-none")


def test_a_dataset_on_a_web_server(server: str, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (8, 6), (label == "cat" and "red") or "blue").save(
            tmp_path / "photos" / label / "1.png"
        )
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(tmp_path / "photos" / "cat" / "1.png", "first.png")
    place, _ = find(f"{server}/photos")
    assert place.files() == ["cat/1.png", "dog/1.png"]
    assert place.files("cat", deep=False) == ["cat/1.png"]
    assert place.folders() == ["cat", "dog"]
    fit = Preprocessing((6, 8), (0.0,) * 3, (1.0,) * 3)
    found = list(read_ahead(open_dataset(f"{server}/photos"), fit))
    assert [one.key for one in found] == ["cat/1.png", "dog/1.png"]
    assert all(isinstance(one, Sample) for one in found)
    (only,) = read_ahead(open_dataset(f"{server}/shard.tar"), fit)
    assert isinstance(only, Sample)
    assert only.pixels[:, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        open_dataset(f"{server}/nothing")
