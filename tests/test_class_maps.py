"""From a dataset's classes to the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from relprop import Graph, Model
from relprop.aggregation.classes import ClassFinder, UnknownClassError, read_class_map

MODEL = Model(Graph(), classes=("beagle", "tabby, tabby cat", "poodle", "7"))


def test_classes_are_found_by_name_or_index() -> None:
    find = ClassFinder(MODEL, 4)
    assert find("Tabby Cat") == (1,)
    assert find("beagle") == find("0") == find(0) == (0,)
    assert find("7") == (3,)
    for unknown in ("horse", "4", -1, "-1"):
        with pytest.raises(UnknownClassError):
            find(unknown)
    assert ClassFinder(Model(Graph()), 4)("2") == (2,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.json", '{"dog": ["beagle", 2, "beagle"], "cat": "tabby"}'),
        ("map.csv", 'dog,beagle,2,0\n\ncat, "tabby, tabby cat"\n'),
    ],
)
def test_a_map_is_read_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    known = read_class_map(path, MODEL, 4)
    assert known == {"dog": (0, 2), "cat": (1,)}
    find = ClassFinder(MODEL, 4, known)
    assert find("dog") == (0, 2)
    with pytest.raises(UnknownClassError, match="the map of classes has no 'beagle'"):
        find("beagle")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("map.json", "[]", "must hold a JSON object"),
        ("map.json", "{", "Expecting"),
        ("map.json", "{}", "holds no classes"),
        ("map.json", '{"dog": [true]}', "True is neither a class name nor an index"),
        ("map.json", '{"dog": []}', "'dog' has no class of the model"),
        ("map.csv", "dog,4", "4 is not an output; the model has 4"),
        ("map.csv", "dog,horse", "model has no class 'horse'"),
        ("map.csv", "dog,beagle\ndog,2", "'dog' is there twice"),
        ("map.csv", "", "holds no classes"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*{reason}"):
        read_class_map(path, MODEL, 4)
