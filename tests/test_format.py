"""The file format: what is saved is what is loaded, and nothing in a file is believed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import convolutions, dense_layers, numbers, pools
from fuzzing import fuzz
from relprop import format as f
from relprop import graph as g
from relprop.explain import Explainer
from relprop.loading import load
from relprop.model import Model
from relprop.preprocessing import Preprocessing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def fields(of: Any) -> dict[str, Any]:
    return {field.name: getattr(of, field.name) for field in dataclasses.fields(of)}


def same(a: Any, b: Any) -> bool:
    """Equal in value and type, arrays bit for bit."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return type(b) is tuple and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def assert_same(a: g.Graph, b: g.Graph) -> None:
    assert list(a.nodes) == list(b.nodes)
    assert list(a.outputs.items()) == list(b.outputs.items())
    for one, other in zip(a, b):
        assert (one.type, one.inputs, one.shape) == (other.type, other.inputs, other.shape)
        left, right = fields(one.operator), fields(other.operator)
        assert all(same(left[name], right[name]) for name in left), one


def network() -> Model:
    """A gate, a sum, a shared weight, a constant: an image of (2, 6, 6) to three scores."""
    rng = np.random.default_rng(0)
    graph = g.Graph()
    x = graph.add("image", g.Input((2, 6, 6)))
    shift = graph.add("shift", g.Constant(numbers(rng, (2, 1, 1))))
    shared = numbers(rng, (2, 2, 3, 3))
    first = graph.add("first", g.Conv(shared, padding=((1, 1), (1, 1))), [x])
    first = graph.add("relu", g.Activation("relu"), [first])
    second = graph.add("second", g.Conv(shared, numbers(rng, (2,)), padding=((1, 1),) * 2), [first])
    gate = graph.add("gate", g.Activation("sigmoid"), [second])
    both = graph.add("sum", g.Add(), [graph.add("gated", g.Mul(), [first, gate]), shift, x])
    low = graph.add("pad", g.Pad(((0, 0), (0, 1), (0, 1)), -math.inf), [both])
    pooled = graph.add("pool", g.MaxPool((3, 3), (2, 2)), [low])
    flat = graph.add("flat", g.Reshape((18,)), [pooled])
    graph.add("scores", g.Dense(numbers(rng, (3, 18)), numbers(rng, (3,))), [flat])
    return Model(graph, None, ("cat", "dog, hound", "motor scooter"), "small")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.relprop"
    network().save(path)
    return path


# --- What is saved is what is loaded -----------------------------------------------------------


def test_a_model_survives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = g.Graph()
    graph.add("image", g.Input((3, 6, 8)))
    graph.add("conv", g.Conv(numbers(rng, (2, 3, 6, 8))), ["image"])
    graph.add("flat", g.Reshape((2,)), ["conv"])
    preprocessing = Preprocessing((6, 8), (120.5, 1.1, 0.1), (60.0, 1.0, 2.0), 9, "bicubic", "bgr")
    model = Model(graph, preprocessing, ("Käse", "\N{PILE OF POO}"), "nets:small")
    model.save(tmp_path / "x.relprop")
    found = load(tmp_path / "x.relprop")
    assert dataclasses.replace(found, graph=graph) == model
    assert_same(found.graph, graph)
    assert load(str(tmp_path / "x.relprop"), classes=["a", "b"]).classes == ("a", "b")
    whole = dataclasses.replace(preprocessing, resize=None)
    assert load(tmp_path / "x.relprop", preprocessing=whole).preprocessing == whole
    with pytest.raises(ValueError, match="example must be left out for the saved model"):
        load(tmp_path / "x.relprop", (3, 6, 8))


def test_a_graph_survives(tmp_path: Path) -> None:
    graph = network().graph
    graph.outputs = {"gate": "gate"}
    graph.save(tmp_path / "x.relprop")
    found = load(tmp_path / "x.relprop")
    assert_same(found.graph, graph)
    assert found.graph["first"].operator.weight is found.graph["second"].operator.weight


