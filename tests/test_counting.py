"""What is counted from masks and ids: positions, the last word, words that are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from agreement import assert_every_node_agrees
from padded_texts import FEATURES, LENGTH, WORDS, assert_same_through_onnx, load, texts
from relprop import Explainer, UnmatchedLayerError
from relprop.composites import First
from relprop.evaluation import learned_layers
from relprop.rules import Epsilon, Gamma, Zero


def attend(x: Tensor, mask: Tensor) -> Tensor:
    return (x @ x.transpose(1, 2)).masked_fill(mask[:, None, :] == 0, -1e9).softmax(-1) @ x


def by_a_running_count(ids: Tensor, mask: Tensor) -> Tensor:
    """RoBERTa's: padding has position 0, the words have 1, 2, 3 and so on."""
    seen = ids.ne(0).int()
    return (torch.cumsum(seen, dim=1).type_as(seen) * seen).long()


def by_the_mask(ids: Tensor, mask: Tensor) -> Tensor:
    """OPT's: counted from the mask."""
    return (torch.cumsum(mask, dim=1) * mask - 1).long() + 1


def by_comparisons(ids: Tensor, mask: Tensor) -> Tensor:
    """As many earlier words as there are, and one."""
    at = torch.arange(LENGTH)
    earlier = (at[None, :, None] >= at[None, None, :]) & mask.bool()[:, None, :]
    return earlier.sum(-1) * mask


def by_a_table(ids: Tensor, mask: Tensor) -> Tensor:
    """Looked up in a row of a buffer."""
    row = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7]]).expand(ids.shape[0], -1)
    return torch.gather(row, 1, torch.cumsum(mask, 1)) * (mask != 0)


POSITIONS = [by_a_running_count, by_the_mask, by_comparisons, by_a_table]


def by_the_largest_place(ids: Tensor, mask: Tensor) -> Tensor:
    """The last word of decoders that classify."""
    return (torch.arange(LENGTH) * (ids != 0).int()).argmax(-1)


def by_the_number_of_words(ids: Tensor, mask: Tensor) -> Tensor:
    return mask.sum(-1) - 1


LASTS = [by_the_largest_place, by_the_number_of_words]

Counting = Callable[[Tensor, Tensor], Tensor]


class Counted(nn.Module):
    """Words at positions that are counted, of which the last one decides."""

    def __init__(self, positions: Counting, last: Counting) -> None:
        super().__init__()
        self.positions, self.last = positions, last
        self.words = nn.Embedding(WORDS, FEATURES)
        self.places = nn.Embedding(LENGTH + 1, FEATURES)
        self.classes = nn.Linear(FEATURES, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids) + self.places(self.positions(ids, mask))
        x = self.classes(attend(x, mask))
        return x[torch.arange(ids.shape[0]), self.last(ids, mask)]


def counted(positions: Counting, last: Counting) -> tuple[nn.Module, relprop.Model]:
    torch.manual_seed(0)
    module = Counted(positions, last).eval()
    return module, load(module)


@pytest.mark.parametrize("last", LASTS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_what_is_counted_from_masks(positions: Counting, last: Counting) -> None:
    module, model = counted(positions, last)
    x = texts()
    x["ids"][2, 0], x["mask"][2, 0] = 0, 0  # a text without a word: its first place or its last
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(value) for name, value in x.items()})
    for composite in ("epsilon", "alpha2_beta1"):
        result = Explainer(model, composite)(x, 1)
        np.testing.assert_allclose(result.scores, expected, rtol=1e-5, atol=1e-6)
        assert (result.relevance["mask"] == 0).all(), composite
        assert (result.ledger.closure_error <= 1e-6).all()
        words = result.relevance["ids"][:2]
        assert ((words != 0) == (x["mask"][:2] == 1)).all(), composite


@pytest.mark.parametrize("last", LASTS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_every_node_that_is_counted_agrees(positions: Counting, last: Counting) -> None:
    _, model = counted(positions, last)
    assert_every_node_agrees(Explainer(model, "epsilon"), texts(), "argmax")


@pytest.mark.parametrize("exporter", ["trace", "export"])
@pytest.mark.parametrize("last", LASTS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_through_onnx(positions: Counting, last: Counting, exporter: str, tmp_path: Path) -> None:
    module, model = counted(positions, last)
    assert_same_through_onnx(module, model, exporter, tmp_path)


def test_counted_positions_are_constants() -> None:
    """The relevance is that under the same positions as a constant, in the ledger as well."""
    module, model = counted(by_the_mask, by_the_number_of_words)
    x = {name: value[:1] for name, value in texts().items()}
    fixed = Counted(lambda ids, mask: torch.arange(1, LENGTH + 1)[None], by_the_number_of_words)
    fixed.load_state_dict(module.state_dict())
    found, expected = (Explainer(one, "epsilon")(x, 0) for one in (model, load(fixed.eval())))
    np.testing.assert_allclose(found.relevance["ids"], expected.relevance["ids"], rtol=1e-5)
    assert (found.ledger.zero == 0).all()
    np.testing.assert_allclose(
        found.ledger.constants.sum(1), expected.ledger.constants.sum(1), rtol=1e-5
    )


def test_a_rule_for_what_takes_none_is_refused() -> None:
    _, model = counted(by_the_mask, by_the_number_of_words)
    name = next(node.name for node in model.graph if node.constant and node.type == "Dense")
    with pytest.raises(UnmatchedLayerError, match="from masks and constants alone"):
        Explainer(model, "epsilon", rules={name: Epsilon()})
    Explainer(model, "epsilon", rules={name: Zero(), "Dense": Epsilon()})


def test_layers_that_count_are_no_layers_with_weights() -> None:
    _, model = counted(by_the_mask, by_the_number_of_words)
    assert learned_layers(model.graph) == ("classes", "words")
    result = Explainer(model, "epsilon", rules={-1: Gamma(), First(): Epsilon()})
    assert result.rules["classes"] == Gamma()


class Chosen(nn.Module):
    """The word at a position that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        return self.layer(x)[torch.arange(x.shape[0])[:, None], at].flatten(1)


def test_positions_beyond_a_text_end_the_run() -> None:
    def behind(ids: Tensor, mask: Tensor) -> Tensor:
        return mask.sum(-1)

    _, model = counted(by_the_mask, behind)
    x = texts()
    with pytest.raises(ValueError, match="not finite for sample 0"):  # which has no place more
        Explainer(model, "epsilon")(x, 0)
    Explainer(model, "epsilon")({name: value[1:] for name, value in x.items()}, 0)


def test_a_position_that_is_given() -> None:
    torch.manual_seed(0)
    module, at = Chosen().eval(), torch.tensor([[0, 4], [3, 3], [2, 1]])
    given = (torch.randn(3, 5, 4), at)
    model = relprop.load(module, given)
    result = Explainer(model, "epsilon")(given, 2)
    with torch.no_grad():
        np.testing.assert_allclose(result.scores, module(*given), rtol=1e-5, atol=1e-6)
    seen = (result.relevance[0] != 0).any(-1)
    assert seen.nonzero().tolist() == [[0, 0], [1, 3], [2, 2]]
    with pytest.raises(ValueError, match=r"ids in \[0, 5\)"):
        Explainer(model, "epsilon")((given[0], at + 1), 2)


def test_numbers_of_masks_alone_are_no_output() -> None:
    with pytest.raises(ValueError, match="computed from masks alone"):
        relprop.load(Alone().eval(), torch.ones(2, LENGTH, dtype=torch.long))


class Alone(nn.Module):
    def forward(self, mask: Tensor) -> Tensor:
        return (1 - mask).float()
