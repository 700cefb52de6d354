"""From a dataset's classes to the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from relprop import Graph, Model
from relprop.runs.classes import Classes, UnknownClassError, read_class_map

MODEL = Model(Graph(), classes=("beagle", "tabby, tabby cat", "poodle", "7"))


def test_classes_are_found_by_name_or_index() -> None:
    classes = Classes(MODEL, 4)
    assert classes.names == ("beagle", "tabby", "poodle", "7")
    assert classes.truth("Tabby Cat") == 1
    assert classes.truth("beagle") == classes.truth("0") == classes.truth(0) == 0
    assert classes.truth("7") == 3
    assert classes.truth(None) == -1
    assert (classes.outputs(2), classes.predicted(3, 1)) == ((2,), 3)
    for unknown in ("horse", "4", -1, "-1"):
        with pytest.raises(UnknownClassError):
            classes.truth(unknown)
    assert Classes(Model(Graph()), 4).truth("2") == 2


def test_equal_names_are_told_apart() -> None:
    names = ("crane, bird", "cat", "crane, machine")
    assert Classes(Model(Graph(), classes=names), 3).names == ("crane (0)", "cat", "crane (2)")


def test_the_dataset_numbers_its_own_classes() -> None:
    classes = Classes(MODEL, 4, of_dataset=("poodle", "tabby"))
    assert [classes.truth(label) for label in (0, 1, "beagle")] == [2, 1, 0]
    with pytest.raises(UnknownClassError, match="the dataset has no class 2"):
        classes.truth(2)


def test_the_dataset_names_the_outputs_of_a_model_without_names() -> None:
    classes = Classes(Model(Graph()), 2, of_dataset=("cat", "dog"))
    assert classes.names == ("cat", "dog")
    assert classes.truth("dog") == classes.truth(1) == 1
    assert Classes(MODEL, 3, of_dataset=("cat", "dog")).names == ("0", "1", "2")


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
    classes = Classes(MODEL, 4, known)
    assert classes.names == ("dog", "cat")
    assert classes.outputs(classes.truth("dog")) == (0, 2)
    assert [classes.predicted(output, 0) for output in range(4)] == [0, 1, 0, -1]
    with pytest.raises(UnknownClassError, match="the map of classes has no 'beagle'"):
        classes.truth("beagle")


def test_a_class_of_the_model_can_belong_to_several() -> None:
    classes = Classes(MODEL, 4, {"dog": (0, 2), "animal": (0, 1, 2)})
    assert classes.predicted(0, 1) == 1
    assert classes.predicted(0, 0) == classes.predicted(0, -1) == 0


@pytest.mark.parametrize(("name", "text"), [("map.json", '{"dog": 0, "person": []}'),
                                            ("map.csv", "dog,0\nperson\n")])  # fmt: skip
def test_a_class_may_be_none_of_the_models(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    classes = Classes(MODEL, 4, read_class_map(path, MODEL, 4))
    assert (classes.truth("person"), classes.outputs(1)) == (1, ())
    assert [classes.predicted(output, 1) for output in range(4)] == [0, -1, -1, -1]


@pytest.mark.parametrize("path", sorted((Path(__file__).parent.parent / "docs/classes").iterdir()),
                         ids=lambda path: path.stem)  # fmt: skip
def test_the_maps_of_the_documentation_are_sound(path: Path) -> None:
    assert read_class_map(path, Model(Graph()), 1000)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("map.json", "[]", "must hold a JSON object"),
        ("map.json", "{", "Expecting"),
        ("map.json", "{}", "holds no classes"),
        ("map.json", '{"dog": [true]}', "True is neither a class name nor an index"),
        ("map.csv", "dog,4", "4 is not an output; the model has 4"),
        ("map.csv", "dog,horse", "model has no class 'horse'"),
        ("map.csv", "dog,beagle\ndog,2", "'dog' is there twice"),
        ("map.json", '{"dog": "beagle", "cat": 1, "dog": 2}', "'dog' is there twice"),
        ("map.json", '{"dog": {"beagle": 0}}', "is neither a class name nor an index"),
        ("map.csv", "", "holds no classes"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*{reason}"):
        read_class_map(path, MODEL, 4)
