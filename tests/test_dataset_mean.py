"""The mean of a dataset's inputs, and an evaluation that puts it in the place of regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relprop.datasets import open_dataset
from relprop.evaluation import mean_input, perturbation_of
from relprop.evaluation.settings import Settings
from synthetic_run import Elements, synthetic


def test_items_that_cannot_be_used_are_left_out() -> None:
    images = [Elements(20)[index][0] for index in range(20) if index != 7]
    images = [*images, np.full(images[0].shape, np.nan, np.float32)]
    expected = np.mean([image.astype(np.float64) for image in images[:-1]], axis=0)
    found = mean_input(open_dataset(images), None)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found, mean_input(open_dataset(images), None, workers=5))


def test_nothing_to_take_a_mean_of() -> None:
    with pytest.raises(ValueError, match="dataset must hold at least one item"):
        mean_input(open_dataset([]), None)
    with pytest.raises(ValueError, match=r"one shape, not \(2, 8, 8\) and \(2, 4, 8\) \(7\)"):
        mean_input(synthetic(8), None)


def test_another_image_of_the_same_name_is_another_perturbation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = []
    for value in (0.0, 1.0):
        np.save("mean.npy", np.full((2, 8, 8), value, np.float32))
        word = "dataset_mean:mean.npy"
        assert perturbation_of(word).word == word
        told.append(Settings.of(perturbations=[word]).fingerprint()["perturbations"][word])
    assert told[0] != told[1]
    assert all(one.startswith("dataset_mean:mean.npy ") for one in told)
