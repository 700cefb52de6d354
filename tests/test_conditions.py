"""Masks that a model is given beside words: padding neither counts nor takes relevance."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from agreement import assert_every_node_agrees
from onnx_models import build, exported, write
from padded_texts import FEATURES, LENGTH, WORDS, assert_same_through_onnx, load, texts
from relprop import Explainer, UnsupportedOperatorError
from relprop.rules import HalfAndHalf, Taylor

Masking = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend(x: Tensor, weights: Tensor) -> Tensor:
    return weights.softmax(-1) @ x


def scores(x: Tensor) -> Tensor:
    return x @ x.transpose(1, 2) / math.sqrt(x.shape[-1])


def lowest(x: Tensor) -> float:
    return torch.finfo(x.dtype).min


def by_sdpa(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    seen = mask.bool()[:, None, None, :].expand(-1, -1, LENGTH, -1)
    return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], seen)[:, 0]


def by_a_sum(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    return attend(x, scores(x) + (1.0 - mask[:, None, :].to(x.dtype)) * lowest(x))


def by_an_added_mask(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    hidden = (1.0 - mask[:, None, None, :].expand(-1, -1, LENGTH, -1).to(x.dtype)) * -1e9
    return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], hidden)[:, 0]


def by_a_fill(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    return attend(x, scores(x).masked_fill(mask[:, None, :] == 0, -torch.inf))


def by_the_words(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    return attend(x, scores(x).masked_fill((ids != 0).logical_not()[:, None, :], lowest(x)))


def by_a_choice(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    seen = mask[:, None, :].bool() & torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    return attend(x, scores(x) + torch.where(seen, torch.zeros(()), lowest(x)))


def by_a_lookup(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    samples, places = torch.arange(ids.shape[0]), torch.arange(LENGTH)
    seen = mask.bool()[samples[:, None, None], places[None, None, :]]
    return attend(x, torch.where(seen, scores(x), lowest(x)))


def by_either(ids: Tensor, mask: Tensor, x: Tensor) -> Tensor:
    nothing = torch.zeros(LENGTH, dtype=torch.bool)
    seen = (mask.bool() | nothing)[:, None, :]
    return attend(x, scores(x).masked_fill(~seen, lowest(x)))


MASKINGS: list[Masking] = [
    by_sdpa,
    by_a_sum,
    by_an_added_mask,
    by_a_fill,
    by_the_words,
    by_a_choice,
    by_a_lookup,
    by_either,
]


def mean(mask: Tensor, x: Tensor) -> Tensor:
    """Of the words that count, as sentences are summed up."""
    wide = mask.unsqueeze(-1).expand(x.size()).float()
    return (x * wide).sum(1) / wide.sum(1).clamp(min=1e-9)


def by_two_choices(mask: Tensor, x: Tensor) -> Tensor:
    seen = mask[:, :, None].bool()
    return torch.where(seen, torch.where(~seen, x.cos(), x), 0.5 * x.relu()).mean(1)


class Sentences(nn.Module):
    def __init__(self, masking: Masking) -> None:
        super().__init__()
        self.masking = masking
        self.words = nn.Embedding(WORDS, FEATURES)
        self.classes = nn.Linear(FEATURES, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.classes(mean(mask, self.masking(ids, mask, self.words(ids))))


def loaded(masking: Masking) -> tuple[nn.Module, relprop.Model]:
    torch.manual_seed(0)
    module = Sentences(masking).eval()
    return module, load(module)


@pytest.mark.parametrize("masking", MASKINGS)
def test_padding_takes_nothing(masking: Masking) -> None:
    """Each text has the scores and the relevance that it has without its padding."""
    module, model = loaded(masking)
    x = texts()
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(value) for name, value in x.items()})
    for composite in ("epsilon", "alpha2_beta1"):
        result = Explainer(model, composite)(x, 1)
        np.testing.assert_allclose(result.scores, expected, rtol=1e-5, atol=1e-6)
        assert (result.relevance["mask"] == 0).all(), composite
        assert (result.relevance["ids"][x["mask"] == 0] == 0).all(), composite
        assert (result.relevance["ids"][x["mask"] == 1] != 0).all(), composite
        other = {
            **x,
            "ids": np.where(x["mask"] == 1, x["ids"], 0 if masking is by_the_words else 5),
        }
        again = Explainer(model, composite)(other, 1)
        np.testing.assert_array_equal(again.relevance["ids"], result.relevance["ids"])


@pytest.mark.parametrize("masking", MASKINGS)
def test_the_ledger_closes(masking: Masking) -> None:
    _, model = loaded(masking)
    for rules in ({}, {"Softmax": Taylor(), "MatMul": HalfAndHalf()}):
        result = Explainer(model, "epsilon", rules=rules)(texts(), "argmax")
        assert (result.ledger.closure_error <= 1e-6).all()


@pytest.mark.parametrize("masking", MASKINGS)
def test_every_node_agrees(masking: Masking) -> None:
    _, model = loaded(masking)
    assert_every_node_agrees(Explainer(model, "epsilon"), texts(), "argmax")


@pytest.mark.parametrize("masking", [by_sdpa, by_a_lookup])
def test_through_a_file(masking: Masking, tmp_path: Path) -> None:
    _, model = loaded(masking)
    model.save(tmp_path / "sentences.relprop")
    again = relprop.load(tmp_path / "sentences.relprop")
    found, expected = (Explainer(one, "epsilon")(texts(), 0) for one in (again, model))
    np.testing.assert_array_equal(found.relevance["ids"], expected.relevance["ids"])


@pytest.mark.parametrize("exporter", ["trace", "export"])
@pytest.mark.parametrize("masking", MASKINGS)
def test_through_onnx(masking: Masking, exporter: str, tmp_path: Path) -> None:
    module, model = loaded(masking)
    assert_same_through_onnx(module, model, exporter, tmp_path)


def test_what_is_no_mask_is_refused_when_it_comes() -> None:
    _, model = loaded(by_sdpa)
    x = texts()
    x["mask"][0, 0] = 2
    with pytest.raises(ValueError, match=r"mask.* must hold ids in \[0, 2\)"):
        Explainer(model, "epsilon")(x, 0)


class Encoder(nn.Module):
    """torch's own layers, whose mask says what is padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, 16, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.words = nn.Embedding(WORDS, FEATURES)
        self.classes = nn.Linear(FEATURES, 3)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        x = self.layers(self.words(ids), src_key_padding_mask=padding)
        return self.classes(x[:, 0])


