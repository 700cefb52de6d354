"""Curves: against plain loops in float64, whatever the batch, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

import reference
from relprop import Explainer, Preprocessing
from relprop.evaluation.colours import Colours
from relprop.evaluation.curve import Curve, abpc, aopc, perturbation_curve
from relprop.evaluation.perturbations import (
    Blur,
    Constant,
    Custom,
    DatasetMean,
    InPainting,
    Perturbation,
    Uniform,
)
from relprop.evaluation.perturbing import CurveRequest, CurveTask, Perturbing
from relprop.evaluation.segments import grid
from relprop.evaluation.streams import Stream
from synthetic_run import network

COUNT = 5
BOUNDS = (-2.0, 2.0)
MODEL = network()
EXPLAINER = Explainer(MODEL, "epsilon")
IMAGES = np.random.default_rng(3).standard_normal((COUNT, 2, 8, 8), np.float32).clip(-2, 2)
RELEVANCE = EXPLAINER(IMAGES).relevance
KEYS = tuple("abcde")


def curve_of(**changes: Any) -> Curve:
    arguments = {
        "predict": EXPLAINER,
        "images": IMAGES,
        "relevance": RELEVANCE,
        "region": 3,
        "steps": 5,
        "repeats": 3,
        "bounds": BOUNDS,
        "keys": KEYS,
        **changes,
    }
    return perturbation_curve(**arguments)


# --- The same by loops ----------------------------------------------------------------------------


def by_reference(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The network in float64, by tests/reference.py."""
    return reference.forward(MODEL.graph, x[None])["scores"][0]


