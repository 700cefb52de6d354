"""What load accepts, and what it says about everything else."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from caffe_files import write_weights
from networks import ResNet20, initialise
from onnx_models import build, random, write
from reference import forward
from relprop.errors import UnsupportedOperatorError
from relprop.loading import BUILT_IN, imagenet_classes, load
from relprop.model import Model
from relprop.preprocessing import Preprocessing

SMALL = Preprocessing(size=(6, 8), mean=(120.0,) * 3, std=(60.0,) * 3)


def network() -> nn.Module:
    return initialise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))


@pytest.mark.parametrize(
    "example",
    [
        torch.zeros(1, 3, 6, 8),
        np.zeros((5, 3, 6, 8)),
        np.zeros((1, 3, 6, 8), np.uint8),
        (3, 6, 8),
        tuple(np.array([3, 6, 8])),
        [np.int32(3), 6, 8],
    ],
)
def test_module(example):
    model = load(network(), example)
    assert isinstance(model, Model)
    assert model.name == "Sequential"
    assert model.graph.input.shape == (3, 6, 8)
    assert [node.type for node in model.graph] == ["Input", "Conv", "Reshape"]  # canonized
    assert model.preprocessing is None
    assert model.classes == ()


def test_preprocessing_and_classes_belong_to_the_model():
    names = [f"class {i}" for i in range(4 * 4 * 6)]
    model = load(network(), preprocessing=SMALL, classes=names)
    assert model.graph.input.shape == (3, 6, 8)
    assert model.preprocessing is SMALL
    assert model.classes == tuple(names)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="example is needed"):
        load(network())
    with pytest.raises(ValueError, match=r"preprocessing makes .*\(3, 6, 8\).* \(3, 8, 8\)"):
        load(network(), (3, 8, 8), preprocessing=SMALL)
    with pytest.raises(ValueError, match=r"classes has 2 names for outputs of shape \(96,\)"):
        load(network(), (3, 6, 8), classes=["cat", "dog"])
    with pytest.raises(TypeError, match="classes must be names, not 7"):
        load(network(), (3, 6, 8), classes=["cat", 7])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="classes must be a list of names, not the string 'ab'"):
        load(network(), (3, 6, 8), classes="ab")
    with pytest.raises(TypeError, match="example must be"):
        load(network(), (torch.zeros(1, 3, 6, 8), "image"))
    with pytest.raises(ValueError, match=r"example\[1\] must have shape \(batch, \.\.\.\)"):
        load(network(), (torch.zeros(1, 3, 6, 8), torch.zeros(1)))
    with pytest.raises(ValueError, match="eval mode"):
        load(network().train(), (3, 6, 8))
    with pytest.raises(UnsupportedOperatorError, match="mish"):
        load(nn.Mish().eval(), (3,))


@pytest.mark.parametrize("source", [None, 3, lambda x: x])
def test_sources_of_other_types_are_refused(source):
    with pytest.raises(TypeError, match="source must be a torch module"):
        load(source, (3,))


# --- Names, callables, paths -------------------------------------------------------------------

CODE = """
import relprop.loading
from skimage import data
from torch import nn

def network():
    return nn.Sequential(nn.Linear(3, 2), nn.Softmax(1)).eval()

def model():
    return relprop.loading.load(network(), (3,), classes=["left", "right"])

class Family:
    small = staticmethod(network)

number = 3
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module called "own_models" in the working directory, which no path names yet."""
    (tmp_path / "own_models.py").write_text(CODE)
    (tmp_path / "own_broken.py").write_text("import own_missing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_models", raising=False)


@pytest.mark.usefixtures("code")
def test_callable_by_name():
    model = load("own_models:network", (3,))
    assert model.name == "own_models:network"
    assert [node.type for node in model.graph] == ["Input", "Dense"]
    assert load("own_models:Family.small", (3,)).graph.input.shape == (3,)
    assert load("own_models:model").classes == ("left", "right")
    assert load("own_models:model", classes=iter("ab")).classes == ("a", "b")  # type: ignore[arg-type]


@pytest.mark.usefixtures("code")
def test_callables_that_are_refused():
    with pytest.raises(ValueError, match="no module 'own_model'"):
        load("own_model:network", (3,))
    with pytest.raises(ModuleNotFoundError, match="own_missing"):
        load("own_broken:network", (3,))
    with pytest.raises(ValueError, match="'own_models' has no 'net'"):
        load("own_models:net", (3,))
    with pytest.raises(TypeError, match="must be callable, not 3"):
        load("own_models:number", (3,))
    with pytest.raises(TypeError, match="source must be a torch module"):
        load("own_models:Family", (3,))
    with pytest.raises(ValueError, match="example must be left out"):
        load("own_models:model", (3,))


def test_paths_and_unknown_names(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no such file"):
        load(tmp_path / "net.onnx")
    with pytest.raises(FileNotFoundError, match=r"no such file"):
        load("net.onnx")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ValueError, match="no ONNX file"):
        load(tmp_path / "net.onnx")
    (tmp_path / "net.h5").touch()
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "net.h5")
    with pytest.raises(ValueError, match="efficientnet-lite0"):
        load("efficientnet")


# --- Caffe -------------------------------------------------------------------------------------

INNER = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 2 bias_term: false } }"""


