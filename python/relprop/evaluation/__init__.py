"""Evaluation: how good an explanation is, by perturbing, localisation, sanity and sparseness.

>>> curve = perturbation_curve(explainer, images, explainer(images).relevance)
>>> estimate(aopc(curve))
>>> hits = [pointing_game(map, mask) for map, mask in zip(maps_of(relevance), masks)]

A whole dataset: :func:`relprop.evaluation.run.evaluate`.
"""

from __future__ import annotations

from relprop.evaluation.bootstrap import Difference, Estimate, Resampling, difference, estimate
from relprop.evaluation.colours import Colours
from relprop.evaluation.curve import Curve, abpc, aopc, perturbation_curve
from relprop.evaluation.dataset_mean import mean_input
from relprop.evaluation.localisation import (
    box_mask,
    class_accuracies,
    mean_class_accuracy,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from relprop.evaluation.maps import maps_of
from relprop.evaluation.ordering import order_of, region_relevance
from relprop.evaluation.perturbation_words import perturbation_of
from relprop.evaluation.perturbations import (
    Blur,
    Constant,
    Custom,
    DatasetMean,
    InPainting,
    Perturbation,
    Uniform,
)
from relprop.evaluation.perturbing import CurveRequest, CurveTask, Perturbing, TaskCurves
from relprop.evaluation.quantus import explain_func
from relprop.evaluation.randomisation import (
    Randomisation,
    cascading_randomisation,
    learned_layers,
    randomised,
)
from relprop.evaluation.segments import Regions, grid, masks, superpixels
from relprop.evaluation.similarity import SIMILARITIES, spearman, spearman_absolute, ssim
from relprop.evaluation.sparseness import entropy, gini
from relprop.evaluation.stability import Stability, noise_stability
from relprop.evaluation.streams import Stream

__all__ = [
    "SIMILARITIES",
    "Blur",
    "Colours",
    "Constant",
    "Curve",
    "CurveRequest",
    "CurveTask",
    "Custom",
    "DatasetMean",
    "Difference",
    "Estimate",
    "InPainting",
    "Perturbation",
    "Perturbing",
    "Randomisation",
    "Regions",
    "Resampling",
    "Stability",
    "Stream",
    "TaskCurves",
    "Uniform",
    "abpc",
    "aopc",
    "box_mask",
    "cascading_randomisation",
    "class_accuracies",
    "difference",
    "entropy",
    "estimate",
    "explain_func",
    "gini",
    "grid",
    "learned_layers",
    "maps_of",
    "masks",
    "mean_class_accuracy",
    "mean_input",
    "noise_stability",
    "order_of",
    "perturbation_curve",
    "perturbation_of",
    "pointing_game",
    "randomised",
    "region_relevance",
    "relevance_mass",
    "relevance_rank",
    "spearman",
    "spearman_absolute",
    "ssim",
    "superpixels",
    "top_k_intersection",
]
