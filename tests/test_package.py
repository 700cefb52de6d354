"""The names that ``import relprop`` offers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import relprop


def test_every_name_is_there() -> None:
    pytest.importorskip("torch")
    for name in relprop.__all__:
        assert getattr(relprop, name) is not None
    assert set(relprop.__all__) <= set(dir(relprop))


def test_type_checkers_see_the_same_names() -> None:
    (block,) = [
        node for node in ast.parse(Path(relprop.__file__).read_text()).body
        if isinstance(node, ast.If)
    ]  # fmt: skip
    imported = {name.name for line in block.body for name in line.names}
    assert imported == set(relprop.__all__)


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match="'relprop' has no attribute 'heatmaap'"):
        _ = relprop.heatmaap
