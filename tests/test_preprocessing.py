"""Preprocessing: geometry, channel order, scale, bounds, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from relprop.preprocessing import Preprocessing

IDENTITY = Preprocessing(size=(4, 6), mean=(0, 0, 0), std=(1, 1, 1))


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green grows downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return pixels


def test_an_image_of_the_right_size_is_untouched() -> None:
    pixels = ramp(4, 6)
    np.testing.assert_array_equal(IDENTITY.view(pixels), pixels)
    values = IDENTITY(pixels)
    assert (values.dtype, values.shape) == (np.float32, (3, 4, 6))
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, pixels.transpose(2, 0, 1))


def test_pil_images_and_arrays_give_the_same() -> None:
    pixels = ramp(4, 6)
    np.testing.assert_array_equal(IDENTITY(Image.fromarray(pixels)), IDENTITY(pixels))
    grey = np.full((4, 6), 7, np.uint8)
    np.testing.assert_array_equal(IDENTITY(grey), np.full((3, 4, 6), 7, np.float32))


@pytest.mark.parametrize(("height", "width"), [(8, 14), (14, 8), (8, 8)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_centre_is_cut_out(height: int, width: int, interpolation: str) -> None:
    cut = dataclasses.replace(IDENTITY, size=(4, 6), resize=8, interpolation=interpolation)
    top, left = (height - 4) // 2, (width - 6) // 2
    expected = ramp(height, width)[top : top + 4, left : left + 6]
    np.testing.assert_array_equal(cut.view(ramp(height, width)), expected)


def test_the_short_side_is_scaled_and_the_aspect_kept() -> None:
    photo = ramp(100, 200)
    view = dataclasses.replace(IDENTITY, size=(50, 50), resize=50).view(photo)
    assert abs(int(view[0, 0, 0]) - 51) <= 1
    assert abs(int(view[0, -1, 0]) - 148) <= 1
    assert abs(int(view[-1, 0, 1]) - 98) <= 1
    squeezed = dataclasses.replace(IDENTITY, size=(50, 50)).view(photo)
    assert squeezed[0, 0, 0] <= 3
    assert squeezed[0, -1, 0] >= 196


@given(st.integers(8, 40), st.integers(8, 40), st.integers(4, 12), st.integers(4, 12), st.data())
def test_a_drawn_square_lands_where_its_box_lands(
    height: int, width: int, rows: int, columns: int, data: st.DataObject
) -> None:
    resize = data.draw(st.none() | st.integers(max(rows, columns), 14))
    fit = dataclasses.replace(IDENTITY, size=(rows, columns), resize=resize)
    left, top = data.draw(st.integers(0, width - 4)), data.draw(st.integers(0, height - 4))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    place = fit.placement(height, width)
    (x0, y0), (x1, y1) = place(left, top), place(right, bottom)
    # Pillow weighs whole pixels of the photo, and a pixel of the input looks around itself
    reach_x, reach_y = (max(1, scale) + scale for scale in place.scale)
    x, y = np.arange(columns) + 0.5, np.arange(rows)[:, None] + 0.5
    inside = (np.minimum(x - x0, x1 - x) >= reach_x) & (np.minimum(y - y0, y1 - y) >= reach_y)
    outside = (np.maximum(x0 - x, x - x1) >= reach_x) | (np.maximum(y0 - y, y - y1) >= reach_y)
    shown = fit.view(mask.astype(np.uint8) * np.uint8(255))[..., 0]
    found = fit.mask(mask)
    assert (shown[inside] == 255).all() and (shown[outside] == 0).all()
    assert found[inside].all() and not found[outside].any()


def test_placement_is_that_of_the_crop() -> None:
    fit = dataclasses.replace(IDENTITY, size=(50, 50), resize=50)
    place = fit.placement(100, 200)
    assert (place.scale, place.shift) == ((0.5, 0.5), (-25, 0))
    assert place(50, 0) == (0, 0) and place(150, 100) == (50, 50)
    photo = np.zeros((100, 200), np.uint8)
    photo[20:60, 70:110] = 255
    (left, top), (right, bottom) = place(70, 20), place(110, 60)
    assert (left, top, right, bottom) == (10, 10, 30, 30)
    seen = fit.view(photo)[..., 0] >= 128
    mask = fit.mask(photo > 0)
    expected = np.zeros((50, 50), bool)
    expected[10:30, 10:30] = True
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(mask, expected)


def test_mean_and_std_follow_the_networks_channel_order() -> None:
    pixels = np.full((4, 6, 3), (10, 20, 30), np.uint8)
    rgb = dataclasses.replace(IDENTITY, mean=(1, 2, 3), std=(1, 2, 4))
    bgr = dataclasses.replace(rgb, channel_order="bgr")
    assert rgb(pixels)[:, 0, 0].tolist() == [9, 9, 6.75]
    assert bgr(pixels)[:, 0, 0].tolist() == [29, 9, 1.75]
    np.testing.assert_array_equal(bgr.view(pixels), pixels)  # pictures stay RGB


def test_grey_networks() -> None:
    grey = Preprocessing((4, 6), mean=(0,), std=(255,), channel_order="grey")
    assert grey(np.full((4, 6, 3), 255, np.uint8)).tolist() == np.ones((1, 4, 6)).tolist()
    assert grey.bounds() == ((0.0,), (1.0,))


def test_bounds_hold_to_the_last_bit() -> None:
    step = Preprocessing((4, 6), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    low, high = step.bounds()
    for value, bound in ((0, low), (255, high)):
        assert step(np.full((4, 6, 3), value, np.uint8))[:, 0, 0].tolist() == list(bound)
    assert np.allclose(low, (-2.1179, -2.0357, -1.8044), atol=1e-4)
    assert np.allclose(high, (2.2489, 2.4286, 2.64), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": (0, 4)}, "size must be a positive height and width"),
        ({"size": (4,)}, "size must be"),
        ({"resize": 5}, "resize .* must be at least 6, not 5"),
        ({"mean": (1, 2)}, "mean must be 3 finite numbers"),
        ({"mean": (1, 2, float("nan"))}, "mean must be 3 finite numbers"),
        ({"std": (1, 0, 1)}, "std must be positive"),
        ({"std": (1, 1e-300, 1)}, "mean and std must leave pixels finite in float32"),
        ({"mean": (1e300, 0, 0)}, "mean and std must leave pixels finite in float32"),
        ({"interpolation": "nearest"}, "interpolation must be one of bicubic, bilinear"),
        ({"channel_order": "hsv"}, "channel_order must be one of rgb, bgr, grey"),
        ({"channel_order": "grey"}, "mean must be 1 finite"),
    ],
)
def test_what_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(IDENTITY, **change)


@pytest.mark.parametrize("change", [{"size": 4}, {"mean": 0}, {"std": "abc"}])
def test_what_is_no_tuple_of_numbers_is_refused(change: dict[str, object]) -> None:
    (name,) = change
    with pytest.raises(TypeError, match=f"{name} must be a tuple of numbers, not"):
        dataclasses.replace(IDENTITY, **change)


def test_numbers_of_numpy_become_pythons() -> None:
    step = dataclasses.replace(IDENTITY, size=tuple(np.array(IDENTITY.size)), mean=np.zeros(3))
    assert all(type(number) in (int, float) for number in (*step.size, *step.mean))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 6, 3), np.float32), np.zeros((2, 4, 6, 3), np.uint8)]
)
def test_only_pixels_are_taken(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        IDENTITY(image)


def test_a_path_is_no_image() -> None:
    with pytest.raises(TypeError, match=r"not str; relprop\.read_image reads a file"):
        IDENTITY("photo.jpg")  # type: ignore[arg-type]


def test_modes_become_rgb_as_of_a_file() -> None:
    grey = Image.fromarray(np.full((4, 6), 1000, np.uint16))
    assert (IDENTITY.view(grey) == round(1000 / 257)).all()
    clear = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    assert (IDENTITY.view(clear) == 255).all()
    with pytest.raises(ValueError, match="no known range"):
        IDENTITY(Image.new("F", (6, 4)))
