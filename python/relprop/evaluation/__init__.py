"""Judge explanations: localisation, sanity, sparseness, stability.

>>> hits = [pointing_game(map, mask) for map, mask in zip(maps_of(result.relevance), masks)]
>>> mean_class_accuracy(hits, classes)
"""

from __future__ import annotations

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
from relprop.evaluation.quantus import explain_func
from relprop.evaluation.randomisation import (
    Randomisation,
    cascading_randomisation,
    learned_layers,
    randomised,
)
from relprop.evaluation.similarity import SIMILARITIES, spearman, spearman_absolute, ssim
from relprop.evaluation.sparseness import entropy, gini
from relprop.evaluation.stability import Stability, noise_stability

__all__ = [
    "SIMILARITIES",
    "Randomisation",
    "Stability",
    "box_mask",
    "cascading_randomisation",
    "class_accuracies",
    "entropy",
    "explain_func",
    "gini",
    "learned_layers",
    "maps_of",
    "mean_class_accuracy",
    "noise_stability",
    "pointing_game",
    "randomised",
    "relevance_mass",
    "relevance_rank",
    "spearman",
    "spearman_absolute",
    "ssim",
    "top_k_intersection",
]
