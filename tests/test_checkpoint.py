"""Checkpoints of a run, and the fingerprint that says whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relprop import Explainer, Graph, Model, rules
from relprop.graph import Activation, Dense, Input
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.fingerprint import differences, of_explainer


def network(seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    graph = Graph()
    graph.add("input", Input((4,)))
    graph.add("dense", Dense(rng.standard_normal((3, 4), np.float32)), ["input"])
    graph.add("relu", Activation("relu"), ["dense"])
    graph.add("scores", Dense(rng.standard_normal((2, 3), np.float32)), ["relu"])
    return Model(graph, classes=("cat", "dog"))


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    rejected = [("a\n.jpg", "no, it's broken"), ("b", "é")]
    written = Checkpoint({"model": "m", "rules": {"a": "b"}}, b"\n{state}\0", 7, 5, rejected, True)
    written.write(tmp_path / "checkpoint")
    assert Checkpoint.read(tmp_path / "checkpoint") == written


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"[1]\n" + content,
        lambda content: content.replace(b"checkpoint 1", b"checkpoint 2"),
        lambda content: content.replace(b'"position": 0, ', b""),
        lambda content: b"\xff" + content,
    ],
)
def test_damage_is_found(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "checkpoint"
    Checkpoint({"model": "m"}, b"state").write(path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(
        ValueError, match=r"checkpoint: damaged, or no .*overwrite it \(force, --force\)"
    ):
        Checkpoint.read(path)


def test_what_the_result_depends_on_is_in_the_fingerprint() -> None:
    model = network()
    same = of_explainer(Explainer(model, "epsilon"))
    assert same == of_explainer(Explainer(network(), "epsilon"))
    assert differences(same, same) == []
    others = {
        "model": Explainer(network(1), "epsilon"),
        "classes": Explainer(replace(model, classes=("cat", "cow")), "epsilon"),
        "rules": Explainer(model, "epsilon", rules={"dense": rules.Flat()}),
        "ledger": Explainer(model, "epsilon", ledger=False),
    }
    for key, other in others.items():
        (text,) = differences(same, of_explainer(other))
        assert text.startswith(f"{key}: ")
    composite = differences(same, of_explainer(Explainer(model, "epsilon_plus_flat")))
    assert composite[0] == "composite: epsilon there, epsilon_plus_flat here"
    assert composite[1].startswith("rules: dense: Epsilon(")


def test_the_first_difference_and_their_number_are_said() -> None:
    old = {"rules": {"a": "Flat()", "b": "Flat()"}, "limit": None}
    new = {"rules": {"a": "Pass()", "b": "Pass()"}, "limit": 3}
    assert differences(old, new) == [
        "rules: a: Flat() there, Pass() here and 1 more",
        "limit: nothing there, 3 here",
    ]
    (text,) = differences({"regions": "r1c1, " * 10000}, {"regions": None})
    assert text.startswith("regions: r1c1, ") and text.endswith("... there, nothing here")
    assert len(text) < 400


def test_the_order_of_entries_counts() -> None:
    """Figures and classes are numbered by it."""
    old = {"methods": {"a": {"rules": {}}, "b": {"rules": {}}}, "limit": None}
    new = {"limit": None, "methods": dict(reversed(old["methods"].items()))}  # type: ignore[union-attr]
    assert differences(old, new) == ["methods: a, b there, b, a here"]
    assert differences(old, dict(reversed(old.items()))) == []