def test_arrays_of_any_layout_survive(tmp_path: Path) -> None:
    graph = g.Graph()
    weight = numbers(np.random.default_rng(0), (8, 6))
    x = graph.add("x", g.Input((4,)))
    graph.add("cut", g.Dense(weight[::2, :4]), [x])
    graph.add("turned", g.Dense(weight.T[:4, :4]), ["cut"])
    graph.add("number", g.Constant(np.array(3, np.float32)))
    graph.add("sum", g.Add(), ["turned", "number"])
    graph.save(tmp_path / "x.relprop")
    assert_same(load(tmp_path / "x.relprop").graph, graph)


def test_the_file_is_safetensors(saved: Path) -> None:
    tensors = safetensors.numpy.load_file(saved)
    assert set(tensors) == {
        "shift.value", "first.weight", "second.bias", "scores.weight", "scores.bias"
    }  # fmt: skip
    with safetensors.safe_open(saved, "numpy") as file:
        assert file.metadata()["relprop.format"] == "2"


@st.composite
def graphs(draw: st.DrawFn) -> g.Graph:
    """One layer of any kind, and on it a random web of what fits every shape."""
    layer, shape = draw(convolutions() | dense_layers() | pools("max") | pools("average"))
    graph = g.Graph()
    x = graph.add("x", g.Input(shape))
    names = [x, graph.add("layer", layer, [x])]
    text = st.text(min_size=1, max_size=6)
    number = st.floats(-9, 9, width=32)
    for _ in range(draw(st.integers(0, 6))):
        source = draw(st.sampled_from(names))
        shape = graph[source].shape
        axis = draw(st.integers(0, len(shape) - 1))
        function = draw(st.sampled_from(get_args(g.Function)))
        values = numbers(np.random.default_rng(draw(st.integers(0, 9))), (2, shape[0]))
        order = tuple(draw(st.permutations(range(len(shape)))))
        kind = draw(
            st.sampled_from(
                [
                    g.Activation(function, draw(number)),
                    g.Mean((axis,), keepdims=True),
                    g.BatchNorm(*values),
                    g.Softmax(axis),
                    g.Add(),
                    g.Mul(),
                    g.Concat(axis),
                    g.Slice(axis, 0, shape[axis], draw(st.integers(1, 3))),
                    g.Pad(((1, 0),) * len(shape), draw(number | st.just(-math.inf))),
                    g.Reshape((1, math.prod(shape))),
                    g.Permute(order),
                    g.Identity(),
                ]
            )
        )
        count = 2 if isinstance(kind, (g.Add, g.Mul, g.Concat)) else 1
        name = draw(text.filter(lambda name: name not in names))
        names.append(graph.add(name, kind, [source] * count))
    outputs = draw(st.lists(text, min_size=1, max_size=3, unique=True))
    graph.outputs = {name: draw(st.sampled_from(names)) for name in outputs}
    return graph


