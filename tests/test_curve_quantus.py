"""Curves agree with Quantus where both define the same; docs/evaluation.md lists what differs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import relprop
from peers import peer
from relprop import Explainer
from relprop.evaluation.curve import Curve, perturbation_curve
from relprop.evaluation.ordering import region_relevance
from relprop.evaluation.perturbations import Constant, Uniform
from relprop.evaluation.segments import Regions, grid

N, SIDE = 3, 12
BASELINE = 0.25


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Quantus warns of parameters that matter, and of perturbations that change nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def module_of(channels: int) -> nn.Module:
    torch.manual_seed(channels)
    layers = [nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6 * SIDE * SIDE // 4, 4)).eval()


def drawn(channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images and maps; no two regions are equally relevant, and Quantus' sort is not stable."""
    rng = np.random.default_rng(channels)
    images = rng.standard_normal((N, channels, SIDE, SIDE), np.float32)
    maps = rng.standard_normal((N, 1, SIDE, SIDE), np.float32)
    for of in maps[:, 0]:
        sums = [region_relevance(of, Regions(grid(SIDE, SIDE, side))) for side in (1, 3, 5)]
        assert min(np.diff(np.sort(each)).min() for each in sums) > 1e-6
    return images, maps


def ours(images: Any, maps: Any, module: nn.Module, **options: Any) -> Curve:
    explainer = Explainer(relprop.load(module, images.shape[1:]), "epsilon")
    options = {"perturbation": Constant(BASELINE), "region": 3, "steps": 16, **options}
    return perturbation_curve(explainer, images, maps, target=[0, 2, 3], **options)


def quantus_drops(images: Any, maps: Any, module: nn.Module, softmax: bool, **options: Any) -> Any:
    """What RegionPerturbation returns: y - y_k for k = 1 ... regions_evaluation."""
    options = {"patch_size": 3, "regions_evaluation": 16, "perturb_baseline": BASELINE, **options}
    metric = peer("quantus").RegionPerturbation(disable_warnings=True, **options)
    found = metric(
        model=module, x_batch=images, y_batch=np.array([0, 2, 3]), a_batch=maps, softmax=softmax
    )
    return np.array(found)


@pytest.mark.parametrize("order", ["morf", "lerf"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_region_perturbation_is_the_same(order: Any, softmax: bool, channels: int) -> None:
    """Constant baseline, sides that divide: our drops without the first, which is 0."""
    module, (images, maps) = module_of(channels), drawn(channels)
    score: Any = "probability" if softmax else "logit"
    curve = ours(images, maps, module, order=order, score=score)
    expected = quantus_drops(images, maps, module, softmax, order=order)
    drops = curve.scores[:, 0, :1] - curve.scores[:, 0]
    assert (drops[:, 0] == 0).all()
    np.testing.assert_allclose(drops[:, 1:], expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("steps", [5, 16, 40])
def test_it_has_no_more_steps_than_regions(steps: int) -> None:
    module, (images, maps) = module_of(1), drawn(1)
    found = quantus_drops(images, maps, module, False, regions_evaluation=steps)
    curve = ours(images, maps, module, steps=steps)
    assert found.shape == (N, min(steps, 16)) and curve.scores.shape == (N, 1, steps + 1)
    drops = curve.scores[:, 0, :1] - curve.scores[:, 0, 1:]
    np.testing.assert_allclose(drops[:, :16], found, rtol=1e-4, atol=2e-6)


def test_its_borders_are_on_both_sides() -> None:
    """A side of 12 in patches of 5: it pads to 15, one before and two after; ours begin at 0."""
    module, (images, maps) = module_of(1), drawn(1)
    found = quantus_drops(images, maps, module, False, patch_size=5, regions_evaluation=9)
    labels = (np.arange(12) + 1) // 5
    cut = labels[:, None] * 3 + labels
    same = ours(images, maps, module, labels=cut, steps=9)
    drops = same.scores[:, 0, :1] - same.scores[:, 0, 1:]
    np.testing.assert_allclose(drops, found, rtol=1e-4, atol=2e-6)
    other = ours(images, maps, module, region=5, steps=9)
    assert not np.allclose(other.scores[:, 0, :1] - other.scores[:, 0, 1:], found, atol=1e-3)


def test_its_uniform_noise_is_one_value_for_a_whole_region_of_all_channels() -> None:
    """Quantus cannot express the paper's own perturbation; ours draws each pixel and channel."""
    seen = []

    class Watching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.numpy().copy())
            return x.flatten(1)[:, :4]

    images, maps = drawn(3)
    quantus_drops(
        images, maps, Watching().eval(), False, perturb_baseline="uniform", regions_evaluation=1
    )
    changed = (seen[-1] != images).all(axis=1)
    assert changed.sum(axis=(1, 2)).tolist() == [9] * N
    for after, where in zip(seen[-1], changed):
        assert len(np.unique(after[:, where])) == 1
    seen.clear()

    def predict(x: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(x.copy())
        return x.reshape(len(x), -1)[:, :4]

    perturbation_curve(
        predict, images[:1], maps[:1], perturbation=Uniform(0, 1), region=3, steps=1, repeats=1
    )
    changed = (seen[0][1] != images[0]).all(axis=0)
    assert len(np.unique(seen[0][1][:, changed])) == 27


def test_pixel_flipping_is_the_same_on_one_channel() -> None:
    """It returns y_k for k = 1 ... pixels, without y itself, and flips channels one by one."""
    module, (images, maps) = module_of(1), drawn(1)
    metric = peer("quantus").PixelFlipping(
        features_in_step=1, perturb_baseline=BASELINE, disable_warnings=True
    )
    expected = metric(
        model=module, x_batch=images, y_batch=np.array([0, 2, 3]), a_batch=maps, softmax=False
    )
    curve = ours(images, maps, module, region=1, steps=SIDE * SIDE)
    np.testing.assert_allclose(curve.scores[:, 0, 1:], expected, rtol=1e-4, atol=2e-6)


def test_its_black_and_white_are_the_images_extremes() -> None:
    module, (images, maps) = module_of(3), drawn(3)
    for name, extreme in (("black", np.min), ("white", np.max)):
        found = quantus_drops(
            images, maps, module, False, perturb_baseline=name, regions_evaluation=1
        )
        for i in range(N):
            one = slice(i, i + 1)
            curve = perturbation_curve(
                lambda x: module(torch.from_numpy(x)).detach(),
                images[one],
                maps[one],
                perturbation=Constant(float(extreme(images[i]))),
                region=3,
                steps=1,
                target=[0, 2, 3][i],
            )
            drop = curve.scores[0, 0, 0] - curve.scores[0, 0, 1]
            np.testing.assert_allclose(drop, found[i, 0], rtol=1e-4, atol=2e-6)
