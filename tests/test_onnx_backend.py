"""The models that the onnx package brings for testing: computed as their files say, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_models import write
from reference import forward
from relprop.errors import UnsupportedOperatorError
from relprop.frontends.onnx import FIRST_OPSET, convert

DATA = Path(onnx.__file__).parent / "backend/test/data"
MODELS = sorted(path.parent for path in DATA.glob("pytorch-*/*/model.onnx"))


def arrays(folder: Path, pattern: str) -> list[np.ndarray]:
    files = sorted((folder / "test_data_set_0").glob(pattern))
    return [numpy_helper.to_array(onnx.load_tensor(path)) for path in files]


def agrees(folder: Path, scratch: Path) -> bool:
    """Whether a model could be converted; then its output must be the one that is stored."""
    model = onnx.load(folder / "model.onnx")
    # They are of opset 6, whose operators are those of opset 9 here, and made for one batch size.
    model.opset_import[0].version = max(model.opset_import[0].version, FIRST_OPSET)
    names = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in names and len(value.type.tensor_type.shape.dim) > 1:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    try:
        graph = convert(write(model, scratch))
    except ValueError:
        return False
    given, (expected,) = arrays(folder, "input_*.pb"), arrays(folder, "output_*.pb")
    if len({len(x) for x in given}) != 1:
        return False  # the first axis of some inputs was no batch
    x = dict(zip((node.name for node in graph.inputs), given, strict=True))
    with np.errstate(invalid="ignore"):  # one takes roots of negative numbers; NaN is stored
        result = forward(graph, x)[graph.output]
    if model.graph.node[-1].op_type == "LogSoftmax":  # a Softmax in the Graph: both are cut
        result = np.log(result)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4, err_msg=folder.name)
    return True


def test_models_compute_what_is_stored(tmp_path):
    assert sum(agrees(folder, tmp_path) for folder in MODELS) >= 95


ZOO = {
    "densenet121": (1000, 1, 1),
    "inception_v1": (1000,),
    "inception_v2": (1000,),
    "resnet50": (1000,),
    "shufflenet": (1000,),
    "squeezenet": (1000, 1, 1),
}


@pytest.mark.parametrize("name", ZOO)
def test_architecture_of_the_zoo(name):
    graph = convert(DATA / f"light/light_{name}.onnx")
    assert graph.input.shape == (3, 224, 224)
    assert graph[graph.output].shape == ZOO[name]


def test_weights_that_are_no_part_of_the_file():
    with pytest.raises(UnsupportedOperatorError, match=r"shape \[4096, 25088\] is too large"):
        convert(DATA / "light/light_vgg19.onnx")