def test_caffe_networks_are_two_files(tmp_path: Path):
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text('input: "data" input_dim: 1 input_dim: 3 input_dim: 1 input_dim: 1' + INNER)
    write_weights(caffemodel, {"fc": [np.ones((2, 3))]})
    model = load((prototxt, str(caffemodel)), classes=["cat", "dog"])
    assert model.name == "net"
    assert model.graph.input.shape == (3, 1, 1)
    assert load((prototxt, caffemodel), np.zeros((4, 3, 1, 1))).classes == ()
    with pytest.raises(ValueError, match=r"has shape \(3, 1, 1\), not \(3, 6, 8\)"):
        load((prototxt, caffemodel), preprocessing=SMALL)
    for alone in (prototxt, caffemodel):
        with pytest.raises(ValueError, match="a Caffe network is two files"):
            load(alone)
    with pytest.raises(TypeError, match="two paths"):
        load((prototxt, caffemodel, "mean.binaryproto"))
    prototxt.write_text('layer { name: "data" type: "Data" top: "data" }' + INNER)
    write_weights(caffemodel, {"fc": [np.ones((2, 3 * 6 * 8))]})
    assert load((prototxt, caffemodel), preprocessing=SMALL).graph.input.shape == (3, 6, 8)
    assert load((prototxt, caffemodel), (144,)).graph.input.shape == (144,)


# --- Real weights ------------------------------------------------------------------------------


def test_imagenet_classes():
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[281], names[670], names[-1]) == (
        "tench",
        "tabby",
        "motor scooter",
        "toilet tissue",
    )


@pytest.fixture(scope="module")
def lite0() -> Model:
    return load("efficientnet-lite0")


def test_efficientnet_lite0(lite0: Model):
    assert lite0.name == "efficientnet-lite0"
    assert {node.type for node in lite0.graph} == {
        "Input", "Conv", "Activation", "Add", "AdaptiveAvgPool", "Reshape", "Dense"
    }  # fmt: skip
    assert lite0.preprocessing is not None
    low, high = lite0.preprocessing.bounds()
    assert (low[0], high[0]) == (-127 / 128, 1.0)
    x = np.stack([lite0.preprocessing(photo) for photo in (data.chelsea(), data.coffee())])
    best = forward(lite0.graph, x)[lite0.graph.output].argmax(1)
    assert lite0.classes[best[0]] in ("tabby", "tiger cat", "Egyptian cat")
    assert lite0.classes[best[1]] in ("espresso", "cup")


def test_built_in_models_know_their_example():
    with pytest.raises(ValueError, match="example must be left out"):
        load(next(iter(BUILT_IN)), (3, 224, 224))


def test_preprocessing_of_a_built_in_model_may_be_replaced(lite0: Model, monkeypatch):
    monkeypatch.setitem(BUILT_IN, lite0.name, lambda: lite0)
    assert lite0.preprocessing is not None
    whole = replace(lite0.preprocessing, resize=None)
    assert load(lite0.name, preprocessing=whole).preprocessing == whole


def test_resnet20_with_its_cifar_weights():
    path = Path(__file__).parents[2] / "shared/data/models/resnet20_cifar10.pth"
    if not path.exists() and not os.environ.get("CI"):
        pytest.skip(f"real weights are not at {path}")
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    module = ResNet20().eval()
    module.load_state_dict({name.removeprefix("module."): w for name, w in saved.items()})
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    graph = load(module, x).graph
    result = forward(graph, x.numpy())[graph.output]
    np.testing.assert_allclose(result, module(x).detach().numpy(), rtol=0, atol=1e-4)


def test_onnx_file(tmp_path):
    path = write(build("c = Conv(x, w)", "y = Flatten(c)", w=random(2, 3, 3, 3)), tmp_path)
    model = load(path, classes=[str(i) for i in range(72)])
    assert [node.type for node in model.graph] == ["Input", "Conv", "Reshape"]
    assert model.name == "model"
    assert load(str(path), (3, 8, 8)).graph.input.shape == (3, 8, 8)
    with pytest.raises(ValueError, match=r"takes samples of shape \[3, 8, 8\], not \[3, 6, 8\]"):
        load(path, preprocessing=SMALL)
    path = write(build("y = Relu(x)", shape=("N", 3, "h", "w")), tmp_path)
    assert load(path, preprocessing=SMALL).graph.input.shape == (3, 6, 8)
    assert load(path, np.zeros((5, 3, 2, 4))).graph.input.shape == (3, 2, 4)
    with pytest.raises(ValueError, match=r"^example is needed.*model\.onnx"):
        load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "missing.onnx")
