"""Ids that an embedding turns into numbers: the core, the Explainer, every front end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reference
import relprop
from agreement import assert_agrees, assert_every_node_agrees
from cases import BATCHES, SEEDS, WITH_LEDGER, numbers
from onnx_models import build, exported, integers, write
from relprop import Explainer, UnsupportedOperatorError, rules
from relprop import graph as g
from relprop.frontends import onnx as onnx_frontend
from relprop.frontends import torch as torch_frontend

VOCABULARY = 11


def ids(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, shape)


@given(
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    features=st.integers(1, 9),
    n=BATCHES,
    seed=SEEDS,
    rule=st.sampled_from([rules.Pass(), rules.Zero()]),
)
@settings(max_examples=80, deadline=None)
def test_any_embedding(shape, features, n, seed, rule) -> None:
    rng = np.random.default_rng(seed)
    operator = g.Embedding(numbers(rng, (VOCABULARY, features)))
    assert_agrees(operator, [ids(n, *shape, seed=seed)], rule, numbers(rng, (n, *shape, features)))


class Classifier(nn.Module):
    """Words to vectors, their mean to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8, padding_idx=0)
        self.hidden = nn.Linear(8, 12)
        self.classes = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.hidden(self.embedding(x)).relu().mean(1))


class Convolutional(Classifier):
    """Words beside each other; the strongest answers to the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(8, 12, 3, padding=1)
        self.strongest = nn.MaxPool1d(6)

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.embedding(x[:, 1:]).transpose(1, 2)
        return self.classes(self.strongest(self.hidden(vectors).relu()).squeeze(2))


def classifier(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval(), torch.from_numpy(ids(4, 7))


@pytest.mark.parametrize("kind", [Classifier, Convolutional])
@pytest.mark.parametrize("composite", WITH_LEDGER)
def test_text_classifier(composite: str, kind: type[nn.Module]) -> None:
    module, x = classifier(kind)
    bounds = {"low": -9.0, "high": 9.0} if "box" in composite or "deep" in composite else {}
    explainer = Explainer(relprop.load(module, x), composite, **bounds)
    result = explainer(x.numpy())
    assert result.relevance.shape == x.shape
    assert result.relevance.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(result.scores, module(x).numpy(), atol=1e-5)
    assert (result.ledger.closure_error <= 1e-6).all()
    assert_every_node_agrees(explainer, {explainer.graph.input.name: x.numpy()}, "argmax")
    # Vectors are no input of a layer with weights that first-layer rules are for.
    assert not {type(rule) for rule in explainer.rules.values()} & {rules.Flat, rules.ZBox}


def test_a_word_that_is_not_read_has_no_relevance() -> None:
    module, x = classifier(Convolutional)
    relevance = Explainer(relprop.load(module, x))(x.numpy()).relevance
    assert not relevance[:, 0].any()
    assert relevance[:, 1:].any()


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_kinds_of_integers(kind: type) -> None:
    module, x = classifier(Classifier)
    explainer = Explainer(relprop.load(module, x.numpy()))
    expected = explainer(x.numpy()).relevance
    np.testing.assert_array_equal(explainer(x.numpy().astype(kind)).relevance, expected)
    from_torch = explainer(x).relevance
    assert isinstance(from_torch, Tensor)
    np.testing.assert_array_equal(from_torch.numpy(), expected)
    np.testing.assert_array_equal(explainer(x.numpy()[1]).relevance, expected[1])


def test_what_the_explainer_refuses() -> None:
    module, x = classifier(Classifier)
    explainer = Explainer(relprop.load(module, x))
    with pytest.raises(TypeError, match=r"integers.* not float32"):
        explainer(x.numpy().astype(np.float32))
    for wrong in (VOCABULARY, -1, 2**40):
        array = x.numpy().copy()
        array[1, 2] = wrong
        with pytest.raises(ValueError, match=rf"ids in \[0, {VOCABULARY}\).* not {wrong}\."):
            explainer(array)


def test_the_smallest_of_several_tables_counts() -> None:
    graph = g.Graph()
    graph.add("ids", g.Input((3,), "ids"))
    graph.add("turned", g.Reshape((3, 1)), ["ids"])
    graph.add("many", g.Embedding(np.ones((9, 2), np.float32)), ["ids"])
    graph.add("few", g.Embedding(np.ones((5, 2), np.float32)), ["turned"])
    assert graph.vocabularies() == {"ids": 5}


@pytest.mark.parametrize(
    ("operator", "content", "reason"),
    [
        (g.Activation("relu"), "ids", "reads ids"),
        (g.Add(), "ids", "reads ids"),
        (g.Pad(((1, 1),)), "ids", "reads ids"),
        (g.Embedding(np.ones((4, 2), np.float32)), "numbers", "needs ids"),
        (g.Embedding(np.ones(4, np.float32)), "ids", "2 axes"),
        (g.Embedding(np.ones((0, 2), np.float32)), "ids", "not 0"),
        (g.Embedding(np.broadcast_to(np.float32(1), (2**24 + 1, 1))), "ids", "not 16777217"),
    ],
)
def test_ids_and_numbers_do_not_mix(operator, content, reason) -> None:
    graph = g.Graph()
    graph.add("input", g.Input((3,), content))
    with pytest.raises(ValueError, match=reason):
        graph.add("x", operator, ["input"] * (2 if isinstance(operator, g.Add) else 1))


# --- Front ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "exporter"), [(Classifier, "trace"), (Classifier, "export"), (Convolutional, "export")]
)
def test_round_trip(kind: type[nn.Module], exporter: str, tmp_path: Path) -> None:
    module, x = classifier(kind)
    directly, through_file = (
        Explainer(graph)(x.numpy())
        for graph in (
            torch_frontend.convert(module, x),
            exported(module, (x,), exporter, tmp_path),
        )
    )
    np.testing.assert_allclose(directly.relevance, through_file.relevance, rtol=1e-5, atol=1e-6)


class Captioned(nn.Module):
    """An image, the words below it and a mark, in vectors side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.marks = nn.Embedding(VOCABULARY, 4), nn.Embedding(5, 2)
        self.conv, self.classes = nn.Conv2d(3, 4, 3), nn.Linear(10, 3)

    def forward(self, image: Tensor, words: Tensor, mark: Tensor) -> Tensor:
        seen = self.conv(image).relu().mean((2, 3))
        return self.classes(torch.cat([seen, self.words(words).mean(1), self.marks(mark)], 1))


