"""Randomised layers: what changes, what stays, and how maps follow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relprop import Explainer, Graph, Model, rules
from relprop import graph as g
from relprop.evaluation import (
    Randomisation,
    cascading_randomisation,
    learned_layers,
    randomised,
    spearman,
    ssim,
)
from relprop.evaluation.streams import Stream
from test_real_networks import network

RNG = np.random.default_rng(7)


def numbers(*shape: int) -> g.Array:
    return (RNG.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))).astype(np.float32)


def small(bias: bool = True) -> Graph:
    """Two convolutions with a branch, PReLU, batch norm that stands alone, a dense layer."""
    graph = Graph()
    graph.add("x", g.Input((2, 12, 12)))
    graph.add("conv1", g.Conv(numbers(6, 2, 3, 3), numbers(6) if bias else None), ["x"])
    graph.add("prelu", g.PReLU(np.float32([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])), ["conv1"])
    graph.add("conv2", g.Conv(numbers(6, 6, 1, 1), np.zeros(6, np.float32)), ["prelu"])
    graph.add("sum", g.Add(), ["prelu", "conv2"])
    shift = np.float32([1, -2, 0.5, 1, 0, 3]) if bias else np.zeros(6, np.float32)
    graph.add("norm", g.BatchNorm(numbers(6) + 1, shift), ["sum"])
    graph.add("relu", g.Activation("relu"), ["norm"])
    graph.add("mean", g.Mean((1, 2)), ["relu"])
    graph.add("dense", g.Dense(numbers(5, 6), numbers(5) if bias else None), ["mean"])
    return graph


IMAGES = RNG.standard_normal((5, 2, 12, 12)).astype(np.float32)


def arrays(graph: Graph) -> dict[tuple[str, str], g.Array]:
    return {
        (node.name, field): value
        for node in graph
        for field, value in vars(node.operator).items()
        if isinstance(value, np.ndarray)
    }


def changed(before: Graph, after: Graph) -> set[tuple[str, str]]:
    old, new = arrays(before), arrays(after)
    assert list(old) == list(new)
    assert all(old[key].shape == new[key].shape and new[key].dtype == np.float32 for key in old)
    return {key for key in old if not np.array_equal(old[key], new[key])}


# --- One graph -----------------------------------------------------------------------------------


def test_layers_come_from_the_output_down() -> None:
    graph = small()
    assert learned_layers(graph) == ("dense", "norm", "conv2", "prelu", "conv1")
    graph.add("other", g.Dense(numbers(3, 6)), ["mean"])
    graph.outputs = {"classes": "dense", "others": "other"}
    assert learned_layers(graph, "others") == ("other", "norm", "conv2", "prelu", "conv1")


def test_named_layers_change_and_nothing_else() -> None:
    graph = small()
    before = {key: array.copy() for key, array in arrays(graph).items()}
    after = randomised(graph, ["conv1", "norm"])
    expected = {("conv1", "weight"), ("conv1", "bias"), ("norm", "scale"), ("norm", "shift")}
    assert changed(graph, after) == expected
    assert all(np.array_equal(array, before[key]) for key, array in arrays(graph).items())
    assert after.outputs == graph.outputs and list(after.nodes) == list(graph.nodes)


def test_a_bias_of_zeros_stays_one() -> None:
    graph = small()
    assert changed(graph, randomised(graph, "conv2")) == {("conv2", "weight")}


@pytest.mark.parametrize("initialisation", ["normal", "permutation"])
def test_what_a_layer_gets_is_its_own(initialisation) -> None:
    """It depends on the seed and the layer, not on the others or on the order."""
    graph, way = small(), {"initialisation": initialisation}
    together = arrays(randomised(graph, ["dense", "conv1"], **way))
    first = randomised(graph, ["conv1"], **way)
    one_by_one = arrays(randomised(first, ["dense"], **way))
    assert all(np.array_equal(together[key], one_by_one[key]) for key in together)
    other = randomised(graph, ["dense", "conv1"], seed=1, **way)
    assert ("dense", "weight") in changed(randomised(graph, ["dense"], **way), other)
    assert not np.array_equal(
        together["dense", "weight"].ravel()[:5], together["dense", "bias"].ravel()
    )


def test_normal_keeps_mean_and_deviation() -> None:
    graph = Graph()
    graph.add("x", g.Input((200,)))
    weight = np.float32(3 + 0.5 * RNG.standard_gamma(1.0, (300, 200)))
    graph.add("dense", g.Dense(weight, np.float32(np.linspace(-4, 1, 300))), ["x"])
    new = randomised(graph, ["dense"])["dense"].operator
    for old, drawn in ((weight, new.weight), (graph["dense"].operator.bias, new.bias)):
        error = old.std() / math.sqrt(old.size)
        assert abs(drawn.mean() - old.mean()) < 5 * error
        assert abs(drawn.std() - old.std()) < 5 * error
        standard = np.sort((drawn - drawn.mean()).ravel() / drawn.std())
        assert np.interp(1.0, standard, np.linspace(0, 1, old.size)) == pytest.approx(0.84, abs=0.1)
    # The documented draw, a second time.
    random = Stream(0, ("randomisation", "dense", "weight")).generator()
    mean, deviation = weight.astype(np.float64).mean(), weight.astype(np.float64).std()
    expected = random.normal(mean, deviation, weight.shape).astype(np.float32)
    assert np.allclose(new.weight, expected, rtol=1e-6)


def test_permutation_keeps_the_values() -> None:
    graph = small()
    new = arrays(randomised(graph, learned_layers(graph), initialisation="permutation"))
    for key, old in arrays(graph).items():
        assert np.array_equal(np.sort(new[key], axis=None), np.sort(old, axis=None))
    assert not np.array_equal(new["conv1", "weight"], graph["conv1"].operator.weight)


def test_what_is_no_layer_is_refused() -> None:
    for name, hint in (("relu", ""), ("conv3", "did you mean conv")):
        with pytest.raises(ValueError, match=f"'{name}' is no such one.*{hint}"):
            randomised(small(), [name])
    with pytest.raises(ValueError, match="must be 'normal' or 'permutation', not 'he'"):
        randomised(small(), ["conv1"], initialisation="he")


# --- Maps along the cascade ----------------------------------------------------------------------


def assert_same(one: Randomisation, other: Randomisation) -> None:
    assert one.levels == other.levels and np.array_equal(one.target, other.target)
    for name, values in one.similarity.items():
        assert np.array_equal(values, other.similarity[name], equal_nan=True), name


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("method", ["gradient", "epsilon"])
def test_the_cascade_is_what_a_loop_does(method: str, independent: bool) -> None:
    graph = small()
    found = cascading_randomisation(
        graph, method, IMAGES, independent=independent, seed=3, batch_size=2
    )
    layers = ["dense", "norm", "conv2", "prelu", "conv1"]
    assert found.levels == tuple((layer,) for layer in layers)
    assert set(found.similarity) == {"spearman", "spearman_absolute", "ssim"}
    own = Explainer(graph, method)
    for i, image in enumerate(IMAGES):
        result = own(image[None])
        (target,) = result.target
        assert found.target[i] == target
        before = result.relevance.astype(np.float64).sum(1)[0]
        for level in range(len(layers)):
            damaged = graph
            for layer in layers[level : level + 1] if independent else layers[: level + 1]:
                damaged = randomised(damaged, [layer], seed=3)
            after = Explainer(damaged, method)(image[None], int(target)).relevance
            after = after.astype(np.float64).sum(1)[0]
            for name, expected in (
                ("spearman", spearman(before, after)),
                ("spearman_absolute", spearman(abs(before), abs(after))),
                ("ssim", ssim(before, after)),
            ):
                assert found.similarity[name][level, i] == expected, (name, layers[level])


def test_the_batch_size_does_not_show() -> None:
    graph = small()
    one = cascading_randomisation(graph, "epsilon_plus_flat", IMAGES, batch_size=1)
    assert_same(one, cascading_randomisation(graph, "epsilon_plus_flat", IMAGES, batch_size=5))
    other = cascading_randomisation(graph, "epsilon_plus_flat", IMAGES, seed=1)
    assert not np.array_equal(one.similarity["spearman"], other.similarity["spearman"])


def test_levels_and_classes_may_be_given() -> None:
    graph = small()
    found = cascading_randomisation(
        Model(graph, classes=tuple("abcde")),
        "gradient",
        IMAGES,
        list("eabcd"),
        levels=["dense", ("conv2", "norm")],
        similarities={"difference": lambda a, b: float(np.abs(a - b).max())},
    )
    assert found.levels == (("dense",), ("conv2", "norm"))
    assert found.target.tolist() == [4, 0, 1, 2, 3]
    assert list(found.similarity) == ["difference"]
    assert found.similarity["difference"].shape == (2, 5)
    single = cascading_randomisation(graph, "gradient", IMAGES[1:2], 0, levels=["dense"])
    assert single.target.tolist() == [0]
    with pytest.raises(ValueError, match='"argmax" or classes here'):
        cascading_randomisation(graph, "gradient", IMAGES, np.ones((5, 5), bool))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), not of shape \(2, 12, 12\)"):
        cascading_randomisation(graph, "gradient", IMAGES[0])
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        cascading_randomisation(graph, "gradient", IMAGES, batch_size=0)


def test_every_level_has_the_methods_parameters_and_rules() -> None:
    graph = small()
    parameters = {"epsilon": 0.5, "rules": {"conv2": rules.Zero()}}
    found = cascading_randomisation(
        graph, "epsilon", IMAGES[:1], levels=["dense"], parameters=parameters
    )
    maps = [
        Explainer(model, "epsilon", **parameters)(IMAGES[:1], found.target).relevance[0].sum(0)
        for model in (graph, randomised(graph, ["dense"]))
    ]
    assert found.similarity["spearman"][0, 0] == pytest.approx(spearman(*maps))
    plain = cascading_randomisation(graph, "epsilon", IMAGES[:1], levels=["dense"])
    assert found.similarity["spearman"] != plain.similarity["spearman"]


def test_one_of_several_outputs_is_randomised_alone() -> None:
    graph = small()
    graph.add("other", g.Dense(numbers(3, 6)), ["mean"])
    graph.outputs = {"classes": "dense", "others": "other"}
    found = cascading_randomisation(graph, "gradient", IMAGES, parameters={"output": "others"})
    assert found.levels[0] == ("other",) and ("dense",) not in found.levels


def test_a_map_of_zeros_is_like_none() -> None:
    graph = small(bias=False)
    black = np.zeros((1, 2, 12, 12), np.float32)
    found = cascading_randomisation(graph, "epsilon", black, 0, levels=["dense"])
    assert all(np.isnan(values).all() for values in found.similarity.values())


def test_the_model_stays_as_it_is() -> None:
    graph = small()
    before = {key: array.tobytes() for key, array in arrays(graph).items()}
    cascading_randomisation(graph, "gradient", IMAGES)
    assert {key: array.tobytes() for key, array in arrays(graph).items()} == before


# --- A trained network ---------------------------------------------------------------------------


def test_maps_of_a_trained_network_follow_its_weights() -> None:
    """SqueezeNet, from its output down: gradients lose their order, alpha-beta's hardly do."""
    graph, photos = network("squeezenet")
    layers = learned_layers(graph)
    assert len(layers) == 26
    levels = [layers[:1], layers[1:9], layers[9:]]
    medians = {}
    for method in ("gradient", "epsilon", "alpha2_beta1"):
        found = cascading_randomisation(graph, method, photos, levels=levels)
        medians[method] = np.median(found.similarity["spearman"], axis=1)
    for method in ("gradient", "epsilon"):
        first, half, whole = medians[method]
        assert 0.1 < first < 0.8
        assert abs(half) < 0.1
        assert abs(whole) < 0.05
    assert medians["alpha2_beta1"][1] > 0.8  # Sixt, Granz and Landgraf 2020 saw the same
    assert abs(medians["alpha2_beta1"][2]) < 0.1
