"""Modules that change tensors in place are read as torch runs them, whoever sees the change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reference import forward
from relprop.errors import UnsupportedOperatorError
from relprop.frontends.aten_in_place import without_changes, without_dropout
from relprop.frontends.torch import convert

SHAPE = (2, 6)


class Function(nn.Module):
    """A function of a batch and of a linear layer's result for it, a tensor of its own."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weight", torch.randn(6, 6, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, F.linear(x, self.weight))


def assert_read(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The Graph of a function gives what torch gives."""
    module = Function(function).eval()
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    graph = convert(module, x[:1])
    with torch.no_grad():
        expected = module(x.clone()).numpy()
    result = forward(graph, x.numpy())[graph.output]
    assert abs(result - expected).max() <= 1e-5 * max(1.0, abs(expected).max())


def rewritten(function: Callable[[Tensor, Tensor], Tensor]) -> tuple[bool, list[str]]:
    """Whether a trace can do without its changes, and its operators then."""
    with torch.no_grad():
        program = torch.export.export(Function(function).eval(), (torch.zeros(2, *SHAPE),))
    without_dropout(program.graph_module)
    fits = without_changes(program.graph)
    return fits, [str(n.target) for n in program.graph.nodes if n.op == "call_function"]


def through(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Change what a function returns in place, and read what it was given."""

    def changed(x: Tensor, y: Tensor) -> Tensor:
        result = function(y).relu_()
        return result.reshape(y.shape) + y

    return changed


ALONE = {
    "relu": lambda x, y: y.relu_() * 2,
    "several": lambda x, y: y.relu_().mul_(2).add_(x).clamp_(-1, 1),
    "read again": lambda x, y: y.relu_() + y,
    "read again alone": lambda x, y: (y.relu_(), y)[1],
    "sum": lambda x, y: y.add_(x) + x,
    "itself": lambda x, y: y.add_(y),
    "a view that nothing else reads": lambda x, y: y.view(-1, 12).relu_(),
    "before, but not after": lambda x, y: (y + 1) * y.relu_(),
    "a view that is read before": lambda x, y: (y.view(-1, 12) + 1) * y.relu_().view(-1, 12),
    "what is contiguous": through(lambda y: y.contiguous()),
    "what has the type": through(lambda y: y.to(torch.float32)),
    "what has another's type": through(lambda y: y.type_as(y)),
    "dropout that is off": lambda x, y: F.dropout(y, 0.5, False).relu_(),
    "dropout in place that is off": lambda x, y: F.dropout(y.relu(), 0.5, False, True) + y,
    "activations": lambda x, y: F.silu(F.relu6(y, inplace=True), inplace=True),
    "what a mask hides": lambda x, y: y.masked_fill_(torch.eye(2, 6) > 0, 3.0),
    "a constant": lambda x, y: y * torch.ones(6).mul_(0.5).sub_(1),
}

SEEN = {
    "a view": through(lambda y: y.view(-1, 12)),
    "a shape": through(lambda y: y.reshape(-1, 3, 4)),
    "axes put together": through(lambda y: y.flatten(1)),
    "dropout that is off": through(lambda y: F.dropout(y, 0.5, False)),
    "before dropout that is off": lambda x, y: (F.dropout(y, 0.5, False), y.relu_())[0] + x,
    "a part": lambda x, y: (y[:, 0].relu_(), y)[1],
    "an entry of a list": lambda x, y: (y.split(1, 1)[1].relu_(), y)[1],
    "an assignment": lambda x, y: (y[:, :, 2:4].copy_(x[:, :, :2]), y)[1],
    "an assignment to an entry": lambda x, y: (y[:, :, 2].copy_(x[:, :, 1]), y)[1],
    "an assigned number": lambda x, y: (y[:, 1].fill_(0.25), y)[1],
    "a view made before": lambda x, y: (y.view(-1, 12), y.relu_())[0],
    "two views": lambda x, y: (y[:, 0], y[:, 1:].add_(1), y[:, :1].mul_(3))[0],
    "the input": lambda x, y: x.relu_() + y,
}


def product(x: Tensor, y: Tensor) -> Tensor:
    """A new tensor, as that of several factors always is, changed in a part."""
    z = torch.einsum("nij,njk->nik", y, y.transpose(1, 2))
    z[:, :, 1:].add_(x[:, :, :1])
    return z


SEEN["a part of a product"] = product

FALSE_COPIES = {
    "a product that is a view": through(lambda y: torch.einsum("nij->nji", y)),
    "what a view was made of": lambda x, y: (torch.einsum("nij->nji", y), y.relu_())[0],
    "an output": lambda x, y: (F.dropout(y, 0.5, False), y.relu_())[0],
}


@pytest.mark.parametrize("name", ALONE)
def test_a_change_that_nothing_sees_is_a_result(name: str) -> None:
    fits, operators = rewritten(ALONE[name])
    assert fits
    assert not any(
        operator.partition(".")[2].partition(".")[0][-1] == "_" for operator in operators
    )
    assert_read(ALONE[name])


@pytest.mark.parametrize("name", SEEN)
def test_a_change_that_is_seen_is_left_to_torch(name: str) -> None:
    fits, _ = rewritten(SEEN[name])
    assert not fits
    assert_read(SEEN[name])


@pytest.mark.parametrize("name", FALSE_COPIES)
def test_a_change_of_what_torch_would_copy_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match="may return as it is, and"):
        assert_read(FALSE_COPIES[name])