def test_ids_beside_numbers() -> None:
    module, words = classifier(Captioned)
    given_ = (torch.randn(4, 3, 6, 6), words, torch.from_numpy(ids(4)) % 5)
    explainer = Explainer(relprop.load(module, given_), "epsilon", epsilon=1e-9)
    result = explainer(given_)
    assert [tuple(r.shape) for r in result.relevance] == [tuple(x.shape) for x in given_]
    assert (result.ledger.closure_error <= 1e-6).all()
    with torch.no_grad():
        np.testing.assert_allclose(result.scores.numpy(), module(*given_).numpy(), atol=1e-5)
    with pytest.raises(ValueError, match=r"ids in \[0, 5\).* not 5\."):
        explainer((*given_[:2], torch.full((4,), 5)))


class Computes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.remainder(3).float() @ torch.ones(7, 2)


@pytest.mark.parametrize("kind", [Computes, lambda: nn.EmbeddingBag(VOCABULARY, 4)])
def test_what_torch_computes_with_ids(kind) -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"remainder|embedding_bag"):
        torch_frontend.convert(kind().eval(), torch.from_numpy(ids(2, 7)))


def test_onnx(tmp_path: Path) -> None:
    table = numbers(np.random.default_rng(0), (VOCABULARY, 4))
    nodes = [
        "a = Cast<to=7>(x)", "b = Unsqueeze(a, axis)", "c = Gather(w, b)",
        "y = ReduceMean<axes=[1,2], keepdims=0>(c)",
    ]  # fmt: skip
    model = build(*nodes, shape=("N", 5), kind=6, w=table, axis=integers(2))
    graph = onnx_frontend.convert(write(model, tmp_path))
    x = ids(2, 5)
    value = reference.forward(graph, x)[graph.output]
    np.testing.assert_allclose(value, table[x].mean(1, dtype=np.float64))
    for text, reason in [
        ("y = Cast<to=8>(x)", "cast to STRING"),
        ("y = Gather<axis=1>(w, x)", "another axis"),
        ("y = Gather(i, x)", "of type int64"),
    ]:
        bad = build(text, shape=("N", 5), kind=7, w=table, i=integers(1))
        with pytest.raises(UnsupportedOperatorError, match=reason):
            onnx_frontend.convert(write(bad, tmp_path))


def test_saved_and_loaded(tmp_path: Path) -> None:
    module, x = classifier(Classifier)
    model = relprop.load(module, x)
    model.save(tmp_path / "text.relprop")
    loaded = relprop.load(tmp_path / "text.relprop")
    a, b = (Explainer(m)(x.numpy()).relevance for m in (model, loaded))
    np.testing.assert_array_equal(a, b)
