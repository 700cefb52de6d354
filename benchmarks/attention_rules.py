"""Which rules find what a transformer looks at: perturbation curves of a small ViT on digits.

    python benchmarks/attention_rules.py

Trains vision transformers on scikit-learn's digits, takes pixels out of test images in the order
of each method's map, and prints the mean drop of the score (AOPC) with its 95 % interval over
images, and the difference to the presets' own choice, values alone.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

import relprop
from relprop import rules
from relprop.benchmark.networks import VisionTransformer
from relprop.evaluation import Constant, aopc, difference, estimate, perturbation_curve

ATTN_LRP = {"MatMul": rules.HalfAndHalf()}
METHODS = {
    "epsilon, values alone": ("epsilon", {}),
    "epsilon, AttnLRP": ("epsilon", ATTN_LRP),
    "gamma, values alone": ("epsilon", {"Dense": rules.Gamma(0.25), "Conv": rules.Gamma(0.25)}),
    "gamma, AttnLRP": (
        "epsilon",
        {"Dense": rules.Gamma(0.25), "Conv": rules.Gamma(0.25), **ATTN_LRP},
    ),
    "gradient_x_input": ("gradient_x_input", {}),
    "random": ("random", {}),
}
FIRST = next(iter(METHODS))


def data(seed: int) -> tuple[Tensor, Tensor, NDArray[np.float32]]:
    """Images and classes to train with, and images to explain."""
    digits = load_digits()
    images = (digits.images[:, None] / 8 - 1).astype(np.float32).repeat(3, 1)
    train, test, classes, _ = train_test_split(
        images, digits.target, test_size=0.25, random_state=seed
    )
    return torch.from_numpy(train), torch.from_numpy(classes), test


def trained(x: Tensor, classes: Tensor, seed: int, epochs: int) -> VisionTransformer:
    """A small ViT with patches of 2 x 2 pixels."""
    torch.manual_seed(seed)
    module = VisionTransformer(2, 48, 4, 4, size=8)
    with torch.no_grad():
        module.positions.normal_(0, 0.02)
    steps = epochs * (len(x) // 64)
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        at = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(module(x[at]), classes[at]).backward()
        optimizer.step()
        schedule.step()
    return module.eval()


def main() -> None:
    """Train, explain, take out, and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", type=int, default=3)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--images", type=int, default=200)
    given = options.parse_args()
    drops: dict[str, list[NDArray[np.float64]]] = {name: [] for name in METHODS}
    for seed in range(given.networks):
        x, classes, test = data(seed)
        model = relprop.load(trained(x, classes, seed, given.epochs), x[:1])
        test = test[: given.images]
        for name, (preset, overrides) in METHODS.items():
            explainer = relprop.Explainer(model, preset, rules=overrides)
            curve = perturbation_curve(
                explainer,
                test,
                explainer(test).relevance,
                region=1,
                steps=64,
                perturbation=Constant(-1.0),
                repeats=1,
            )
            drops[name].append(np.asarray(aopc(curve)))
    first = np.concatenate(drops[FIRST])
    print(f"{'rules':24} {'AOPC, 95 %':>20}  difference to {FIRST}")
    for name, found in drops.items():
        own = estimate(np.concatenate(found))
        apart = difference(np.concatenate(found), first)
        print(
            f"{name:24} {own.mean:6.2f} [{own.low:5.2f}, {own.high:5.2f}]"
            f"  {apart.mean:6.2f} [{apart.low:5.2f}, {apart.high:5.2f}]"
        )


if __name__ == "__main__":
    main()
