"""Class names of a model."""

from __future__ import annotations

import numpy as np
import pytest

from relprop.graph import Dense, Graph, Input
from relprop.model import Model

CLASSES = ("motor scooter, scooter", "crane", "Egyptian cat", "crane", "tiger cat")


def model(classes: tuple[str, ...] = CLASSES) -> Model:
    graph = Graph()
    graph.add("input", Input((2,)))
    graph.add("head", Dense(np.ones((5, 2), np.float32)), ["input"])
    return Model(graph, classes=classes, name="tiny")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("motor scooter", 0),
        ("scooter", 0),
        ("motor scooter, scooter", 0),
        (" EGYPTIAN cat", 2),
        ("tiger cat", 4),
    ],
)
def test_class_index(name: str, index: int) -> None:
    assert model().class_index(name) == index


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("crane", "2 classes are called 'crane': give the index, one of 1, 3"),
        ("cat", "has no class 'cat'; close are egyptian cat, tiger cat"),
        ("scotter", "close are motor scooter, scooter"),
        ("zzzzzz", r"tiny has no class 'zzzzzz'\.$"),
        ("", r"has no class ''\.$"),
    ],
)
def test_unknown_and_ambiguous_names(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        model().class_index(name)


def test_without_names() -> None:
    assert model(()).class_name(3) == "3"
    assert model().class_name(0) == "motor scooter"
    with pytest.raises(ValueError, match="tiny has no class names: give the index"):
        model(()).class_index("crane")
