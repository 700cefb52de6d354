"""Evaluation: how good an explanation is.

>>> curve = perturbation_curve(explainer, images, explainer(images).relevance)
>>> estimate(aopc(curve))
"""

from __future__ import annotations

from relprop.evaluation.bootstrap import Difference, Estimate, Resampling, difference, estimate
from relprop.evaluation.curve import Curve, abpc, aopc, perturbation_curve
from relprop.evaluation.ordering import order_of, region_relevance
from relprop.evaluation.perturbations import (
    Blur,
    Colours,
    Constant,
    Custom,
    DatasetMean,
    InPainting,
    Perturbation,
    Uniform,
    perturbation_of,
)
from relprop.evaluation.perturbing import CurveRequest, CurveTask, Perturbing, TaskCurves
from relprop.evaluation.segments import Regions, grid, masks, superpixels
from relprop.evaluation.streams import Stream

__all__ = [
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
    "Regions",
    "Resampling",
    "Stream",
    "TaskCurves",
    "Uniform",
    "abpc",
    "aopc",
    "difference",
    "estimate",
    "grid",
    "masks",
    "order_of",
    "perturbation_curve",
    "perturbation_of",
    "region_relevance",
    "superpixels",
]
