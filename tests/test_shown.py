"""What people see of objects that hold arrays: one line, however many numbers there are."""

from __future__ import annotations

import numpy as np
import torch

from relprop import Explainer, Model, graph
from relprop.datasets.items import Item


def tiny() -> graph.Graph:
    built = graph.Graph()
    built.add("image", graph.Input((3, 6, 6)))
    built.add("conv", graph.Conv(np.ones((4, 3, 3, 3), np.float32)), ["image"])
    built.add("flat", graph.Reshape((64,)), ["conv"])
    built.add("dense", graph.Dense(np.ones((2, 64), np.float32), np.ones(2, np.float32)), ["flat"])
    return built


def test_a_graph() -> None:
    assert repr(tiny()) == "Graph(4 nodes, image (3, 6, 6) -> dense (2,))"
    assert repr(graph.Graph()) == "Graph(0 nodes)"


def test_a_node() -> None:
    assert repr(tiny()["dense"]) == (
        "Node(name='dense', operator=Dense(weight=float32[2, 64], bias=float32[2]), "
        "inputs=('flat',), shape=(2,), ids=False, constant=False)"
    )


def test_a_model_and_an_explainer() -> None:
    model = Model(tiny(), classes=("cat", "dog"), name="tiny")
    assert repr(model) == f"Model('tiny', {tiny()!r}, preprocessing=None, 2 classes)"
    assert repr(Explainer(model, "epsilon", device="cpu")) == (
        f"Explainer({model!r}, 'epsilon', device='cpu', precision='float32')"
    )


def test_a_result_of_any_library() -> None:
    explainer = Explainer(tiny(), "epsilon", device="cpu")
    x = np.ones((5, 3, 6, 6), np.float32)
    for images in (x, torch.from_numpy(x)):
        shown = repr(explainer(images, intermediate=["conv"]))
        assert shown.startswith(
            "Result(relevance=float32[5, 3, 6, 6], scores=float32[5, 2], target=int64[5], "
            "ledger=Ledger(4 nodes, 5 samples, closure error at most "
        )
        assert "intermediate={'conv': float32[5, 4, 4, 4]}" in shown
    assert "ledger=None" in repr(Explainer(tiny(), "gradient", device="cpu")(x))
    assert repr(explainer(x[:0]).ledger) == "Ledger(4 nodes, 0 samples)"


def test_an_item() -> None:
    item = Item("a", array=np.zeros((3, 6, 6), np.float32), label="cat")
    assert repr(item) == (
        "Item(key='a', read=None, array=float32[3, 6, 6], label='cat', boxes=(), masks=(), "
        "size=None)"
    )
