"""Settings of an evaluation: the paper's by default, checked before anything begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from relprop.evaluation import perturbation_of
from relprop.evaluation.colours import Colours
from relprop.evaluation.metrics import metric_of
from relprop.evaluation.perturbations import Blur
from relprop.evaluation.settings import RANDOM_ORDER, Row, Settings


def test_the_defaults_are_the_papers() -> None:
    for settings in (Settings(), Settings.of()):
        told = settings.fingerprint()
        assert told["perturbations"] == {"uniform": "uniform"}
        assert (told["regions"], told["steps"], told["repeats"]) == ("9", 100, 10)
        assert (told["orders"], told["score"], told["target"]) == (
            "morf, random",
            "logit",
            "argmax",
        )


def test_a_random_order_is_one_row_for_all_methods() -> None:
    settings = Settings.of(orders=["morf", "random"], perturbations=["uniform", "blur:3"])
    assert settings.rows(["a", "b"]) == (
        Row("uniform", "morf", "a"),
        Row("uniform", "morf", "b"),
        Row("uniform", "random", RANDOM_ORDER),
        Row("blur:3", "morf", "a"),
        Row("blur:3", "morf", "b"),
        Row("blur:3", "random", RANDOM_ORDER),
    )


def test_forward_passes_are_counted() -> None:
    settings = Settings.of(
        orders=["morf", "lerf", "random"], perturbations=["uniform", "blur:3"], steps=7, repeats=5
    )
    uniform, blur = 2 * 3 * 5 + 5, 2 * 3 + 5  # curves of three methods, and of a random order
    assert settings.passes(3) == 1 + 7 * (uniform + blur)
    assert settings.passes(3, regions=4) == 1 + 4 * (uniform + blur)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"resamples": 0}, "resamples must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"level": 1.0}, "level must lie between 0 and 1, not 1.0"),
        ({"orders": ["morf", "best"]}, "orders must be one of morf, lerf, random, not 'best'"),
        ({"orders": []}, "orders must be at least one, not none"),
        ({"perturbations": []}, "perturbations must be at least one, not none"),
        ({"perturbations": ["noise"]}, "perturbation must be uniform, .*, not 'noise'"),
        ({"perturbations": ["blur:0"]}, "not 'blur:0': sigma must be finite and positive"),
        ({"perturbations": ["blur", "blur"]}, "must differ, but 'blur' is there twice"),
        (
            {"perturbations": {"a:b": Blur(), "a_b": Blur()}},
            "a:b and a_b would have one name of a file",
        ),
        ({"regions": "half"}, "regions must be a side in pixels .*, not 'half'"),
        ({"by": "max"}, "by must be one of sum, mean, not 'max'"),
        ({"score": "odds"}, "score must be one of logit, probability, not 'odds'"),
        ({"target": "cat"}, "target must be one of argmax, label, not 'cat'"),
        ({"metrics": ["iou"]}, "metrics must be of pointing_game, .*, not 'iou'"),
        ({"metrics": ["top_k"]}, "metrics must be of .*, not 'top_k'"),
        ({"metrics": ["top_k:0"]}, "metrics must be of .*, not 'top_k:0'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.of(**options)


def test_perturbations_are_tried_out() -> None:
    settings = Settings.of(perturbations=["uniform"])
    with pytest.raises(ValueError, match="needs the bounds"):
        settings.try_out((3, 8, 8), None)
    settings.try_out((3, 8, 8), Colours((0.0,) * 3, (1.0,) * 3))
    assert settings.perturbations["uniform"] == perturbation_of("uniform")


@pytest.mark.parametrize("word", ["pointing_game", "pointing_game:0", "relevance_mass", "top_k:2"])
def test_metrics_that_need_a_mask(word: str) -> None:
    relevance, mask = np.arange(6.0).reshape(2, 3), np.zeros((2, 3), bool)
    mask[1, 2] = True
    metric = metric_of(word)
    assert np.isnan(metric(relevance, None))
    assert np.isnan(metric(relevance, np.zeros_like(mask)))
    assert metric(relevance, mask) == {"relevance_mass": 5 / 15, "top_k:2": 0.5}.get(word, 1.0)


def test_metrics_that_need_none() -> None:
    relevance = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert metric_of("gini")(relevance, None) == 0.75
    assert metric_of("entropy")(relevance, None) == 0.0
    assert np.isnan(metric_of("gini")(np.zeros((2, 2)), None))
