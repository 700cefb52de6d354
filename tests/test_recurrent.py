"""Recurrent layers, written out step by step: by torch and by ONNX, their values and relevance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import relprop
from onnx_models import build, exported, random, write
from reference import forward
from relprop import Explainer
from relprop.canonizers import canonize
from relprop.errors import UnsupportedOperatorError
from relprop.frontends import onnx as onnx_frontend
from relprop.frontends import recurrent as recurrence
from relprop.frontends.torch import convert
from relprop.graph import Concat, Dense, Graph, Mul, Node

LENGTH, FEATURES, WIDTH = 4, 5, 3
INPUT = (LENGTH, FEATURES)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert abs(found - expected).max() <= tolerance * abs(expected).max()


class Reader(nn.Module):
    """A function of recurrent layers and the input."""

    def __init__(self, layers: nn.Module, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers, self.function = layers, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layers, x)


def all_steps(layers: nn.RNNBase, x: Tensor) -> Tensor:
    if layers.batch_first:
        return layers(x)[0]
    return layers(x.transpose(0, 1))[0].transpose(0, 1)


def last_states(layers: nn.RNNBase, x: Tensor) -> Tensor:
    """Of all layers and directions, hidden states and cells."""
    state = layers(x)[1]
    parts = state if isinstance(state, tuple) else (state,)
    return torch.cat([part.transpose(0, 1).flatten(1) for part in parts], 1)


def from_constants(layers: nn.RNNBase, x: Tensor) -> Tensor:
    states = [torch.linspace(-1, 1, WIDTH) + i for i in range(layers.num_layers)]
    state = torch.stack(states)[:, None].expand(-1, x.shape[0], -1).to(x.dtype)
    return layers(x, (state, 2 * state) if isinstance(layers, nn.LSTM) else state)[0]


def from_data(layers: nn.RNNBase, x: Tensor) -> Tensor:
    """Begins with what the last step holds, as a decoder with its encoder's state."""
    state = x[:, -1, :WIDTH].tanh()[None]
    if isinstance(layers, nn.LSTM):  # the cell is constant
        return layers(x, (state, x.new_ones(1, x.shape[0], WIDTH)))[0]
    return layers(x, state)[0]


def by_cell(cell: nn.RNNCellBase, x: Tensor) -> Tensor:
    state = cell(x[:, 0])
    for t in range(1, LENGTH):
        state = cell(x[:, t], state)
    return state[0] if isinstance(state, tuple) else state


