"""Several inputs: how they are given, what is refused, and where their relevance goes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from cases import numbers
from relprop import Explainer, Graph, Preprocessing, UnmatchedLayerError, rules
from relprop import graph as g
from relprop.model import Model

IMAGE, META = (2, 6, 5), (4,)


def two_inputs() -> Graph:
    """An image and a vector; "spare" is read by another output alone."""
    rng = np.random.default_rng(5)
    graph = Graph()
    graph.add("image", g.Input(IMAGE))
    graph.add("meta", g.Input(META))
    graph.add("spare", g.Input((3,)))
    graph.add("conv", g.Conv(numbers(rng, (4, 2, 3, 3)), numbers(rng, (4,))), ["image"])
    graph.add("relu", g.Activation("relu"), ["conv"])
    graph.add("flat", g.Reshape((48,)), ["relu"])
    graph.add("dense", g.Dense(numbers(rng, (5, 4)), numbers(rng, (5,))), ["meta"])
    graph.add("both", g.Concat(0), ["flat", "dense"])
    graph.add("last", g.Dense(numbers(rng, (3, 53)), numbers(rng, (3,))), ["both"])
    graph.add("other", g.Dense(numbers(rng, (2, 8)), None),
              [graph.add("beside", g.Concat(0), ["dense", "spare"])])  # fmt: skip
    graph.outputs = {"scores": "last", "extra": "other", "features": "relu"}
    return graph


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(two_inputs(), "epsilon_plus", output="scores")


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    shapes = {"image": IMAGE, "meta": META, "spare": (3,)}
    return {name: numbers(rng, (4, *shape)) for name, shape in shapes.items()}


Inputs = dict[str, np.ndarray]


def test_as_a_dictionary_or_a_tuple(explainer: Explainer, inputs: Inputs) -> None:
    named = explainer(inputs)
    assert list(named.relevance) == list(inputs)
    backwards = explainer(dict(reversed(inputs.items())))
    in_order = explainer(tuple(inputs.values()))
    assert list(backwards.relevance) == list(inputs)[::-1]
    assert isinstance(in_order.relevance, tuple)
    for (name, x), relevance in zip(inputs.items(), in_order.relevance, strict=True):
        assert relevance.shape == x.shape
        np.testing.assert_array_equal(named.relevance[name], relevance)
        np.testing.assert_array_equal(backwards.relevance[name], relevance)
    np.testing.assert_array_equal(explainer.forward(inputs), named.scores)


def test_an_input_that_the_output_does_not_depend_on(explainer: Explainer, inputs: Inputs) -> None:
    result = explainer(inputs)
    assert not result.relevance["spare"].any()
    assert result.relevance["meta"].any()
    assert (result.ledger.closure_error <= 1e-6).all()
    changed = {**inputs, "spare": inputs["spare"] + 1}
    np.testing.assert_array_equal(explainer(changed).relevance["image"], result.relevance["image"])
    extra = Explainer(two_inputs(), "epsilon_plus", output="extra")(inputs)
    assert not extra.relevance["image"].any()
    assert extra.relevance["spare"].any()


def test_an_output_that_another_is_made_of(inputs: Inputs) -> None:
    explainer = Explainer(two_inputs(), "epsilon_plus", output="features")
    assert [node.name for node in explainer.graph] == ["image", "meta", "spare", "conv", "relu"]
    mask = np.zeros((4, 4, 4, 3), bool)
    mask[:, 1, 2, 1] = True
    relevance = explainer(inputs, mask, initial="one").relevance["image"]
    assert relevance[:, :, 2:5, 1:4].any()
    relevance[:, :, 2:5, 1:4] = 0
    assert not relevance.any()


def test_an_input_read_twice() -> None:
    graph = Graph()
    graph.add("x", g.Input((3,)))
    graph.add("y", g.Input((3,)))
    weight = np.eye(3, dtype=np.float32)
    graph.add("left", g.Dense(weight), ["x"])
    graph.add("right", g.Dense(2 * weight), ["x"])
    graph.add("sum", g.Add(), ["left", "right", "y"])
    x, y = np.ones((1, 3), np.float32), np.full((1, 3), 3, np.float32)
    relevance = Explainer(graph, "epsilon")((x, y), 1).relevance
    np.testing.assert_allclose(relevance[0], [[0, 3, 0]], rtol=1e-5)
    np.testing.assert_allclose(relevance[1], [[0, 3, 0]], rtol=1e-5)


def test_single_samples_and_empty_batches(explainer: Explainer, inputs: Inputs) -> None:
    whole = explainer(inputs).relevance
    one = explainer({name: x[2] for name, x in inputs.items()})
    mixed = explainer({**{name: x[2:3] for name, x in inputs.items()}, "meta": inputs["meta"][2]})
    for name, x in inputs.items():
        assert one.relevance[name].shape == x.shape[1:]
        np.testing.assert_array_equal(one.relevance[name], whole[name][2])
    assert mixed.relevance["image"].shape == (1, *IMAGE)
    assert mixed.relevance["meta"].shape == META
    none = explainer({name: x[:0] for name, x in inputs.items()})
    assert none.scores.shape == (0, 3)
    assert [r.shape[0] for r in none.relevance.values()] == [0, 0, 0]


def test_any_floating_layout(explainer: Explainer, inputs: Inputs) -> None:
    expected = explainer(inputs).relevance
    changed = {
        "image": np.asfortranarray(inputs["image"].astype(np.float64)),
        "meta": np.repeat(inputs["meta"], 2, axis=1)[:, ::2],
        "spare": inputs["spare"].tolist(),
    }
    for name, relevance in explainer(changed).relevance.items():
        assert relevance.dtype == np.float32
        np.testing.assert_array_equal(relevance, expected[name])


def test_all_is_of_the_kind_of_the_first(explainer: Explainer, inputs: Inputs) -> None:
    mixed = {**inputs, "image": torch.from_numpy(inputs["image"])}
    result = explainer(mixed)
    found = (*result.relevance.values(), result.scores)
    assert all(isinstance(array, torch.Tensor) for array in found)
    mixed = {**inputs, "meta": torch.from_numpy(inputs["meta"])}
    assert all(isinstance(r, np.ndarray) for r in explainer(mixed).relevance.values())


def test_a_sample_is_the_same_in_any_batch_and_thread(inputs: Inputs) -> None:
    explainer = Explainer(two_inputs(), "alpha2_beta1", output="scores")
    many = {name: np.concatenate([x] * 9) for name, x in inputs.items()}
    expected = explainer(many).relevance

    def call(turn: int) -> bool:
        part = {name: x[turn : turn + 1 + turn % 5] for name, x in many.items()}
        found = explainer(part).relevance
        return all(
            np.array_equal(found[name], expected[name][turn : turn + 1 + turn % 5])
            for name in found
        )

    with ThreadPoolExecutor(15) as pool:
        assert all(pool.map(call, range(30)))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            lambda x: x["image"],
            ValueError,
            r"several inputs \(image, meta, spare\): give images as",
        ),
        (lambda x: {"image": x["image"]}, ValueError, r"\(image, meta, spare\), not image\."),
        (lambda x: {**x, "more": 0}, ValueError, "not image, meta, spare, more"),
        (lambda x: (x["image"], x["meta"]), ValueError, r"\(image, meta, spare\), not 2\."),
        (
            lambda x: {**x, "meta": x["meta"][:3]},
            ValueError,
            "as many samples for each input, not 4 for 'image' and 3 for 'meta'",
        ),
        (lambda x: {**x, "meta": x["image"]}, ValueError, r"images\['meta'\] must have shape"),
        (lambda x: {**x, "meta": x["meta"] * np.nan}, ValueError, r"images\['meta'\] .* finite"),
        (lambda x: {**x, "spare": x["spare"] * np.inf}, ValueError, r"\['spare'\] must be finite"),
        (lambda x: {**x, "meta": x["meta"].astype(int)}, TypeError, r"\['meta'\] must be floating"),
    ],
)
@np.errstate(all="ignore")
def test_bad_inputs(
    explainer: Explainer, inputs: Inputs, change: Any, error: type[Exception], text: str
) -> None:
    for call in (explainer, explainer.forward):
        with pytest.raises(error, match=text):
            call(change(inputs))


def test_one_output_is_explained_at_a_time() -> None:
    with pytest.raises(ValueError, match="one of the model's outputs, which are scores, extra, f"):
        Explainer(two_inputs())
    with pytest.raises(ValueError, match=r"output must be one of scores, .*, not 'score'"):
        Explainer(two_inputs(), output="score")


def test_an_output_that_depends_on_no_input() -> None:
    graph = two_inputs()
    graph.add("nothing", g.Constant(np.ones(2, np.float32)))
    with pytest.raises(ValueError, match="output 'nothing' depends on no input"):
        Explainer(graph)


def test_first_layers_are_those_of_every_input(inputs: Inputs) -> None:
    flat = Explainer(two_inputs(), "epsilon_plus_flat", output="scores").rules
    assert [name for name, rule in flat.items() if rule == rules.Flat()] == ["conv", "dense"]
    box = Explainer(two_inputs(), "deep_taylor", output="scores", low=-9.0, high=9.0)
    assert box.rules["conv"] == box.rules["dense"] == rules.ZBox(-9.0, 9.0)
    box(inputs)
    for name, layer in (("image", "conv"), ("meta", "dense")):
        with pytest.raises(ValueError, match=rf"must lie in z_box's bounds .*'{layer}'"):
            box({**inputs, name: inputs[name] + 20})
    box({**inputs, "spare": inputs["spare"] + 20})  # no layer on the way reads it


def test_bounds_of_one_input_alone(inputs: Inputs) -> None:
    low, high = np.array([-8.0, -9.0]), np.array([9.0, 8.0])
    own = {"dense": rules.Epsilon()}
    options = {"output": "scores", "low": tuple(low), "high": tuple(high)}
    box = Explainer(two_inputs(), "deep_taylor", rules=own, **options)
    box({**inputs, "meta": inputs["meta"] + 20})
    with pytest.raises(ValueError, match=r"'dense': low and high must be one number or one per"):
        Explainer(two_inputs(), "deep_taylor", **options)


def test_rules_name_nodes_of_the_whole_model(inputs: Inputs) -> None:
    """So that one set of rules serves every output."""
    own = {"conv": rules.Flat(), "other": rules.Zero(), 2: rules.WSquare()}
    scores = Explainer(two_inputs(), "epsilon", output="scores", rules=own)
    extra = Explainer(two_inputs(), "epsilon", output="extra", rules=own)
    assert (scores.rules["conv"], scores.rules["last"]) == (rules.Flat(), rules.WSquare())
    assert extra.rules == {"dense": rules.Epsilon(), "beside": rules.Pass(), "other": rules.Zero()}
    with pytest.raises(ValueError, match="'heads' is neither"):
        Explainer(two_inputs(), "epsilon", output="extra", rules={"heads": rules.Flat()})
    with pytest.raises(UnmatchedLayerError):
        Explainer(two_inputs(), "epsilon", output="scores", rules={"last": rules.Pass()})


def test_preprocessing_and_classes_of_what_they_fit() -> None:
    graph = two_inputs()
    with pytest.raises(ValueError, match=r"makes one input of shape \(3, 6, 5\), the model takes"):
        Model(graph, Preprocessing((6, 5), (0.0,) * 3, (1.0,) * 3)).check()
    with pytest.raises(ValueError, match=r"4 names for outputs of shape \(3,\) and \(2,\) and"):
        Model(graph, classes=("a", "b", "c", "d")).check()
    model = Model(graph, classes=("cat", "dog", "fish"))
    model.check()
    x = tuple(np.zeros((2, *node.shape), np.float32) for node in graph.inputs)
    assert list(Explainer(model, output="scores")(x, "dog").target) == [1, 1]
    with pytest.raises(ValueError, match="the class names are not those of an output of 2"):
        Explainer(model, output="extra")(x, "dog")