def test_a_change_that_keeps_the_type_is_left_to_torch() -> None:
    """An operator that returns a new tensor widens it, one in place does not."""
    third = torch.full((6,), 1 / 3)
    assert rewritten(lambda x, y: y * torch.ones(6).mul_(third.clone()))[0]

    def function(x: Tensor, y: Tensor) -> Tensor:
        return y * torch.ones(6, dtype=torch.float16).mul_(third.clone())

    assert not rewritten(function)[0]
    module, x = Function(function).eval(), torch.ones(1, *SHAPE)
    graph = convert(module, x)
    with torch.no_grad():
        expected = F.linear(x, module.weight) * third.half()
    assert abs(forward(graph, x.numpy())[graph.output] - expected.numpy()).max() <= 1e-6


def test_a_change_of_a_buffer_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.seen.add_(1)

    with pytest.raises(ValueError, match="changes its buffers when it runs: seen"):
        convert(Counting().eval(), torch.zeros(1, *SHAPE))


def test_a_change_in_a_part_without_gradients_is_left_to_torch() -> None:
    """torch.export makes a graph of its own of such a part."""

    def function(x: Tensor, y: Tensor) -> Tensor:
        with torch.set_grad_enabled(True):
            z = y.view(-1, 12).relu_()
        return z.reshape(y.shape) + y

    assert not rewritten(function)[0]
    assert_read(function)


STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": lambda a, b: a.relu(),
    "relu_": lambda a, b: a.relu_(),
    "add": lambda a, b: a + b.reshape(a.shape),
    "add_": lambda a, b: a.add_(b.reshape(a.shape)),
    "sub_": lambda a, b: a.sub_(b.reshape(a.shape)),
    "mul_": lambda a, b: a.mul_(0.5),
    "tanh_": lambda a, b: a.tanh_(),
    "view": lambda a, b: a.view(-1, 3, 4),
    "reshape": lambda a, b: a.reshape(-1, 12),
    "flatten": lambda a, b: a.flatten(1),
    "dropout": lambda a, b: F.dropout(a, 0.5, False),
    "contiguous": lambda a, b: a.contiguous(),
    "transpose": lambda a, b: a.reshape(-1, 3, 4).transpose(1, 2),
    "clone": lambda a, b: a.clone(),
    "copy_": lambda a, b: a.copy_(b.reshape(a.shape)),
}

step = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 99), st.integers(0, 99))


def program(steps: list[tuple[str, int, int]]) -> Callable[[Tensor, Tensor], Tensor]:
    def run(x: Tensor, y: Tensor) -> Tensor:
        made = [x + 0.5, y]
        for name, first, second in steps:
            a, b = made[first % len(made)], made[second % len(made)]
            if name == "view" and not a.is_contiguous():
                name = "reshape"
            made.append(STEPS[name](a, b))
        return torch.stack([one.reshape(-1, 12) for one in made], 1)  # what each is in the end

    return run


@settings(max_examples=60, deadline=None)
@given(st.lists(step, min_size=1, max_size=7))
def test_any_program_is_read_as_torch_runs_it(steps: list[tuple[str, int, int]]) -> None:
    assert_read(program(steps))
