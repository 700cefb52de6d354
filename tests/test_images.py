"""Reading image files: every kind of pixel, and every way in which a file can be unusable."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relprop import images

QUADRANTS = np.zeros((4, 6, 3), np.uint8)
QUADRANTS[:2, :3] = (255, 0, 0)
QUADRANTS[2:, 3:] = (0, 0, 255)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "gif", "webp"])
def test_lossless_formats(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(QUADRANTS), **options)
    image = images.read_image(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), QUADRANTS)


def test_jpeg_by_string_path_and_wrong_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "photo.png", Image.new("RGB", (32, 16), (200, 10, 30)), format="JPEG")
    image = images.read_image(str(path))
    assert image.size == (32, 16)
    assert np.abs(np.asarray(image).astype(int) - (200, 10, 30)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    path = save(tmp_path / f"a.{suffix}", Image.new("RGB", (3, 2), "white").convert(mode))
    image = images.read_image(path)
    assert (image.mode, image.size) == ("RGB", (3, 2))
    assert np.asarray(image).min() == 255


def test_16_bit_greyscale_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535, 32896]], np.uint16)
    image = images.read_image(save(tmp_path / "a.png", Image.fromarray(values)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 255, 128]


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    image = images.read_image(save(tmp_path / "a.png", Image.fromarray(pixels)))
    assert np.asarray(image).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    path = save(tmp_path / "a.png", Image.fromarray(QUADRANTS), exif=exif)
    np.testing.assert_array_equal(np.asarray(images.read_image(path)), np.rot90(QUADRANTS, -1))


def test_a_gif_of_one_frame_is_read_and_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "green", "blue")]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.gif: .*holds 3 frames"):
        images.read_image(path)
    assert images.read_image(save(tmp_path / "b.gif", frames[0])).size == (4, 4)


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png: there is no such file"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="not a regular file"):
        images.read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        images.read_image(tmp_path / "pipe")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read anything")
def test_unreadable(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(QUADRANTS))
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"a\.png"):
        images.read_image(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text", "not an image in one of the formats JPEG, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not an image in one of"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "not an image|cannot be read"),
    ],
)
def test_unusable_content(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.png: .*({text})"):
        images.read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp", "gif"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    whole = path.read_bytes()
    for part in (0.02, 0.3, 0.7):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ValueError, match=rf"a\.{suffix}: "):
            images.read_image(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_decompression_bombs_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(ValueError, match=r"bomb\.png: .*(pixels are more than|exceeds limit)"):
        images.read_image(path)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(ValueError, match="floating-point pixels"):
        images.read_image(path)


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(tmp_path / "a.png", Image.fromarray(QUADRANTS), exif=exif).read_bytes()
    image, orientation = images.decode_image(data)
    assert orientation == 6
    np.testing.assert_array_equal(np.asarray(image), np.rot90(QUADRANTS, -1))
    plain = save(tmp_path / "b.png", Image.fromarray(QUADRANTS)).read_bytes()
    assert images.decode_image(plain)[1] == 1
    with pytest.raises(ValueError, match="b: the file is empty"):
        images.decode_image(b"", "b")
    with pytest.raises(ValueError, match="b: cannot be read as an image"):
        images.decode_image(plain[:60], "b")


def test_an_unknown_orientation_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    data = save(tmp_path / "a.png", Image.fromarray(QUADRANTS), exif=exif).read_bytes()
    image, orientation = images.decode_image(data)
    assert orientation == 1 and image.size == (6, 4)


def test_images_of_numbers_keep_them(tmp_path: Path) -> None:
    numbers = np.array([[0, 7], [255, 7]], np.uint8)
    palette = Image.fromarray(numbers)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    for n, image in enumerate([Image.fromarray(numbers), palette]):
        data = save(tmp_path / f"{n}.png", image).read_bytes()
        np.testing.assert_array_equal(images.decode_indices(data), numbers)
