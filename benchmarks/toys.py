"""Sum of relevance over score on the toy networks, by relprop and its peers.

    python benchmarks/toys.py

Each tool is used as its documentation shows, with epsilon 1e-9, on the plain module. The networks
hold no biases, so every figure should be 1.000; an error is more honest than another number.
"""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import relprop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import toy_networks

EPSILON = 1e-9

Attribute = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a module, samples and targets to relevance and explained scores."""


def by_relprop(module: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    model = relprop.load(module, x[:1])
    result = relprop.Explainer(model, "epsilon", epsilon=EPSILON)(x, target=target.tolist())
    return result.relevance, chosen(result.scores, target)


def by_zennit(module: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    from zennit import canonizers, composites, rules, types

    composite = composites.LayerMapComposite(
        [
            (types.Activation, rules.Pass()),
            (types.AvgPool, rules.Norm()),
            (types.Linear, rules.Epsilon(epsilon=EPSILON)),
        ],
        canonizers=[canonizers.SequentialMergeBatchNorm()],
    )
    data = x.clone().requires_grad_()
    with composite.context(module) as hooked:
        scores = chosen(hooked(data), target)
        (relevance,) = torch.autograd.grad(scores, data, scores.detach())
    return relevance, scores


def by_captum(module: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    for part in module.modules():
        if isinstance(part, nn.Flatten):  # it asks for a rule there
            part.rule = EpsilonRule()
    relevance = LRP(module).attribute(x.clone().requires_grad_(), target=target)
    return relevance, chosen(module(x), target)


def by_autolrp(module: nn.Module, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    import autolrp

    relevance = []
    for sample, index in zip(x, target):
        data = autolrp.tensor(sample[None])
        module(data)[0, index].lrp(config=autolrp.LRPConfig(eps=EPSILON))
        relevance.append(data.relevance)
    return torch.cat(relevance), torch.ones(len(x))  # it starts from one, not from the score


TOOLS: dict[str, Attribute] = {
    "relprop": by_relprop,
    "zennit": by_zennit,
    "captum": by_captum,
    "autolrp": by_autolrp,
}


def chosen(scores: Tensor, target: Tensor) -> Tensor:
    return scores.gather(1, target[:, None])[:, 0]


def figure(attribute: Attribute, name: str) -> str:
    """Sum of relevance over score, of the worst of the samples, or the error."""
    module, x = toy_networks.toy(name)
    target = module(x).argmax(dim=1).detach()
    try:
        relevance, scores = attribute(copy.deepcopy(module), x, target)
    except Exception as error:  # whatever a peer raises is its result here
        return type(error).__name__
    sums = torch.as_tensor(relevance).detach().flatten(1).sum(dim=1)
    ratios = (sums / torch.as_tensor(scores).detach()).numpy()
    return f"{ratios[np.abs(ratios - 1).argmax()]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tool", choices=TOOLS, nargs="+", default=list(TOOLS))
    tools = parser.parse_args().tool
    warnings.simplefilter("ignore")
    print(f"| network | {' | '.join(tools)} |")
    print(f"|---|{'---:|' * len(tools)}")
    for name in toy_networks.TOY_NETWORKS:
        print(f"| {name} | {' | '.join(figure(TOOLS[tool], name) for tool in tools)} |", flush=True)


if __name__ == "__main__":
    main()
