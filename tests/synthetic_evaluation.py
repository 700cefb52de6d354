"""An evaluation over a synthetic dataset with a tiny network, in a process that can be killed.

python synthetic_evaluation.py FOLDER ITEMS SECONDS_PER_ITEM
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from relprop import Explainer
from relprop.evaluation.run import EvaluationResult, evaluate
from synthetic_run import network, synthetic

METHODS = ("epsilon_plus_flat", "gradient")


def explainers(seed: int = 0) -> dict[str, Explainer]:
    """Two methods for one network."""
    model = network(seed)
    return {name: Explainer(model, name) for name in METHODS}


def run(
    folder: Path, count: int, seconds: float = 0.0, bad: bool = True, **options: Any
) -> EvaluationResult:
    """Compare them on images of 8 x 8 pixels, cut into 16 regions."""
    options = {
        "orders": ("morf", "lerf", "random"),
        "perturbations": ("uniform:-2:2", "constant:0"),
        "regions": "2",
        "steps": 5,
        "repeats": 2,
        "metrics": ("gini", "relevance_mass"),
        "resamples": 200,
        "checkpoint_seconds": 0.05,
        **options,
    }
    return evaluate(explainers(), synthetic(count, seconds, bad), folder=folder, **options)


if __name__ == "__main__":
    os.close(sys.stdout.fileno())  # says that everything is imported
    where, items, pause = sys.argv[1:]
    run(Path(where), int(items), float(pause), command=["synthetic"])
