"""Heatmaps, overlays and contact sheets, down to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from relprop.heatmaps import COLOR_MAPS, contact_sheet, heatmap, overlay, pixel_relevance

RAMP = np.arange(-100, 101)[None] / 100


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_blue_white_red() -> None:
    values = np.array([[-1.0, -0.5, 0.0, 0.5, 1.0, 0.25]])
    assert pixels(heatmap(values))[0].tolist() == [
        [0, 0, 128],
        [0, 0, 255],
        [255, 255, 255],
        [255, 0, 0],
        [128, 0, 0],
        [255, 128, 128],
    ]


@pytest.mark.parametrize("cmap", COLOR_MAPS)
def test_zero_is_neutral_and_opposite_signs_differ(cmap: str) -> None:
    colors = pixels(heatmap(RAMP, cmap=cmap))[0]
    assert colors[100].tolist() in ([255, 255, 255], [0, 0, 0])
    inner = np.abs(RAMP[0]) < 0.99  # black body is white at both ends
    distance = np.abs(colors - colors[::-1]).sum(axis=1)
    assert (distance[inner & (np.abs(RAMP[0]) > 0.05)] > 20).all()


@pytest.mark.parametrize("cmap", ["blue_white_red", "black_body"])
def test_colors_mirror_red_and_blue(cmap: str) -> None:
    colors = pixels(heatmap(RAMP, cmap=cmap))[0]
    np.testing.assert_allclose(colors, colors[::-1, ::-1], atol=1)  # rounding


# Linear RGB as seen without red (protan) and without green (deutan) receptors, after
# Vienot, Brettel & Mollon 1999.
PROTAN = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
DEUTAN = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])


@pytest.mark.parametrize("vision", [PROTAN, DEUTAN])
def test_blue_white_orange_is_safe_for_colour_blind_readers(vision: np.ndarray) -> None:
    colors = pixels(heatmap(RAMP, cmap="blue_white_orange"))[0]
    seen = 255 * np.clip((colors / 255) ** 2.2 @ vision.T, 0, 1) ** (1 / 2.2)
    strong = np.abs(RAMP[0]) >= 0.2
    assert (np.linalg.norm(seen - seen[::-1], axis=1)[strong] > 40).all()
    luminance = colors @ (0.2126, 0.7152, 0.0722)
    assert np.abs(luminance - luminance[::-1]).max() < 15  # neither sign looks stronger


def test_channels_are_summed() -> None:
    relevance = np.zeros((3, 1, 2), np.float32)
    relevance[:, 0, 0] = 1, 2, -1
    relevance[:, 0, 1] = -1, 0, 0
    assert pixel_relevance(relevance).tolist() == [[2, -1]]
    assert pixels(heatmap(relevance)).tolist() == [[[128, 0, 0], [0, 0, 255]]]


def test_bound_makes_samples_comparable_and_clips() -> None:
    values = np.array([[1.0, 2.0, 8.0]])
    assert pixels(heatmap(values, bound=4))[0].tolist() == [
        [255, 128, 128],
        [255, 0, 0],
        [128, 0, 0],
    ]


def test_all_zero_is_neutral() -> None:
    assert (pixels(heatmap(np.zeros((3, 2, 2)))) == 255).all()


def test_tiny_and_huge_relevance() -> None:
    for scale in (1e-38, 1e38):
        assert pixels(heatmap(np.array([[scale, -scale]], np.float32))).tolist() == [
            [[128, 0, 0], [0, 0, 128]]
        ]


def test_torch_tensors_with_gradients() -> None:
    torch = pytest.importorskip("torch")
    values = torch.ones(3, 2, 2, requires_grad=True)
    np.testing.assert_array_equal(pixels(heatmap(values)), pixels(heatmap(np.ones((2, 2)))))


def test_a_picture_can_be_saved(tmp_path) -> None:
    heatmap(RAMP).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (201, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        heatmap(np.array([[0.0, bad]]))


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (4,), (), (3, 0, 2)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="relevance must have shape"):
        heatmap(np.zeros(shape))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="cmap must be one of blue_white_red, black_body"):
        heatmap(RAMP, cmap="jet")
    for bound in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="bound must be positive"):
            heatmap(RAMP, bound=bound)


def test_overlay_leaves_the_photo_where_relevance_is_zero() -> None:
    photo = np.full((1, 3, 3), 100, np.uint8)
    values = np.array([[0.0, 1.0, -1.0]])
    assert pixels(overlay(values, photo))[0].tolist() == [
        [178, 178, 178],
        [89, 0, 0],
        [0, 0, 89],
    ]
    glow = pixels(overlay(values, Image.fromarray(photo), cmap="black_body"))[0].tolist()
    assert glow == [[50, 50, 50], [255, 255, 255], [255, 255, 255]]


@pytest.mark.parametrize("cmap", COLOR_MAPS)
@pytest.mark.parametrize("value", [0, 255])
def test_overlay_on_black_and_white_photos(cmap: str, value: int) -> None:
    photo = np.full((1, 201, 3), value, np.uint8)
    over, base = pixels(overlay(RAMP, photo, cmap=cmap)), pixels(heatmap(RAMP, cmap=cmap))
    white_at_zero = cmap != "black_body"
    if white_at_zero == (value == 255):
        np.testing.assert_allclose(over, base, atol=1)  # the photo is neutral
    else:
        expected = base * 0.5 if white_at_zero else 127.5 + base * 0.5
        np.testing.assert_allclose(over, expected, atol=1)


def test_overlay_checks_sizes() -> None:
    with pytest.raises(ValueError, match="the photo is 4 x 4 and the relevance 1 x 201"):
        overlay(RAMP, np.zeros((4, 4, 3), np.uint8))


def test_contact_sheet() -> None:
    red, blue = Image.new("RGB", (60, 40), "red"), Image.new("RGB", (60, 40), "blue")
    sheet = contact_sheet([[red, blue], [blue, red]], ["first", "second"], ["a", "b" * 50])
    assert sheet.size == (8 + 2 * 68, 20 + 2 * (20 + 40 + 8))
    colors = pixels(sheet)
    for y, row in ((40, ("red", "blue")), (108, ("blue", "red"))):
        for x, name in zip((8, 76), row, strict=True):
            area = colors[y : y + 40, x : x + 60]
            expected = [255, 0, 0] if name == "red" else [0, 0, 255]
            assert (area == expected).all()
    assert (colors[20:40, 8:60] < 128).any(), "the row's label is missing"
    assert (colors[0:20, 76:136] < 128).any(), "the column's label is missing"
    assert (colors[0:20, 137:] == 255).all(), "a long label must be cut"


def test_contact_sheet_checks_counts() -> None:
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="1 rows of pictures do not fit 2 labels"):
        contact_sheet([[picture]], ["a", "b"], ["c"])
    with pytest.raises(ValueError, match=r"every row needs 2 pictures, not \[1\]"):
        contact_sheet([[picture]], ["a"], ["c", "d"])
