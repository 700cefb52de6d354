"""What docs/evaluation.md says of real networks, on photos that are few: the surest of it."""

from __future__ import annotations

import numpy as np
import pytest

import relprop
from real_data import real
from relprop import Explainer
from relprop.evaluation import aopc, difference, perturbation_curve

PHOTOS = 10


@pytest.fixture(scope="module")
def photos() -> tuple[relprop.Model, np.ndarray]:
    """SqueezeNet with its weights, and photos as it wants them."""
    prototxt, caffemodel, stored = real(
        "models/squeezenet_v1.1_deploy.prototxt",
        "models/squeezenet_v1.1.caffemodel",
        "models/reference_forward.npz",
    )
    with np.load(stored) as arrays:
        pixels = arrays["squeezenet_input_bgr"][:PHOTOS].astype(np.float32)
    images = np.ascontiguousarray((pixels - np.float32([104, 117, 123])).transpose(0, 3, 1, 2))
    return relprop.load((prototxt, caffemodel)), images


@pytest.mark.parametrize("method", ["alpha2_beta1", "epsilon_plus_flat"])
def test_lrp_is_above_a_random_order_under_blur(
    method: str, photos: tuple[relprop.Model, np.ndarray]
) -> None:
    model, images = photos
    explainer = Explainer(model, method)
    options = {"perturbation": "blur", "steps": 40, "repeats": 1}
    ordered = perturbation_curve(explainer, images, explainer(images).relevance, **options)
    by_chance = perturbation_curve(explainer, images, order="random", **options)
    found = difference(aopc(ordered), aopc(by_chance))
    assert found.low > 0
    assert found.p_value <= 0.05
