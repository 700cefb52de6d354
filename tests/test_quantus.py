"""Quantus's metrics call an Explainer, and agree with ours where they define the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from networks import initialise
from peers import peer
from relprop import Explainer
from relprop.evaluation import (
    entropy,
    explain_func,
    gini,
    maps_of,
    pointing_game,
    relevance_mass,
    relevance_rank,
    spearman,
    top_k_intersection,
)

quantus = peer("quantus")

RAW = {"abs": False, "normalise": False, "disable_warnings": True}


@pytest.fixture(scope="module")
def case():
    module = initialise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, 5),
        )
    )  # fmt: skip
    rng = np.random.default_rng(5)
    images = rng.standard_normal((6, 3, 16, 16)).astype(np.float32)
    masks = np.zeros((6, 1, 16, 16), bool)
    for i, mask in enumerate(masks):
        mask[0, 2 * i : 2 * i + 6, 3:11] = True
    explainer = Explainer(relprop.load(module, torch.from_numpy(images[:1])), "epsilon")
    result = explainer(images)
    return module, images, result.target, masks, explainer, maps_of(result.relevance)


def scores(metric, case, **more) -> np.ndarray:
    module, images, classes, _, explainer, _ = case
    found = metric(
        module, images, classes, explain_func=explain_func(explainer), batch_size=4, **more
    )
    return np.asarray(found, float)


# --- Metrics that agree with ours ----------------------------------------------------------------


def test_localisation_agrees(case) -> None:
    *_, masks, _, maps = case
    pairs = list(zip(maps, masks[:, 0]))
    hits = scores(quantus.PointingGame(**RAW), case, s_batch=masks)
    assert hits.tolist() == [pointing_game(*pair, tolerance=0) for pair in pairs]
    assert 0 < hits.sum() < len(hits)
    positive = {**RAW, "normalise": True, "normalise_func": lambda a: np.maximum(a, 0)}
    for metric, own in (
        (quantus.RelevanceMassAccuracy(**positive), relevance_mass),
        (quantus.RelevanceRankAccuracy(**RAW), relevance_rank),
        (quantus.TopKIntersection(k=20, **RAW), lambda *pair: top_k_intersection(*pair, 20)),
    ):
        found = scores(metric, case, s_batch=masks)
        assert found == pytest.approx([own(*pair) for pair in pairs], rel=1e-5)


def test_sparseness_agrees(case) -> None:
    """But for the 1e-7 and 1e-12 that Quantus adds."""
    *_, maps = case
    absolute = {**RAW, "abs": True}
    found = scores(quantus.Sparseness(**absolute), case)
    assert found == pytest.approx([gini(values) for values in maps], rel=1e-4)
    found = scores(quantus.Complexity(**absolute), case)
    assert found == pytest.approx([entropy(values) for values in maps], rel=1e-4)


def test_spearman_agrees(case) -> None:
    *_, maps = case
    for one, other in pairwise(maps):
        theirs = quantus.correlation_spearman(one.ravel(), other.ravel())
        assert spearman(one, other) == pytest.approx(theirs, abs=1e-12)


# --- Metrics that change the images --------------------------------------------------------------


def test_pixel_flipping_flips_the_pixels_that_the_map_orders(case) -> None:
    module, images, classes, _, explainer, maps = case
    metric = quantus.PixelFlipping(features_in_step=64, perturb_baseline="black", **RAW)
    found = np.asarray(metric(module, images, classes, explain_func=explain_func(explainer)))
    given = np.asarray(metric(module, images, classes, a_batch=maps[:, None].astype(np.float32)))
    assert found.shape == (6, 12) and np.array_equal(found, given)


def test_region_perturbation_removes_the_regions_that_the_map_orders(case) -> None:
    """Its curve by loops, with the core's own scores: replaced by the image's least value."""
    _, images, classes, _, explainer, maps = case
    metric = quantus.RegionPerturbation(
        patch_size=4, regions_evaluation=5, perturb_baseline="black", **RAW
    )
    found = scores(metric, case, softmax=False)
    for i, (image, values) in enumerate(zip(images, maps)):
        corners = [(y, x) for y in range(0, 16, 4) for x in range(0, 16, 4)]
        corners.sort(key=lambda at: -values[at[0] : at[0] + 4, at[1] : at[1] + 4].sum())
        start, moved = explainer.forward(image[None])[0, classes[i]], image.copy()
        for step, (y, x) in enumerate(corners[:5]):
            moved[:, y : y + 4, x : x + 4] = image.min()
            drop = start - explainer.forward(moved[None])[0, classes[i]]
            assert found[i, step] == pytest.approx(drop, abs=1e-4)


def test_max_sensitivity_explains_noisy_images(case) -> None:
    found = scores(quantus.MaxSensitivity(nr_samples=3, lower_bound=0.01, **RAW), case)
    assert found.shape == (6,) and np.isfinite(found).all() and (found > 0).all()
    wider = scores(quantus.MaxSensitivity(nr_samples=3, lower_bound=0.5, **RAW), case)
    assert (wider > found).all()


# --- The adapter itself --------------------------------------------------------------------------


def test_attributions_are_the_explainers(case) -> None:
    module, images, classes, _, explainer, maps = case
    summed = explain_func(explainer)(module, images, classes)
    assert summed.dtype == np.float32 and summed.shape == (6, 1, 16, 16)
    assert np.allclose(summed[:, 0], maps, rtol=1e-6)
    whole = explain_func(explainer, channels=True)(None, torch.from_numpy(images), classes)
    assert np.array_equal(whole, explainer(images, classes).relevance)
    other = explain_func(explainer)(model=None, inputs=images, targets=torch.zeros(6).long())
    assert np.allclose(other[:, 0], maps_of(explainer(images, 0).relevance), rtol=1e-6)
    assert np.array_equal(summed, explain_func(explainer)(module, images, classes, device="cpu"))


def test_a_metric_that_changes_the_model_is_refused(case) -> None:
    """It would be told that the maps never change."""
    with pytest.raises(ValueError, match=r"model must be the same in all calls.*randomisation"):
        scores(quantus.MPRT(disable_warnings=True), case)


def test_what_does_not_fit_is_refused(case) -> None:
    module, images, classes, _, explainer, _ = case
    explain = explain_func(explainer)
    with pytest.raises(ValueError, match=r"\(N, 3, 16, 16\), not \(6, 3, 16, 15\)"):
        explain(module, images[..., 1:], classes)
    with pytest.raises(ValueError, match=r"one for each of 6 inputs, not of shape \(5,\)"):
        explain(module, images, classes[1:])
    with pytest.raises(TypeError, match="class indices, not float64"):
        explain(module, images, classes.astype(float))
    with pytest.raises(TypeError, match="must be empty, not name method: parameters belong"):
        explain(module, images, classes, method="LRP")


# --- Where Quantus differs, as docs/localisation-and-sanity.md says ------------------------------


def given(metric, maps: np.ndarray, masks: np.ndarray | None = None) -> list[float]:
    """What a metric says of maps (N, H, W)."""
    images, classes = np.ones((len(maps), 3, *maps.shape[1:])), np.zeros(len(maps), int)
    return metric(None, images, classes, maps[:, None].copy(), masks)


def test_an_empty_mask_and_one_of_all_pixels_are_hits_there() -> None:
    """Its NaN is stored among booleans."""
    maps, masks = np.stack([np.eye(4), np.eye(4)]), np.zeros((2, 1, 4, 4), bool)
    masks[1] = True
    assert given(quantus.PointingGame(**RAW), maps, masks) == [True, True]
    assert [pointing_game(*pair) for pair in zip(maps, masks[:, 0])] == [None, None]
    assert given(quantus.RelevanceRankAccuracy(**RAW), maps[:1], masks[1:]) == [1.0]
    assert np.isnan(relevance_rank(maps[1], masks[1, 0]))


def test_any_of_equal_maxima_hits_there() -> None:
    masks = np.zeros((1, 1, 4, 4), bool)
    masks[0, 0, 3, 3] = True
    assert given(quantus.PointingGame(**RAW), np.eye(4)[None], masks) == [True]
    assert pointing_game(np.eye(4), masks[0, 0], tolerance=0) is False


def test_a_map_of_zeros_is_not_sparse_there() -> None:
    maps = np.stack([np.eye(4), np.zeros((4, 4))])
    assert given(quantus.Sparseness(**RAW), maps)[1] == pytest.approx(0, abs=1e-9)
    assert np.isnan(gini(maps[1])) and np.isnan(entropy(maps[1]))


def test_mass_has_both_signs_there(case) -> None:
    *_, masks, _, maps = case
    found = scores(quantus.RelevanceMassAccuracy(**RAW), case, s_batch=masks)
    expected = [m[mask[0]].sum() / m.sum() for m, mask in zip(maps, masks)]
    assert found == pytest.approx(expected, rel=1e-3)
    assert not np.allclose(found, [relevance_mass(m, k[0]) for m, k in zip(maps, masks)], 0.01)