def test_torchs_own_layers_with_a_mask_of_truths() -> None:
    torch.manual_seed(0)
    module, x = Encoder().eval(), texts()
    given = {"ids": torch.from_numpy(x["ids"]), "padding": torch.from_numpy(x["mask"] == 0)}
    model = relprop.load(module, given)
    result = Explainer(model, "epsilon")({"ids": x["ids"], "padding": x["mask"] == 0}, 1)
    with torch.no_grad():
        np.testing.assert_allclose(result.scores, module(**given), rtol=1e-5, atol=1e-6)
    assert (result.relevance["padding"] == 0).all()
    assert ((result.relevance["ids"] == 0) == given["padding"].numpy()).all()


@pytest.mark.parametrize("exporter", ["trace", "export"])
def test_a_mask_of_truths_through_onnx(exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = Padded().eval(), texts()
    given = {"ids": torch.from_numpy(x["ids"]), "padding": torch.from_numpy(x["mask"] == 0)}
    graph = exported(module, tuple(given.values()), exporter, tmp_path, tuple(given))
    found, expected = (
        Explainer(one, "epsilon")(given, 1) for one in (graph, relprop.load(module, given))
    )
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
    for name, relevance in expected.relevance.items():
        np.testing.assert_allclose(found.relevance[name], relevance, rtol=1e-4, atol=1e-5)
    assert (found.relevance["ids"][given["padding"]] == 0).all()


class Padded(nn.Module):
    """Attention and a mean under a mask that says what is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, FEATURES)
        self.classes = nn.Linear(FEATURES, 3)

    def forward(self, ids: Tensor, padding: Tensor) -> Tensor:
        x = self.words(ids)
        x = attend(x, scores(x).masked_fill(padding[:, None, :], -1e9))
        return self.classes(mean((~padding).int() * 1, x))


TRUTHS = {
    "y = Not(x)": "argument 0 is not of truths",
    "y = And(x, x)": "argument 0 is not of truths",
    "y = Where(x, x, x)": "argument 0 is not of truths",
    "y = Equal(x, x)": "it compares numbers that depend on a signal",
    "y = Less(x, c)": "it compares numbers that depend on a signal",
}


@pytest.mark.parametrize("line", TRUTHS)
def test_onnx_refuses(line: str, tmp_path: Path) -> None:
    path = write(build(line, c=np.float32(1)), tmp_path)
    with pytest.raises(UnsupportedOperatorError, match=TRUTHS[line]):
        relprop.load(path)


class Kinds(nn.Module):
    """Words of kinds that a buffer holds for each position, as RoBERTa's."""

    def __init__(self, kinds: list[int]) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, FEATURES)
        self.kinds = nn.Embedding(2, FEATURES)
        self.register_buffer("of_positions", torch.tensor([kinds]))

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        known = self.of_positions.expand(positions.shape[0], -1)
        kinds = self.kinds(torch.gather(known, 1, positions))
        return (self.words(ids) * (1 + self.words(positions)) + kinds).mean(1)


def test_kinds_of_words_that_are_all_alike() -> None:
    torch.manual_seed(0)
    module, x = Kinds([1] * 9).eval(), texts()["ids"]
    given = {"ids": torch.from_numpy(x), "positions": torch.from_numpy(x[:, ::-1].copy()) % 9}
    result = Explainer(relprop.load(module, given), "epsilon")(
        {name: value.numpy() for name, value in given.items()}, 0
    )
    with torch.no_grad():
        np.testing.assert_allclose(result.scores, module(**given), rtol=1e-6, atol=1e-6)


def test_kinds_of_words_that_differ() -> None:
    torch.manual_seed(0)
    module, x = Kinds([0, 1, 1, 0, 1, 0, 0, 0, 1]).eval(), torch.from_numpy(texts()["ids"])
    given = {"ids": x, "positions": x.flip(1) % 9}
    result = Explainer(relprop.load(module, given), "epsilon")(given, 0)
    with torch.no_grad():
        np.testing.assert_allclose(result.scores, module(**given), rtol=1e-6, atol=1e-6)
    assert (result.ledger.closure_error <= 1e-6).all()


class Refused(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.words = nn.Embedding(WORDS, FEATURES)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.words(ids).mean(1) * self.function(ids, mask)[:, :1]


REFUSED = {
    "no whole ones": lambda ids, mask: (0.5 * mask == 1).float(),
    "it looks up other samples": lambda ids, mask: mask.bool()[
        torch.arange(ids.shape[0]).flip(0)[:, None], torch.arange(6)[None]
    ].float(),
    "reads ids, with which only an Embedding or a Mask can compute": lambda ids, mask: F.pad(
        ids, (0, 1), value=1
    ).float(),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused(reason: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=reason):
        load(Refused(REFUSED[reason]).eval())