def of_rows(layers: nn.RNNBase, x: Tensor) -> Tensor:
    """Every sample is two sequences."""
    x = x.unflatten(1, (2, LENGTH // 2))
    return layers(x.flatten(0, 1))[0].unflatten(0, (-1, 2)).flatten(1, 2)


def of_columns(layers: nn.RNNBase, x: Tensor) -> Tensor:
    """Two sequences again, with time first and from a constant state."""
    x = x.unflatten(1, (2, LENGTH // 2)).permute(2, 0, 1, 3).flatten(1, 2)
    state = x.new_full((2, x.shape[1], WIDTH), 0.5)
    y, _ = layers(x, (state, state) if isinstance(layers, nn.LSTM) else state)
    return y.unflatten(1, (-1, 2)).transpose(0, 1).flatten(2)


def each_its_own(layers: nn.RNNBase, x: Tensor) -> Tensor:
    """The second of two sequences in every sample begins elsewhere."""
    return _in_two(layers, x, torch.tensor([0.0, 1.0]).repeat(x.shape[0]))


def half_its_own(layers: nn.RNNBase, x: Tensor) -> Tensor:
    """All sequences in the second half of the batch begin elsewhere."""
    return _in_two(layers, x, torch.tensor([0.0, 1.0]).repeat_interleave(x.shape[0]))


def _in_two(layers: nn.RNNBase, x: Tensor, begins: Tensor) -> Tensor:
    state = begins[None, :, None].expand(1, -1, WIDTH)
    return layers(x.unflatten(1, (2, -1)).flatten(0, 1), (state, state))[0].unflatten(0, (-1, 2))


Settings = dict[str, Any]
KINDS: dict[str, tuple[type[nn.RNNBase], Settings]] = {
    "lstm": (nn.LSTM, {}),
    "gru": (nn.GRU, {}),
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu"}),
}
FORMS: dict[str, tuple[Settings, Callable[[Any, Tensor], Tensor]]] = {
    "plain": ({}, all_steps),
    "without bias": ({"bias": False}, all_steps),
    "time first": ({"batch_first": False}, all_steps),
    "both ways in layers": ({"num_layers": 2, "bidirectional": True, "dropout": 0.5}, all_steps),
    "last states": ({"num_layers": 2, "bidirectional": True}, last_states),
    "from constants": ({"num_layers": 2}, from_constants),
    "from data": ({}, from_data),
    "sequences of sequences": ({}, of_rows),
    "and time first": ({"batch_first": False, "bidirectional": True}, of_columns),
}


def recurrent(kind: str, form: str) -> tuple[nn.Module, Tensor]:
    """A module in eval mode, and three samples for it."""
    torch.manual_seed(0)
    maker, own = KINDS[kind]
    settings, function = FORMS[form]
    layers = maker(FEATURES, WIDTH, **{"batch_first": True, **own, **settings})
    return Reader(layers, function).eval(), torch.randn(3, *INPUT)


def cell(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    maker = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}.get(kind, nn.RNNCell)
    layers = maker(FEATURES, WIDTH, **KINDS[kind][1])
    return Reader(layers, by_cell).eval(), torch.randn(3, *INPUT)


def projected() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    layers = nn.LSTM(FEATURES, 4, 2, batch_first=True, bidirectional=True, proj_size=2)
    return Reader(layers, last_states).eval(), torch.randn(3, *INPUT)


class Translator(nn.Module):
    """A decoder that begins where its encoder ends."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(FEATURES, WIDTH, 2)
        self.decoder = nn.GRU(FEATURES, WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x[:, :2], self.encoder(x[:, 2:].transpose(0, 1))[1])[0]


def translator() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Translator().eval(), torch.randn(3, *INPUT)


MODULES = {
    **{
        f"{k}, {f}": lambda k=k, f=f: recurrent(k, f)
        for k in KINDS
        for f in FORMS
        if k != "relu" or f in ("plain", "both ways in layers")
    },
    **{f"{kind} cell": lambda kind=kind: cell(kind) for kind in KINDS},
    "lstm, projected": projected,
    "translator": translator,
}


def weights_like(scores: Tensor) -> np.ndarray:
    """Relevance of an output of any shape, of which none adds up to nothing."""
    return np.random.default_rng(0).normal(size=tuple(scores.shape)).astype(np.float32)


@pytest.mark.parametrize("name", MODULES)
def test_values_and_gradients_are_torchs(name: str) -> None:
    module, x = MODULES[name]()
    graph = convert(module, x[:1])
    explainer = Explainer(canonize(graph), "gradient")
    given = x.double().requires_grad_()
    scores = module.double()(given)
    expected = scores.detach().numpy()
    for samples in (1, 3):
        found = forward(graph, x[:samples].numpy())[graph.output]
        assert_close(found, expected[:samples])
        assert_close(explainer.forward(x[:samples].numpy()), expected[:samples])
    weights = weights_like(scores)
    (truth,) = torch.autograd.grad(scores, given, torch.from_numpy(weights).double())
    assert_close(explainer(x.numpy(), weights).relevance, truth.numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["both ways", "last states"])
def test_without_biases_relevance_sums_to_the_score(kind: str, form: str) -> None:
    torch.manual_seed(0)
    maker, own = KINDS[kind]
    both = {"bias": False, "num_layers": 2, "bidirectional": True, "batch_first": True}
    layers = maker(FEATURES, WIDTH, **own, **both)
    function = all_steps if form == "both ways" else last_states
    module = nn.Sequential(Reader(layers, function), nn.Flatten(), nn.LazyLinear(4, bias=False))
    x = torch.randn(3, *INPUT)
    module.eval()(x)
    result = Explainer(relprop.load(module, x), "epsilon", epsilon=1e-9)(x.numpy(), "argmax")
    total = result.relevance.reshape(3, -1).sum(1)
    scores = result.scores[np.arange(3), result.target]
    np.testing.assert_allclose(total, scores, rtol=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_has_what_constant_states_take(kind: str) -> None:
    module, x = recurrent(kind, "from constants")
    result = Explainer(relprop.load(module, x), "epsilon")(x.numpy(), weights_like(module(x)))
    assert (abs(result.ledger.constants.sum(1)) > 1e-3).all()
    assert (result.ledger.closure_error < 1e-5).all()


def sigmoids(graph: Graph) -> list[Node]:
    return [node for node in graph if vars(node.operator).get("function") == "sigmoid"]


def test_gates_take_nothing() -> None:
    """Arras et al. 2017: what a gate lets through belongs to what it lets through."""
    for kind, products in (("lstm", 3), ("gru", 3)):
        module, x = recurrent(kind, "without bias")
        graph = relprop.load(module, x).graph
        result = Explainer(graph, "epsilon")(
            x.numpy(), np.ones((3, LENGTH, WIDTH), np.float32), intermediate=[n.name for n in graph]
        )
        gates = sigmoids(graph)
        assert len(gates) == LENGTH
        assert not any(result.intermediate[gate.name].any() for gate in gates)
        count = sum(isinstance(node.operator, Mul) for node in graph)
        first = 2 if kind == "lstm" else 1  # nothing is kept of zero, and nothing reset
        assert count == products * (LENGTH - 1) + first


def test_a_step_is_a_layer_of_input_and_state_side_by_side() -> None:
    module, x = recurrent("tanh", "plain")
    graph = convert(module, x)
    layers = [node for node in graph if isinstance(node.operator, Dense)]
    assert [graph[node.inputs[0]].type for node in layers] == ["Reshape"] + ["Concat"] * 3
    ih, hh = module.layers.weight_ih_l0.detach(), module.layers.weight_hh_l0.detach()
    assert np.array_equal(layers[1].operator.weight, torch.cat([ih, hh], 1).numpy())
    assert layers[1].operator.weight is layers[2].operator.weight
    biases = (module.layers.bias_ih_l0 + module.layers.bias_hh_l0).detach().numpy()
    assert all(np.array_equal(node.operator.bias, biases) for node in layers)
    assert not any(node.type == "Constant" for node in graph)


def test_what_no_output_needs_is_left_out() -> None:
    module, x = recurrent("lstm", "plain")
    graph = relprop.load(Reader(module.layers, lambda m, x: m(x)[1][0][0]).eval(), x).graph
    assert len(sigmoids(graph)) == LENGTH
    assert sum(isinstance(n.operator, Concat) for n in graph) == LENGTH - 1  # of no output


def test_two_sequences_of_a_sample_begin_each_in_its_own_state() -> None:
    torch.manual_seed(0)
    module = Reader(nn.LSTM(FEATURES, WIDTH, batch_first=True), each_its_own).eval()
    x = torch.randn(3, *INPUT)
    graph = convert(module, x)
    found, expected = forward(graph, x.numpy())[graph.output], module(x).detach().numpy()
    assert abs(found - expected).max() <= 1e-6 * abs(expected).max()


def test_the_module_is_unchanged() -> None:
    module, x = recurrent("lstm", "both ways in layers")
    held = [id(weight) for weight in module.layers._flat_weights]
    before = module(x).detach()
    convert(module, x)
    assert [id(weight) for weight in module.layers._flat_weights] == held
    assert torch.equal(module(x), before)


# --- What is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda m, x: m(x.transpose(0, 1))[0], "the batch axis"),
        (lambda m, x: m(x[:, 0])[0], "the batch axis"),
        (half_its_own, "the values of aten.repeat_interleave.* depend on the batch size"),
    ],
)
def test_refused(function: Callable[[Any, Tensor], Tensor], text: str) -> None:
    layers = nn.LSTM(FEATURES, WIDTH, batch_first=True)
    with pytest.raises(UnsupportedOperatorError, match=text):
        convert(Reader(layers, function).eval(), torch.zeros(2, *INPUT))


def test_too_many_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "MOST_STEPS", 15)
    module, x = recurrent("gru", "last states")
    text = "4 steps in 4 layers and directions; at most 15 in all are written out"
    with pytest.raises(UnsupportedOperatorError, match=text):
        convert(module, x)


def test_dropout_in_train_mode_is_refused() -> None:
    module, x = recurrent("gru", "both ways in layers")
    module.layers.train()
    with pytest.raises(UnsupportedOperatorError, match="train mode"):
        convert(module, x)


# --- ONNX --------------------------------------------------------------------------------------

EXPORTERS = ("trace", "export")


@pytest.mark.parametrize(
    ("kind", "form", "exporter"),
    [
        *((k, "plain", e) for k in ("lstm", "gru") for e in EXPORTERS),
        *(
            (k, f, "trace")
            for k in ("lstm", "gru")
            for f in ("last states", "from constants", "from data")
        ),
        ("lstm", "both ways in layers", "export"),
        ("gru", "without bias", "trace"),
        ("tanh", "time first", "trace"),
        ("relu", "both ways in layers", "trace"),
    ],
)
def test_through_a_file_relevance_is_the_same(
    kind: str, form: str, exporter: str, tmp_path: Path
) -> None:
    assert_same_through_a_file(*recurrent(kind, form), exporter, tmp_path)


def assert_same_through_a_file(module: nn.Module, x: Tensor, exporter: str, folder: Path) -> None:
    weights = weights_like(module(x))
    directly, through_file = (
        Explainer(graph, "epsilon")(x.numpy(), weights)
        for graph in (canonize(convert(module, x)), exported(module, (x,), exporter, folder))
    )
    assert_close(through_file.scores, directly.scores)
    assert_close(through_file.relevance, directly.relevance)


ROWS = {"LSTM": 4, "GRU": 3, "RNN": 1}
SPELLINGS = {
    "LSTM": "",
    "GRU": "",
    "GRU, linear before reset": "linear_before_reset=1",
    "RNN": "",
    "RNN, relu": 'activations=["Relu"]',
}


def tensors(kind: str, directions: int) -> dict[str, np.ndarray]:
    rows = ROWS[kind] * WIDTH
    return {
        "w": random(directions, rows, FEATURES, seed=1),
        "r": random(directions, rows, WIDTH, seed=2),
        "b": random(directions, 2 * rows, seed=3),
        "h": random(directions, 1, WIDTH, seed=4),
        "c": random(directions, 1, WIDTH, seed=5),
        "axes": np.array([directions], np.int64),
        "width": np.array([WIDTH], np.int64),
        "length": np.array([LENGTH], np.int32),
    }


def of_both(attributes: str, directions: int) -> str:
    return attributes.replace('["Relu"]', '["Relu", "Tanh"]') if directions == 2 else attributes


@pytest.mark.parametrize("states", ["zero", "constant", "data"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_hand_made(name: str, direction: str, states: str, tmp_path: Path) -> None:
    kind, directions = name.split(",")[0], 1 + (direction == "bidirectional")
    known = tensors(kind, directions)
    inputs = ["t", "w", "r", "b", "lengths"]
    batch = ["s = Shape<start=0, end=1>(x)", "lengths = Expand(length, s)"]
    if states == "constant":
        batch += ["hs = Concat<axis=0>(axes, s, width)", "h0 = Expand(h, hs)", "c0 = Expand(c, hs)"]
    elif states == "data":
        batch += ["m = ReduceMean<axes=[0], keepdims=1>(t)", "k = MatMul(m, p)"]
        batch += [f"h0 = Concat<axis=0>({', '.join(['k'] * directions)})", "c0 = Neg(h0)"]
        known["p"] = random(FEATURES, WIDTH, seed=6)
    if states != "zero":
        inputs += ["h0", "c0"] if kind == "LSTM" else ["h0"]
    attributes = [
        f'direction="{direction}", hidden_size={WIDTH}',
        of_both(SPELLINGS[name], directions),
    ]
    results = "a, e, f" if kind == "LSTM" else "a, e"
    model = build(
        "t = Transpose<perm=[1,0,2]>(x)",
        *batch,
        f"{results} = {kind}<{', '.join(filter(None, attributes))}>({', '.join(inputs)})",
        "y = Transpose<perm=[2,0,1,3]>(a)",
        "z = Transpose<perm=[1,0,2]>(e)",
        *(["v = Transpose<perm=[1,0,2]>(f)"] if kind == "LSTM" else []),
        shape=("N", *INPUT),
        outputs=("y", "z", "v") if kind == "LSTM" else ("y", "z"),
        **known,
    )
    path = write(model, tmp_path)
    graph = onnx_frontend.convert(path)
    x = random(2, *INPUT, seed=7)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = forward(graph, x)
    for (output, node), expected in zip(graph.outputs.items(), session.run(None, {"x": x})):
        assert values[node].shape == expected.shape, output
        np.testing.assert_allclose(values[node], expected, atol=1e-5, err_msg=output)


def test_batch_first(tmp_path: Path) -> None:
    known = tensors("LSTM", 2)
    settings = f'direction="bidirectional", hidden_size={WIDTH}, layout='
    turned = build(
        "t = Transpose<perm=[1,0,2]>(x)",
        f"a, e, f = LSTM<{settings}0>(t, w, r, b)",
        "y = Transpose<perm=[2,0,1,3]>(a)",
        "z = Transpose<perm=[1,0,2]>(e)",
        shape=("N", *INPUT), outputs=("y", "z"), **known,
    )  # fmt: skip
    model = build(
        f"y, z = LSTM<{settings}1>(x, w, r, b)",
        shape=("N", *INPUT), outputs=("y", "z"), **known,
    )  # fmt: skip
    x = random(2, *INPUT, seed=7)
    values = []
    for one in (turned, model):
        graph = onnx_frontend.convert(write(one, tmp_path))
        values.append([forward(graph, x)[node] for node in graph.outputs.values()])
    for expected, found in zip(*values):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ("y = LSTM(x, w, r)", "LSTM at node 'y': it touches the batch axis"),
        ("y = LSTM<layout=1, clip=3.0>(x, w, r)", "it clips what its activations read"),
        ("y = LSTM<layout=1, input_forget=1>(x, w, r)", "its input and forget gates are one"),
        ("y = LSTM<layout=1>(x, w, r, b, , , , p)", "it has peepholes"),
        ("y = LSTM<layout=1>(x, w, r, b, short)", "sequence_lens are not all 4"),
        (
            'y = LSTM<layout=1, activations=["Sigmoid", "Relu", "Tanh"]>(x, w, r)',
            "its activations are sigmoid, relu, tanh",
        ),
        ('y = LSTM<layout=1, activations=["Tanh"]>(x, w, r)', r"are not 3 in 1 directions"),
        ('y = LSTM<layout=1, direction="up">(x, w, r)', "direction is 'up'"),
        ('y = LSTM<layout=1, direction="bidirectional">(x, w, r)', "are not of 2 directions"),
        ("y = LSTM<layout=1, hidden_size=7>(x, w, r)", "hidden_size 7 is not that of R"),
        ("y = LSTM<layout=1>(x, w, r, w)", "B must have 2 axes"),
        ("y = LSTM<layout=1>(x, w, r, b, , own)", "has a value of its own for each sample"),
        ("y = LSTM<layout=1>(x, w, r, b, , b)", "an initial state of shape"),
        ("y = LSTM<layout=1>(x, x, r, b)", "argument 1 is computed from the input"),
        ("t = Tile(x, many)\ny = LSTM<layout=1>(t, w, r)", "2004 steps"),
    ],
)
def test_refused_of_a_file(node: str, text: str, tmp_path: Path) -> None:
    known = tensors("LSTM", 1)
    known |= {
        "p": random(1, 3 * WIDTH),
        "short": np.array([2], np.int32),
        "own": random(2, 1, WIDTH),
        "many": np.array([1, 501, 1], np.int64),
    }
    model = build(*node.splitlines(), shape=("N", *INPUT), **known)
    with pytest.raises(UnsupportedOperatorError, match=text):
        onnx_frontend.convert(write(model, tmp_path))