def by_torch(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The network in float64, by torch."""
    conv, dense = (MODEL.graph[name].operator for name in ("conv", "scores"))
    y = nn.functional.conv2d(
        torch.from_numpy(x[None]),
        torch.from_numpy(conv.weight.astype(np.float64)),
        torch.from_numpy(conv.bias.astype(np.float64)),
        padding=1,
    )
    y = nn.functional.max_pool2d(torch.relu(y), 4).flatten(1)
    scores = y @ torch.from_numpy(dense.weight.astype(np.float64)).T
    return np.asarray((scores + torch.from_numpy(dense.bias.astype(np.float64)))[0])


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = [np.exp(score) for score in scores]
    return np.array(powers) / sum(powers)


def squares(height: int, width: int, region: int) -> list[tuple[slice, slice]]:
    return [
        (slice(top, top + region), slice(left, left + region))
        for top in range(0, height, region)
        for left in range(0, width, region)
    ]


def plain_curve(
    forward: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    image: NDArray[np.float32],
    relevance: NDArray[np.float32],
    new_image: NDArray[np.float64],
    order: str,
    region: int,
    steps: int,
    probability: bool,
) -> list[float]:
    """One curve by plain loops, for perturbations that take pixels of another image."""
    regions = squares(*image.shape[1:], region)
    total = [
        float(relevance[:, rows, columns].astype(np.float64).sum()) for rows, columns in regions
    ]
    ranked = sorted(range(len(regions)), key=lambda r: -total[r] if order == "morf" else total[r])
    x = image.astype(np.float64)
    scores = forward(x)
    target = int(scores.argmax())
    curve = []
    for step in range(steps + 1):
        if step:
            rows, columns = regions[ranked[step - 1]]
            x = x.copy()
            for channel in range(len(x)):
                x[channel, rows, columns] = new_image[channel, rows, columns]
        scores = forward(x)
        curve.append(float(softmax(scores)[target] if probability else scores[target]))
    return curve


def new_images(perturbation: Perturbation, key: str, repeats: int, shape: Any) -> Any:
    """What a perturbation puts in place, image by image and repeat by repeat."""
    if isinstance(perturbation, Constant):
        value = {"black": BOUNDS[0], "white": BOUNDS[1]}.get(
            perturbation.value,
            perturbation.value,  # type: ignore[arg-type]
        )
        return [np.full(shape, value)]
    drawn = [
        Stream(7, (key, repeat, "uniform")).generator().random(shape) for repeat in range(repeats)
    ]
    return [BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * noise for noise in drawn]


@pytest.mark.parametrize("forward", [by_reference, by_torch])
@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("order", ["morf", "lerf"])
@pytest.mark.parametrize("perturbation", [Uniform(), Constant("black"), Constant(0.25)])
def test_curves_are_those_of_plain_loops(
    forward: Any, score: Any, order: Any, perturbation: Perturbation
) -> None:
    found = curve_of(order=order, perturbation=perturbation, score=score, seed=7)
    for i, key in enumerate(KEYS):
        news = new_images(perturbation, key, 3, IMAGES.shape[1:])
        assert found.repeats == len(news)
        curves = [
            plain_curve(forward, IMAGES[i], RELEVANCE[i], new, order, 3, 5, score == "probability")
            for new in news
        ]
        np.testing.assert_allclose(found.scores[i], curves, rtol=2e-5, atol=2e-5)
        drops = [sum(curve[0] - value for value in curve) / 6 for curve in curves]
        np.testing.assert_allclose(aopc(found)[i], sum(drops) / len(drops), rtol=1e-4, atol=1e-4)


def test_random_orders_are_another_one_for_each_image_and_repeat() -> None:
    """Each region is marked by a value of its own, so that a score tells which is gone."""
    powers = 2.0 ** np.arange(9).reshape(3, 3)

    def predict(x: NDArray[np.float32]) -> NDArray[np.float64]:
        return (x[:, 0] * powers).sum(axis=(1, 2))[:, None]

    found = perturbation_curve(
        predict,
        np.ones((2, 1, 3, 3), np.float32),
        order="random",
        perturbation=Constant(0.0),
        region=1,
        steps=9,
        repeats=4,
    )
    taken = np.log2(-np.diff(found.scores)).astype(int)
    orders = {tuple(order) for image in taken for order in image}
    assert all(sorted(order) == list(range(9)) for order in orders) and len(orders) == 8


# --- Whatever the batch ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 40),
    st.permutations(range(COUNT)),
    st.integers(1, COUNT),
    st.sampled_from(["morf", "lerf", "random"]),
    st.sampled_from(["uniform", "constant:white", "blur:1"]),
)
def test_neither_batch_nor_order_of_items_nor_company_shows(
    batch: int, items: list[int], kept: int, order: Any, perturbation: str
) -> None:
    expected = curve_of(order=order, perturbation=perturbation).scores
    items = items[:kept]
    found = curve_of(
        images=IMAGES[items],
        relevance=RELEVANCE[items],
        keys=[KEYS[i] for i in items],
        order=order,
        perturbation=perturbation,
        batch=batch,
    )
    assert np.array_equal(found.scores, expected[items])


def requests(i: int) -> list[CurveRequest]:
    labels, uneven = grid(8, 8, 3), grid(8, 8, 5)
    noise = Uniform()

    def jittered(current: Any, pixels: Any, generator: Any) -> Any:
        return current.reshape(2, -1)[:, pixels] + generator.random((2, len(pixels)))

    custom = Custom(jittered)
    return [
        CurveRequest(labels, noise, "morf", RELEVANCE[i]),
        CurveRequest(labels, noise, "random"),
        CurveRequest(uneven, noise, "lerf", RELEVANCE[i], "mean"),
        CurveRequest(labels, Constant("black"), "morf", RELEVANCE[i]),
        CurveRequest(labels, Blur(1), "random"),
        CurveRequest(labels, custom, "morf", RELEVANCE[i]),
        CurveRequest(labels, custom, "random"),
        CurveRequest(labels, DatasetMean(IMAGES.mean(axis=0)), "lerf", RELEVANCE[i]),
    ]


@pytest.mark.parametrize("batch", [1, 7, 32, 500])
def test_curves_asked_for_together_are_those_asked_for_alone(batch: int) -> None:
    settings_ = {"steps": 5, "repeats": 3, "colours": Colours((-2.0,) * 2, (2.0,) * 2)}
    together = Perturbing(EXPLAINER, batch=batch, **settings_)
    alone = Perturbing(EXPLAINER, **settings_)
    tasks = [CurveTask(KEYS[i], IMAGES[i], requests(i)) for i in range(COUNT)]
    results = list(together(iter(tasks)))
    assert [result.key for result in results] == list(KEYS)
    for task, result in zip(tasks, results):
        for request, scores in zip(task.wanted, result.scores):
            expected = alone.curves(task.key, task.image, [request]).scores[0]
            assert np.array_equal(scores, expected)
        assert [len(scores) for scores in result.scores] == [3, 3, 3, 1, 3, 3, 3, 1]
        assert result.regions == (9, 9, 4, 9, 9, 9, 9, 9)


def test_all_orders_and_methods_of_an_image_and_repeat_share_their_noise() -> None:
    """When all regions are gone, nothing is left of the order."""
    scores = [
        curve_of(order=order, relevance=relevance, steps=9).scores
        for order, relevance in (("morf", RELEVANCE), ("lerf", -(RELEVANCE**2)), ("random", None))
    ]
    assert np.array_equal(scores[0][..., -1], scores[1][..., -1])
    assert np.array_equal(scores[0][..., -1], scores[2][..., -1])
    assert len({*scores[0][0, :, -1]}) == 3  # repeats differ


def test_another_seed_and_another_key_are_another_draw() -> None:
    first = curve_of().scores
    assert np.array_equal(first, curve_of().scores)
    assert not np.array_equal(first[..., 1:], curve_of(seed=1).scores[..., 1:])
    assert not np.array_equal(first, curve_of(keys=KEYS[::-1]).scores)


def test_no_more_than_a_batch_is_held_and_nearly_all_are_full() -> None:
    sizes = []

    def predict(x: NDArray[np.float32]) -> Any:
        sizes.append(len(x))
        return EXPLAINER.forward(x)

    curve_of(predict=predict, batch=16)
    assert sum(sizes) == COUNT * (1 + 3 * 5)
    assert set(sizes[:-1]) == {16}


def test_tasks_are_read_as_they_are_needed() -> None:
    read = []

    def tasks() -> Any:
        for i in range(COUNT):
            read.append(i)
            yield CurveTask(KEYS[i], IMAGES[i], requests(i))

    perturbing = Perturbing(EXPLAINER, batch=8, colours=Colours((-2.0,) * 2, (2.0,) * 2))
    results = perturbing(tasks())
    next(results)
    assert len(read) <= 2


# --- Ends and edges -------------------------------------------------------------------------------


def test_with_fewer_regions_than_steps_the_curve_stays() -> None:
    short, long = curve_of(region=4, steps=4), curve_of(region=4, steps=11)
    assert long.regions.tolist() == [4] * COUNT and long.steps == 11
    assert np.array_equal(long.scores[..., :5], short.scores)
    assert (long.scores[..., 5:] == long.scores[..., 4:5]).all()
    np.testing.assert_allclose(aopc(long, 4), aopc(short), rtol=1e-15)


def test_an_image_smaller_than_a_region_is_taken_at_once() -> None:
    found = curve_of(region=100, perturbation=Constant(0.0), steps=2)
    at_zero = EXPLAINER.forward(np.zeros((1, 2, 8, 8), np.float32))[0]
    assert (found.scores[:, 0, 1] == at_zero[found.target]).all()
    assert np.array_equal(found.scores[..., 1], found.scores[..., 2])


@pytest.mark.parametrize(("region", "by"), [(4, "sum"), (1, "sum"), (3, "mean")])
def test_constant_maps_give_one_curve_for_both_orders(region: int, by: Any) -> None:
    flat = np.full_like(RELEVANCE, 0.1)
    morf, lerf = (
        curve_of(relevance=flat, order=order, region=region, by=by) for order in ("morf", "lerf")
    )
    assert np.array_equal(morf.scores, lerf.scores)
    assert (abpc(morf, lerf) == 0).all()


def test_pixels_of_no_region_are_never_taken() -> None:
    labels = np.full((8, 8), -1)
    labels[:4, :4], labels[4:, :] = 0, 1
    seen = []

    def predict(x: NDArray[np.float32]) -> Any:
        seen.extend(x.copy())
        return EXPLAINER.forward(x)

    curve_of(predict=predict, labels=labels, images=IMAGES[:1], relevance=RELEVANCE[:1], keys="a")
    for x in seen:
        assert np.array_equal(x[:, :4, 4:], IMAGES[0, :, :4, 4:])
    assert not np.equal(seen[2][:, labels >= 0], IMAGES[0][:, labels >= 0]).any()


def test_labels_may_differ_from_image_to_image() -> None:
    cuts = np.stack([grid(8, 8, 2 + i) for i in range(COUNT)])
    found = curve_of(labels=cuts)
    assert found.regions.tolist() == [16, 9, 4, 4, 4]
    for i in range(COUNT):
        one = slice(i, i + 1)
        alone = curve_of(
            images=IMAGES[one], relevance=RELEVANCE[one], keys=KEYS[one], labels=cuts[i]
        )
        assert np.array_equal(found.scores[one], alone.scores)


def test_in_painting_has_one_repeat() -> None:
    pytest.importorskip("cv2")
    assert curve_of(perturbation=InPainting("ns", 2)).scores.shape == (COUNT, 1, 6)


def test_a_model_knows_its_bounds_and_classes() -> None:
    grey = replace(MODEL, preprocessing=None)
    assert curve_of(predict=Explainer(grey), target="dog").target.tolist() == [1] * COUNT
    model = network()
    with pytest.raises(ValueError, match="uniform needs the bounds"):
        perturbation_curve(Explainer(model), IMAGES, RELEVANCE)


def test_bounds_come_from_the_preprocessing() -> None:
    from relprop import Graph, Model
    from relprop.graph import Dense, Input, Reshape

    graph = Graph()
    graph.add("input", Input((3, 2, 2)))
    graph.add("flat", Reshape((12,)), ["input"])
    graph.add("scores", Dense(np.eye(12, dtype=np.float32)[:1], np.zeros(1, np.float32)), ["flat"])
    model = Model(graph, Preprocessing((2, 2), (100, 110, 120), (50, 50, 50)))
    found = perturbation_curve(
        Explainer(model, "epsilon"),
        np.ones((1, 3, 2, 2), np.float32),
        np.ones((1, 2, 2)),
        perturbation="constant:white",
        region=2,
        steps=1,
    )
    np.testing.assert_allclose(found.scores, [[[1, 155 / 50]]], rtol=1e-6)


def test_torch_in_and_the_same_out() -> None:
    found = curve_of(images=torch.from_numpy(IMAGES), relevance=torch.from_numpy(RELEVANCE))
    assert np.array_equal(found.scores, curve_of().scores)


def test_given_classes_are_followed() -> None:
    found = curve_of(target=[0, 1, 2, 1, 0], perturbation=Constant(0.0))
    scores = EXPLAINER.forward(IMAGES)
    assert found.target.tolist() == [0, 1, 2, 1, 0]
    assert np.array_equal(found.scores[:, 0, 0], scores[np.arange(COUNT), found.target])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"order": "best"}, ValueError, "order must be one of"),
        ({"perturbation": "noise"}, ValueError, "perturbation must be"),
        ({"score": "odds"}, ValueError, "score must be one of logit, probability, not 'odds'"),
        ({"steps": 0}, ValueError, "steps must be at least 1, not 0"),
        ({"repeats": 0}, ValueError, "repeats must be at least 1, not 0"),
        ({"batch": 0}, ValueError, "batch must be at least 1, not 0"),
        ({"region": 0}, ValueError, "region must be at least 1, not 0"),
        ({"by": "median"}, ValueError, 'by must be "sum" or "mean"'),
        ({"images": IMAGES[0]}, ValueError, "images must be at least one"),
        ({"images": IMAGES[:0]}, ValueError, "images must be at least one"),
        ({"images": np.where(IMAGES > 1, np.nan, IMAGES)}, ValueError, "a: image must be finite"),
        ({"images": IMAGES.astype(int)}, TypeError, "image must be floating point"),
        ({"relevance": None}, TypeError, "needs relevance"),
        ({"relevance": RELEVANCE[:4]}, ValueError, r"relevance must have shape \(5, 8, 8\)"),
        ({"relevance": RELEVANCE * np.nan}, ValueError, "relevance must be finite"),
        ({"keys": "aabcd"}, ValueError, "keys must be 5 different names, not 4 of 5"),
        ({"labels": np.zeros((4, 8, 8), int)}, ValueError, "labels must have shape"),
        ({"labels": np.full((8, 8), -1)}, ValueError, "at least one region"),
        ({"labels": np.zeros((8, 8))}, TypeError, "whole numbers"),
        ({"target": 3}, ValueError, r"\[0, 3\), not 3"),
        ({"target": "horse"}, ValueError, "horse"),
        ({"target": np.ones((5, 3), bool)}, ValueError, "only a class can be followed"),
        ({"bounds": (1, 0)}, ValueError, "low must be <= high"),
        ({"bounds": (0, (1, 2, 3))}, ValueError, "high has shape"),
        ({"bounds": (0, 1, 2)}, ValueError, "pair"),
        ({"predict": 3}, TypeError, "predict must be an Explainer or a function"),
        ({"predict": lambda x: x}, ValueError, "only a class can be followed"),
        ({"predict": lambda x: x[:, 0, 0] * np.nan}, ValueError, "a: scores must be finite"),
        ({"predict": lambda x: x[:, 0, 0], "target": 8}, ValueError, r"\[0, 8\), not 8"),
    ],
)
def test_what_is_refused(changes: Any, error: type[Exception], message: str) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(error, match=message):
        curve_of(**changes)


# --- Areas ----------------------------------------------------------------------------------------


def test_areas_by_hand() -> None:
    """f = 4, 2, 1 and 4, 3, 3: drops 0, 2, 3 and 0, 1, 1."""
    morf = np.array([[[4.0, 2.0, 1.0], [4.0, 3.0, 3.0]]])
    assert aopc(morf).tolist() == pytest.approx([(5 / 3 + 2 / 3) / 2])
    assert aopc(morf, 1).tolist() == pytest.approx([(2 / 2 + 1 / 2) / 2])
    assert aopc(morf, 0).tolist() == [0]
    lerf = np.array([[[4.0, 4.0, 3.0]]])
    assert abpc(morf, lerf).tolist() == pytest.approx([7 / 6 - 1 / 3])
    assert aopc(morf[0]).shape == ()


def test_the_area_between_is_of_two_orders_of_the_same() -> None:
    morf, lerf = curve_of(), curve_of(order="lerf")
    assert np.array_equal(abpc(morf, lerf), aopc(morf) - aopc(lerf))
    for one, other, message in (
        (lerf, morf, "morf must be a curve of that order, not of 'lerf'"),
        (morf, curve_of(order="lerf", perturbation="blur"), "the same perturbation"),
        (morf, curve_of(order="lerf", keys="vwxyz"), "the same keys"),
        (morf, curve_of(order="lerf", score="probability"), "the same score"),
        (morf, curve_of(order="lerf", target=0), "the same classes"),
        (morf, curve_of(order="lerf", steps=4), "as many steps, not 5 and 4"),
    ):
        with pytest.raises(ValueError, match=message):
            abpc(one, other)


@pytest.mark.parametrize("steps", [-1, 6])
def test_an_area_has_no_more_steps_than_the_curve(steps: int) -> None:
    with pytest.raises(ValueError, match=r"steps must lie in \[0, 5\]"):
        aopc(curve_of(), steps)
