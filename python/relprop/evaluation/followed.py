"""The score of one class alone, where the network computes it with much less work than all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop.explain import Explainer
from relprop.model import Model
from relprop.one_class import for_class, share_of_classes

Network: TypeAlias = Callable[[NDArray[np.float32]], Any]
"""Images (samples, C, H, W) to their scores of one class, (samples, 1)."""

LEAST = 0.05
"""The part of the network's multiply-adds that must be spared; less is not worth a Plan."""

KEPT = 16
"""Networks that are kept for images of the same class; they share all weights but the last."""


def followed_in(explainer: Explainer) -> Followed | None:
    """Return the networks for single classes; None where they would spare little."""
    spares = share_of_classes(explainer.graph) >= LEAST
    return Followed(explainer) if spares else None


class Followed:
    """For each class the network that computes its score.

    A score may differ in its last bits from the one among all of them, since sums of one channel
    are taken in another order.
    """

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._networks: OrderedDict[int, Network] = OrderedDict()
        self.classes = explainer.graph[explainer.graph.output].shape[0]

    def __call__(self, index: int) -> Network:
        """Return the network of a class, the same one for as long as it is kept."""
        if index not in self._networks:
            part = for_class(self._explainer.graph, index)
            assert part is not None  # share_of_classes says so
            self._networks[index] = Explainer(
                Model(part),
                "gradient",  # of which nothing is used but the forward pass
                device=self._explainer.device,
                precision=self._explainer.precision,
            ).forward
            if len(self._networks) > KEPT:
                self._networks.popitem(last=False)
        self._networks.move_to_end(index)
        return self._networks[index]
