"""Perturbations: what they put in a region's place, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from relprop.evaluation.colours import Colours
from relprop.evaluation.perturbations import (
    Blur,
    Constant,
    Custom,
    DatasetMean,
    InPainting,
    Perturbation,
    Uniform,
)
from relprop.evaluation.segments import Regions, grid
from relprop.evaluation.streams import Stream

COLOURS = Colours((-1.0, -2.0, -3.0), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0))
STREAM = Stream(0, ("image", 0))
REGIONS = Regions(grid(20, 24, 5))
ALL = range(20)


def image(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape or (3, 20, 24), np.float32)


def replaced(
    perturbation: Perturbation,
    x: NDArray[np.float32],
    order: Any = ALL,
    *,
    regions: Regions = REGIONS,
    colours: Colours | None = COLOURS,
    stream: Stream = STREAM,
) -> NDArray[np.float32]:
    """The image with regions replaced one after the other."""
    replacement = perturbation.prepare(x, colours, stream)
    current = x.copy()
    for region in order:
        pixels = regions.pixels(region)
        new = replacement(current, region, pixels)
        assert new.dtype == np.float32 and new.shape in ((3, len(pixels)), (3, 1))
        current.reshape(3, -1)[:, pixels] = new
    return current


# --- Uniform --------------------------------------------------------------------------------------


def test_uniform_noise_is_drawn_for_every_pixel_and_channel_between_the_bounds() -> None:
    x = np.zeros((3, 90, 90), np.float32)
    noise = replaced(Uniform(), x, range(100), regions=Regions(grid(90, 90, 9)))
    assert np.unique(noise).size > 0.99 * noise.size  # float32 draws, a few alike
    for plane, low, high in zip(noise, COLOURS.low, COLOURS.high):
        assert plane.min() >= low and plane.max() <= high
        shares = np.histogram(plane, 10, (low, high))[0] / plane.size
        assert np.abs(shares - 0.1).max() < 0.015  # 4.5 sigma
    assert np.abs(np.corrcoef(noise.reshape(3, -1)) - np.eye(3)).max() < 0.05


def test_uniform_noise_is_that_of_its_stream_whatever_the_order() -> None:
    drawn = STREAM.generator().random((3, 20, 24))
    expected = np.empty((3, 20, 24))
    for channel in range(3):
        low, high = COLOURS.low[channel], COLOURS.high[channel]
        expected[channel] = low + (high - low) * drawn[channel]
    for order in (ALL, reversed(ALL)):
        assert np.array_equal(replaced(Uniform(), image(), order), expected.astype(np.float32))


def test_uniform_bounds_can_be_given() -> None:
    noise = replaced(Uniform(2, (3, 4, 5)), image(), colours=None)
    for plane, high in zip(noise, (3, 4, 5)):
        assert 2 <= plane.min() < 2.1 and high - 0.1 < plane.max() <= high


# --- Constant -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mean", (0, 0, 0)),
        ("black", (-1, -2, -3)),
        ("white", (1, 2, 4)),
        (0.5, (0.5, 0.5, 0.5)),
        ((1, 2, 3), (1, 2, 3)),
    ],
)
def test_constants(value: Any, expected: tuple[float, ...]) -> None:
    x = image()
    found = replaced(Constant(value), x, [0, 3])
    for at in range(x[0].size):
        row, column = divmod(at, 24)
        inside = REGIONS.labels[row, column] in (0, 3)
        for channel in range(3):
            wanted = np.float32(expected[channel]) if inside else x[channel, row, column]
            assert found[channel, row, column] == wanted


def test_the_images_own_mean() -> None:
    x = image()
    means = [np.float32(sum(map(float, plane.flat)) / plane.size) for plane in x]
    np.testing.assert_allclose(replaced(Constant("image_mean"), x)[:, 0, 0], means, rtol=1e-6)


# --- Blur -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 10.0])
@pytest.mark.parametrize("shape", [(3, 20, 24), (3, 5, 24), (3, 1, 7)])
def test_blur_is_scipys(sigma: float, shape: tuple[int, ...]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    x = image(*shape)
    wide = x.astype(np.float64)
    expected = np.stack([ndimage.gaussian_filter(plane, sigma, mode="reflect") for plane in wide])
    regions = Regions(np.zeros(shape[1:], int))
    found = replaced(Blur(sigma), x, [0], regions=regions)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_blur_is_of_the_original_image_whatever_the_order() -> None:
    x = image()
    forward = replaced(Blur(2), x)
    assert np.array_equal(forward, replaced(Blur(2), x, reversed(ALL)))


# --- The mean of a dataset, in-painting, the user's own -------------------------------------------


def test_the_mean_of_a_dataset() -> None:
    mean = image(3, 20, 24) + 7
    perturbation = DatasetMean(mean)
    assert np.array_equal(replaced(perturbation, image()), mean)
    mean[:] = 0  # what was given may change
    assert perturbation.image.min() > 0


@pytest.mark.parametrize("method", ["telea", "ns"])
@pytest.mark.parametrize("radius", [1, 3, 5.5])
def test_in_painting_is_opencvs_of_the_whole_image(method: Any, radius: float) -> None:
    cv2 = pytest.importorskip("cv2")
    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[method]
    x = image(3, 60, 70)
    regions = Regions(grid(60, 70, 9))
    order = [20, 0, 21, len(regions) - 1, 28]
    current = x.copy()
    for region in order:
        mask = (regions.labels == region).astype(np.uint8)
        painted = [cv2.inpaint(plane, mask, radius, flag) for plane in current]
        for channel in range(3):
            current[channel][mask == 1] = painted[channel][mask == 1]
    perturbation = InPainting(method, radius)
    assert np.array_equal(replaced(perturbation, x, order, regions=regions, colours=None), current)
    narrow = Colours((-0.1,), (0.1,))
    clipped = replaced(perturbation, x, order[:1], regions=regions, colours=narrow)
    inside = regions.labels == order[0]
    assert np.abs(clipped[:, inside]).max() <= np.float32(0.1)


def test_in_painting_needs_a_pixel() -> None:
    pytest.importorskip("cv2")
    with pytest.raises(ValueError, match="covers them all"):
        replaced(InPainting(), image(), [0], regions=Regions(np.zeros((20, 24), int)))


def test_a_function_of_the_users() -> None:
    x = image()

    def negated(
        current: NDArray[np.float32], pixels: NDArray[np.intp], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        assert not current.flags.writeable
        return -current.reshape(3, -1)[:, pixels] + generator.random()

    perturbation = Custom(negated)
    expected = x.copy()
    for region in (3, 1):
        inside = REGIONS.labels == region
        drawn = STREAM.child(region).generator().random()
        expected[:, inside] = (-expected[:, inside] + drawn).astype(np.float32)
    np.testing.assert_array_equal(replaced(perturbation, x, [3, 1]), expected)
    np.testing.assert_array_equal(replaced(perturbation, x, [1, 3]), expected)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((3, 4)), r"must return pixels of shape \(3, 25\), not \(3, 4\)"),
        (np.full((3, 25), np.nan), "must return finite floats"),
        (np.zeros((3, 25), int), "must return finite floats"),
    ],
)
def test_what_a_function_returns_is_checked(returned: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replaced(Custom(lambda current, pixels, generator: returned), image(), [0])


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("perturbation", "colours", "message"),
    [
        (Uniform(), None, "uniform needs the bounds"),
        (Constant("black"), None, "constant:black needs the bounds"),
        (Constant(), Colours((0,), (1,)), "constant:mean needs the model's preprocessing"),
        (Uniform(), Colours((0, 0), (1, 1)), "must have 3 channels, not 2"),
        (Uniform(1, (2, 2, 0)), None, "low must be <= high"),
        (Constant((1, 2)), None, "must have 3 channels, not 2"),
        (DatasetMean(np.zeros((3, 2, 2))), None, r"shape of the images, \(3, 20, 24\)"),
    ],
)
def test_what_does_not_fit_is_refused(
    perturbation: Perturbation, colours: Colours | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        perturbation.prepare(image(), colours, STREAM)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Uniform(0), ValueError, "low and high go together"),
        (lambda: Uniform("a", "b"), TypeError, "low must be a number"),
        (lambda: Constant(float("nan")), ValueError, "value must be finite"),
        (lambda: Constant("grey"), ValueError, "not 'grey'"),
        (lambda: Blur(0), ValueError, "sigma must be finite and positive, not 0"),
        (lambda: DatasetMean(np.zeros((2, 2))), ValueError, r"not \(2, 2\)"),
        (lambda: DatasetMean(np.full((1, 1, 1), np.inf)), ValueError, "image must be finite"),
        (lambda: InPainting("other"), ValueError, "not 'other'"),
        (lambda: InPainting(radius=-1), ValueError, "radius must be finite and positive"),
        (lambda: Custom(3), TypeError, "function must be callable"),
    ],
)
def test_values_are_checked(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
