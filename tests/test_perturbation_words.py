"""The words by which the command line and results call perturbations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relprop.evaluation.perturbation_words import PERTURBATIONS, perturbation_of
from relprop.evaluation.perturbations import (
    Blur,
    Constant,
    DatasetMean,
    InPainting,
    Perturbation,
    Uniform,
)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("uniform", Uniform()),
        ("uniform:-1:1.5", Uniform(-1, 1.5)),
        ("uniform:0/0/-1:1/2/3", Uniform((0, 0, -1), (1, 2, 3))),
        ("constant", Constant()),
        ("constant:black", Constant("black")),
        ("constant:image_mean", Constant("image_mean")),
        ("constant:0.5", Constant(0.5)),
        ("constant:0.1/0.2/0.3", Constant((0.1, 0.2, 0.3))),
        ("blur", Blur()),
        ("blur:2.5", Blur(2.5)),
        ("inpainting", InPainting()),
        ("inpainting:ns", InPainting("ns")),
        ("inpainting:telea:5", InPainting("telea", 5)),
    ],
)
def test_words_name_perturbations(word: str, expected: Perturbation) -> None:
    found = perturbation_of(word)
    assert found == expected and hash(found) == hash(expected)
    assert perturbation_of(found.word) == expected


def test_every_name_is_read() -> None:
    known = {"uniform", "constant", "blur", "dataset_mean", "inpainting"}
    assert set(PERTURBATIONS) == known


def test_a_word_names_a_file(tmp_path: Path) -> None:
    mean = np.random.default_rng(1).standard_normal((3, 20, 24), np.float32)
    np.save(tmp_path / "mean.npy", mean)
    found = perturbation_of(f"dataset_mean:{tmp_path / 'mean.npy'}")
    assert isinstance(found, DatasetMean) and np.array_equal(found.image, mean)
    assert found.word == f"dataset_mean:{tmp_path / 'mean.npy'}"
    with pytest.raises(FileNotFoundError):
        perturbation_of(f"dataset_mean:{tmp_path / 'other.npy'}")


def test_a_file_that_holds_no_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    np.save(path, np.zeros((3, 4, 4), np.float32))
    whole = path.read_bytes()
    np.savez(tmp_path / "mean.npz", np.zeros((3, 4, 4)))
    archive = (tmp_path / "mean.npz").read_bytes()
    np.save(path, np.array([None]), allow_pickle=True)
    objects = path.read_bytes()
    for content in (b"", b"0.1 0.2", whole[:100], whole[:-1], archive, archive[:100], objects):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mean\.npy holds no array of numpy's \(\.npy\)$"):
            perturbation_of(f"dataset_mean:{path}")


@pytest.mark.parametrize(
    "word",
    ["", "noise", "uniform:1", "uniform:a:b", "uniform:1:2:3", "constant:grey", "constant:nan",
     "blur:0", "blur:-1", "blur:1:2", "dataset_mean", "inpainting:other", "inpainting:ns:0",
     "custom:mine"],
)  # fmt: skip
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="perturbation must be uniform") as caught:
        perturbation_of(word)
    assert repr(word) in str(caught.value)