@given(graph=graphs())
@settings(max_examples=60, deadline=None)
def test_random_graphs_survive(graph: g.Graph, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.relprop"
    graph.save(path, overwrite=True)
    assert_same(load(path).graph, graph)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an operator's field, from its annotation alone."""
    inner, origin = get_args(kind), get_origin(kind)
    if kind == g.Array:
        shapes = st.lists(st.integers(0, 3), max_size=4)
        return st.builds(lambda s, v: np.full(s, v, np.float32), shapes, st.floats(width=32))
    if origin is UnionType:
        return st.one_of(values_of(one) for one in inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(values_of(inner[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(values_of(one) for one in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    plain = {
        NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**31) + 1, 2**31 - 1),
        float: st.floats(allow_nan=False),
        str: st.text(),
    }
    return plain[kind]


@pytest.mark.parametrize("kind", get_args(g.Operator))
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_every_field_of_every_operator_survives(kind: type, data: st.DataObject) -> None:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    operator = kind(**{name: data.draw(values_of(hints[name]), name) for name in names})
    node = g.Node("node", operator, (), ())
    content, tensors = f._written(Model(g.Graph({"node": node}, {"node": "node"})))
    written = json.loads(json.dumps(content, allow_nan=False))["nodes"][0]["fields"]
    found = f._dataclass(kind, written, "node", tensors.__getitem__)
    assert same(tuple(fields(found).values()), tuple(fields(operator).values()))


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
import relprop
model = relprop.load("net.relprop")
x = np.load("x.npy")
result = relprop.Explainer(model, "epsilon_gamma_box", low=-9.0, high=9.0)(x, target="dog")
np.savez("found.npz", relevance=result.relevance, scores=result.scores)
"""


def test_a_saved_torch_module_is_explained_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from torch import nn

    from networks import BasicBlock, initialise

    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), BasicBlock(8, 8, 1),
        BasicBlock(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = load(initialise(module), (3, 16, 16), classes=["cat", "dog"])
    model.save("net.relprop")
    x = numbers(np.random.default_rng(0), (2, 3, 16, 16))
    np.save("x.npy", x)
    result = Explainer(model, "epsilon_gamma_box", low=-9.0, high=9.0)(x, target="dog")
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)
    with np.load("found.npz") as found:
        assert same(found["relevance"], result.relevance)
        assert same(found["scores"], result.scores)


# --- Writing -----------------------------------------------------------------------------------


def test_what_exists_is_kept(saved: Path) -> None:
    before = saved.read_bytes()
    graph = g.Graph()
    graph.add("x", g.Input((1,)))
    with pytest.raises(FileExistsError, match=r"small\.relprop exists already; overwrite=True"):
        graph.save(saved)
    assert saved.read_bytes() == before
    graph.save(saved, overwrite=True)
    assert len(load(saved).graph) == 1
    assert [path.name for path in saved.parent.iterdir()] == ["small.relprop"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(ValueError, match=r"path must end in \.relprop, not 'x\.onnx'"):
        model.save(tmp_path / "x.onnx")
    with pytest.raises(FileNotFoundError, match=r"nowhere/x\.relprop"):
        model.save(tmp_path / "nowhere/x.relprop")
    (tmp_path / "folder.relprop").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.relprop"):
        model.save(tmp_path / "folder.relprop", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.relprop"]


FULL = """
import resource, sys
import relprop
model = relprop.load("small.relprop")
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    model.save(sys.argv[1], overwrite=True)
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of file sizes")
@pytest.mark.parametrize("name", ["small.relprop", "other.relprop"])
def test_a_full_disk_leaves_what_was_there(saved: Path, name: str) -> None:
    before = saved.read_bytes()
    command = [sys.executable, "-c", FULL, name]
    done = subprocess.run(command, cwd=saved.parent, capture_output=True, text=True, check=True)
    assert done.stdout == f"[Errno 27] File too large: '{name}'\n"
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == {saved.name: before}


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    graph = g.Graph()
    graph.add("x", g.Input((2,)))
    graph.add("dense", g.Dense(np.eye(2)), ["x"])  # float64
    with pytest.raises(ValueError, match=r"'dense' \(Dense\): weight must be float32, not float64"):
        graph.save(tmp_path / "x.relprop")
    assert not any(tmp_path.iterdir())


# --- Files that are wrong ----------------------------------------------------------------------

Content = dict[str, Any]
Edit = Callable[[Content, dict[str, np.ndarray], dict[str, str]], object]


def forge(path: Path, edit: Edit) -> Path:
    """A file of the small network after an edit of its JSON, tensors or metadata."""
    content, tensors = f._written(network())
    content = json.loads(json.dumps(content))
    metadata = {"relprop.format": "2", "relprop.writer": "0.1"}
    edit(content, tensors, metadata)
    metadata.setdefault("relprop.model", json.dumps(content))
    path.write_bytes(safetensors.numpy.save(tensors, metadata))
    return path


def node(content: Content, name: str) -> dict[str, Any]:
    return next(one for one in content["nodes"] if one["name"] == name)


FORGERIES: dict[str, tuple[Edit, str]] = {
    "newer format": (
        lambda c, t, m: m.update({"relprop.format": "3", "relprop.writer": "0.9.1"}),
        "of format 3, written by relprop '0.9.1'; this relprop reads format 2. Install a newer one",
    ),
    "older format": (
        lambda c, t, m: m.update({"relprop.format": "1"}),
        "of format 1, written by relprop '0.1'; this relprop reads format 2. Save the model once",
    ),
    "no format": (
        lambda c, t, m: m.pop("relprop.format"),
        "no relprop file: its metadata has no 'relprop.format'",
    ),
    "no number": (
        lambda c, t, m: m.update({"relprop.format": "1.0"}),
        "'relprop.format' must be a number, not '1.0'",
    ),
    "no JSON": (
        lambda c, t, m: m.update({"relprop.model": "{"}),
        "'relprop.model' is not readable as JSON",
    ),
    "deep JSON": (
        lambda c, t, m: m.update({"relprop.model": "[" * 100_000}),
        "'relprop.model' is nested too deeply",
    ),
    "not a number": (
        lambda c, t, m: node(c, "pad")["fields"].update(value=math.nan),
        "node 'pad' (Pad): value must be a number, not nan",
    ),
    "a list": (lambda c, t, m: m.update({"relprop.model": "[]"}), "the model must be an object"),
    "no outputs": (lambda c, t, m: c.pop("outputs"), "the model lacks outputs"),
    "an empty output": (lambda c, t, m: c.update(outputs=[]), "must have inputs and outputs"),
    "more": (lambda c, t, m: c.update(code="x"), "the model has no 'code'; its entries are"),
    "unknown output": (
        lambda c, t, m: c.update(outputs=[["y", "z"]]),
        "output 'y' names 'z', which is no node",
    ),
    "half an output": (
        lambda c, t, m: c.update(outputs=[["y"]]),
        "outputs must have 2 entries, not 1",
    ),
    "an output twice": (
        lambda c, t, m: c["outputs"].append(["scores", "flat"]),
        "outputs must differ in their names",
    ),
    "no nodes": (lambda c, t, m: c.update(nodes=[]), "output 'scores' names 'scores', which is no"),
    "nodes by name": (lambda c, t, m: c.update(nodes={}), "nodes must be list, not {}"),
    "class names": (
        lambda c, t, m: c.update(classes=["cat", "dog"]),
        "classes has 2 names for outputs of shape (3,)",
    ),
    "half a character": (
        lambda c, t, m: c.update(classes=["a", "\ud800", "b"]),
        r"classes holds what is no character: '\ud800'",
    ),
    "class numbers": (lambda c, t, m: c.update(classes=[1, 2, 3]), "classes must be str, not 1"),
    "preprocessing": (
        lambda c, t, m: c.update(preprocessing={"size": [6, 6]}),
        "preprocessing lacks mean, std, resize, interpolation, channel_order",
    ),
    "unknown operator": (
        lambda c, t, m: node(c, "relu").update(operator="Warp"),
        "node 'relu': there is no operator 'Warp'; known are Input",
    ),
    "operator's type": (
        lambda c, t, m: node(c, "relu").update(operator=["Pad"]),
        "node 'relu': operator must be str, not ['Pad']",
    ),
    "unknown field": (
        lambda c, t, m: node(c, "sum")["fields"].update(weight="x"),
        "node 'sum' (Add) has no 'weight'",
    ),
    "missing field": (
        lambda c, t, m: node(c, "first")["fields"].pop("stride"),
        "node 'first' (Conv) lacks stride",
    ),
    "wrong count": (
        lambda c, t, m: node(c, "first")["fields"].update(stride=[1]),
        "node 'first' (Conv): stride must have 2 entries, not 1",
    ),
    "truth for a number": (
        lambda c, t, m: node(c, "first")["fields"].update(groups=True),
        "node 'first' (Conv): groups must be int, not True",
    ),
    "large number": (
        lambda c, t, m: node(c, "first")["fields"].update(stride=[1, 2**40]),
        "node 'first' (Conv): stride is too large: 1099511627776",
    ),
    "no stride": (
        lambda c, t, m: node(c, "first")["fields"].update(stride=[1, 0]),
        "node 'first' (Conv): kernel=3, stride=0 and dilation=1 must be at least 1",
    ),
    "unknown function": (
        lambda c, t, m: node(c, "relu")["fields"].update(function="sin"),
        "node 'relu' (Activation): function must be one of relu, relu6",
    ),
    "huge number": (
        lambda c, t, m: node(c, "relu")["fields"].update(parameter=10**400),
        "node 'relu' (Activation): parameter must be a number, not 1000",
    ),
    "huge image": (
        lambda c, t, m: node(c, "image")["fields"].update(shape=[2, 2**20, 2**20]),
        "node 'image' has 2199023255552 values; a node has at most 2147483647",
    ),
    "wrong shape": (
        lambda c, t, m: node(c, "flat")["fields"].update(shape=[17]),
        "node 'flat' (Reshape): an input of shape (2, 3, 3) cannot be reshaped to (17,)",
    ),
    "a cycle": (
        lambda c, t, m: node(c, "first").update(inputs=["relu"]),
        "node 'first' reads 'relu', which is not in the graph yet",
    ),
    "a name twice": (
        lambda c, t, m: node(c, "relu").update(name="first"),
        "node name 'first' is taken",
    ),
    "no inputs": (
        lambda c, t, m: c.update(
            nodes=[node(c, "shift")], outputs=[["shift", "shift"]], classes=[]
        ),
        "the model must have inputs and outputs",
    ),
    "a number for a tensor": (
        lambda c, t, m: node(c, "scores")["fields"].update(bias=0),
        "node 'scores' (Dense): bias must name a tensor, not 0",
    ),
    "missing tensor": (lambda c, t, m: t.pop("scores.bias"), "tensor 'scores.bias' is missing"),
    "extra tensor": (
        lambda c, t, m: t.update(more=np.zeros(1, np.float32)),
        "no node uses the tensors ['more']",
    ),
    "wrong type": (
        lambda c, t, m: t.update({"scores.bias": np.zeros(3)}),
        "tensor 'scores.bias' must be F32, not F64",
    ),
    "wrong weight": (
        lambda c, t, m: t.update({"scores.bias": np.zeros(4, np.float32)}),
        "node 'scores' (Dense): bias must have shape (3,), not (4,)",
    ),
    "no weight": (
        lambda c, t, m: t.update({"first.weight": np.zeros((0, 2, 3, 3), np.float32)}),
        "node 'first' has an empty shape (0, 6, 6)",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_files_are_refused(tmp_path: Path, name: str) -> None:
    edit, text = FORGERIES[name]
    path = forge(tmp_path / "x.relprop", edit)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is looked at below
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert text in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08",
        b"\xff" * 8,
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        b"PK\x03\x04" + b"\0" * 99,
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.relprop"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.relprop: .*no relprop file"):
        load(path)


def test_paths_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.relprop"):
        load(tmp_path / "x.relprop")
    (tmp_path / "x.relprop").mkdir()
    with pytest.raises(IsADirectoryError, match=r"x\.relprop"):
        load(tmp_path / "x.relprop")
    if os.name == "posix" and os.geteuid() != 0:  # root reads everything
        (tmp_path / "y.relprop").touch(0o000)
        with pytest.raises(PermissionError, match=r"y\.relprop"):
            load(tmp_path / "y.relprop")


def load_or_refuse(path: Path) -> None:
    try:
        model = load(path)
    except (ValueError, OSError) as error:
        said = str(error)
    else:
        model.save(path, overwrite=True)
        assert_same(load(path).graph, model.graph)
        return
    assert said.startswith(f"{path}: ")


CONTENT, TENSORS = f._written(network())
BYTES = safetensors.numpy.save(
    TENSORS, {"relprop.format": "2", "relprop.model": json.dumps(CONTENT)}
)


@fuzz(300)
@given(data=st.data())
def test_damaged_bytes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(BYTES)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        end = data.draw(st.sampled_from([at, at + 1, at + 8, len(content)]))
        content[at:end] = data.draw(st.binary(max_size=9))
    path = tmp_path_factory.getbasetemp() / "bytes.relprop"
    path.write_bytes(content)
    load_or_refuse(path)


@fuzz(300)
@given(data=st.data())
def test_hostile_json(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = json.loads(json.dumps(CONTENT))
    for _ in range(data.draw(st.integers(1, 3))):
        parent = content
        while True:
            keys = range(len(parent)) if isinstance(parent, list) else list(parent)
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(parent[key], (dict, list)) or data.draw(st.integers(0, 5)) == 0:
                parent[key] = data.draw(JSON)
                break
            parent = parent[key]
    metadata = {"relprop.format": "2", "relprop.model": json.dumps(content)}
    path = tmp_path_factory.getbasetemp() / "json.relprop"
    path.write_bytes(safetensors.numpy.save(TENSORS, metadata))
    load_or_refuse(path)
