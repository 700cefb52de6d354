"""``relprop save`` and ``relprop inspect``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import OWN, Run
from onnx_models import build, random, write

pytest.importorskip("torch")

RECURRENT = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.fft.rfft(torch.cumprod(x, 1)).abs()

def make():
    return Net().eval()
"""


def test_a_saved_model_is_explained_like_its_origin(run: Run) -> None:
    arguments = ("tiny_network:make", "-o", "tiny.relprop", *OWN, "--classes", "names.txt")
    code, out, _ = run("save", *arguments)
    assert (code, out.split(":")[0]) == (0, "tiny.relprop")
    assert "parameters" in out
    run("explain", "tiny_network:make", "left.png", "-t", "1", *OWN, "-o", "origin")
    code, _, _ = run("explain", "tiny.relprop", "left.png", "-t", "dog", "-o", "saved")
    assert code == 0
    name = "left.epsilon_plus_flat.npz"
    with np.load(f"origin/{name}") as origin, np.load(f"saved/{name}") as saved:
        assert all(np.array_equal(origin[key], saved[key]) for key in origin.files)


def test_saving_keeps_what_exists(run: Run) -> None:
    arguments = ("save", "tiny_network:make", "-o", "tiny.relprop", "--shape", "3,16,16")
    assert run(*arguments)[0] == 0
    code, _, err = run(*arguments)
    assert code == 3
    assert "tiny.relprop exists already; --force overwrites" in err
    assert run(*arguments, "--force")[0] == 0
    code, _, err = run("explain", "tiny.relprop", "left.png")
    assert code == 2
    assert "give --size, --mean and --std" in err
    code, _, err = run("save", "tiny_network:make", "-o", "tiny.npz", "--shape", "3,16,16")
    assert code == 3
    assert "must end in .relprop" in err
    code, _, err = run("save", "tiny_network:make", "-o", "x.relprop")
    assert code == 3
    assert "give --size, --mean and --std, as it was trained, or --shape" in err


def test_inspect(run: Run) -> None:
    code, out, err = run("inspect", "tiny_network:make", "--shape", "3,16,16")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    # 4 filters of 3 x 3 x 3 and their biases, each used at 16 x 16 places
    assert ["1", "0", "Conv", "4x16x16", "Flat()", "112", "27.6", "k"] in lines
    assert ["2", "1", "Activation", "4x16x16", "Pass()"] in lines
    assert ["5", "4", "Dense", "3", "Epsilon(1e-06)", "195", "192"] in lines
    assert out.splitlines()[-1].endswith(
        "input 3x16x16 in, output 3 out, 6 nodes, 307 parameters, 27,840 multiply-adds"
    )


def test_inspect_as_json(run: Run) -> None:
    arguments = ("inspect", "tiny_network:make", "--shape", "3,16,16", "--json")
    code, out, _ = run(*arguments, "-c", "epsilon_gamma_box", "-p", "low=-1", "-p", "high=1")
    content = json.loads(out)
    assert code == 0
    assert content["problems"] == []
    assert (content["inputs"], content["outputs"]) == (["input"], {"output": "4"})
    assert (content["parameters"], content["multiply_adds"]) == (307, 27_840)
    assert content["nodes"][1] == {
        "name": "0",
        "operator": "Conv",
        "inputs": ["input"],
        "shape": [4, 16, 16],
        "rule": "ZBox(-1, 1)",
        "parameters": 112,
        "multiply_adds": 27_648,
    }
    assert content["nodes"][0]["rule"] is None
    code, out, _ = run(*arguments, "--rule", "0=Zero()", "--rule", "4=Gamma(0.5, 'exclude')")
    rules = [node["rule"] for node in json.loads(out)["nodes"]]
    assert (rules[1], rules[-1]) == ("Zero()", "Gamma(0.5, bias='exclude')")


def test_inspect_lists_all_that_is_unsupported(run: Run) -> None:
    Path("recurrent.py").write_text(RECURRENT)
    arguments = ("inspect", "recurrent:make", "--shape", "8")
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert "cumprod" in err and "fft" in err
    code, out, _ = run(*arguments, "--json")
    problems = json.loads(out)["problems"]
    assert code == 1
    assert "cumprod" in problems[0] and "fft" in problems[1]


def test_inspect_lists_nodes_without_a_rule(run: Run) -> None:
    arguments = ("inspect", "tiny_network:make", "--shape", "3,16,16")
    arguments += ("-r", "1=Epsilon()", "-r", "2=Flat()")
    code, out, _ = run(*arguments)
    assert code == 1
    assert "cannot be explained with epsilon_plus_flat" in out
    assert "1 (Activation): Epsilon(epsilon=1e-06, bias='absorb') does not apply" in out
    code, out, _ = run(*arguments, "--json")
    content = json.loads(out)
    assert code == 1
    assert len(content["problems"]) == 2
    assert [node["rule"] for node in content["nodes"]].count(None) == 3


def test_models_that_cannot_be_inspected(run: Run) -> None:
    code, _, err = run("inspect", "tiny_network:make")
    assert code == 3
    assert "give --shape, such as 3,224,224" in err
    code, _, err = run("inspect", "tiny_network:make", "--shape", "3,-1")
    assert code == 2
    assert "'3,-1' is no shape" in err
    code, _, err = run("inspect", "tiny_network:make", "--shape", "3,16,16", "-c", "deep_taylor")
    assert code == 3
    assert "needs low and high" in err
    Path("bad.relprop").write_bytes(b"x" * 99)
    code, _, err = run("inspect", "bad.relprop")
    assert code == 3
    assert "bad.relprop: damaged, or no relprop file" in err


def test_weights_go_with_a_prototxt(run: Run) -> None:
    for name in ("tiny_network:make", "missing.prototxt"):
        code, _, err = run("inspect", name, "--weights", "net.caffemodel")
        assert code == 2
        assert f"goes with a prototxt, and {name} is no file" in " ".join(err.split())
    code, _, err = run("inspect", "left.png")
    assert code == 3
    assert "give an .onnx, .prototxt or .relprop file" in err


def test_onnx_files(run: Run, tmp_path: Path) -> None:
    nodes = ("c = Conv(x, w)", "r = Relu(c)", "g = GlobalAveragePool(r)", "y = Flatten(g)")
    model = build(*nodes, shape=("N", 3, "height", "width"), w=random(3, 3, 3, 3))
    write(model, tmp_path, "net.onnx")
    code, out, _ = run("inspect", "net.onnx", "--shape", "3,16,16", "--json")
    assert code == 0
    assert [node["operator"] for node in json.loads(out)["nodes"]][:2] == ["Input", "Conv"]
    code, _, err = run("inspect", "net.onnx")
    assert code == 3
    assert "net.onnx: give --" in err
    assert run("explain", "net.onnx", "left.png", *OWN, "--classes", "names.txt")[0] == 0
    write(build("s = Sin(x)", "y = Cos(s)"), tmp_path, "net.onnx")
    code, _, err = run("inspect", "net.onnx")
    assert code == 1
    assert "Sin at node 's'" in err and "Cos at node 'y'" in err


def test_names_do_not_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    model = build("y = Conv(x, w)", shape=("N", 3, 16, 16), w=random(3, 3, 3, 3))
    model.graph.node[0].name = "\x1b[31mred\r\u202e[bold]ü"
    write(model, tmp_path, "net.onnx")
    code, out, _ = run("inspect", "net.onnx")
    assert code == 0
    assert r"\x1b[31mred\r\u202e[bold]ü" in out
    model.graph.node[0].op_type = "\x1b]0;title\x07"
    write(model, tmp_path, "net.onnx")
    code, _, err = run("inspect", "net.onnx")
    assert code == 1
    assert r"\x1b]0;title\x07 at node" in err
    model = build("y = Relu(x)", "z = Tanh(x)", shape=("N", 3), outputs=("y", "\x1b"))
    model.graph.node[1].output[0] = "\x1b"
    write(model, tmp_path, "net.onnx")
    code, _, err = run("inspect", "net.onnx", "--output-name", "z")
    assert code in (2, 3) and r"one of y, \x1b" in err and "\x1b[" not in err


TWO_HEADS = ("c = Conv(x, w)", "g = GlobalAveragePool(c)", "scores = Flatten(g)",
             "map = Relu(c)", "boxes = Gemm(scores, v)")  # fmt: skip


def test_a_model_with_several_outputs(run: Run, tmp_path: Path) -> None:
    model = build(*TWO_HEADS, shape=("N", 3, 16, 16), outputs=("scores", "boxes", "map"),
                  w=random(3, 3, 3, 3), v=random(3, 2))  # fmt: skip
    write(model, tmp_path, "net.onnx")
    code, out, _ = run("inspect", "net.onnx")
    assert code == 0
    assert "x 3x16x16 in, scores 3, boxes 2, map 3x14x14 out, 6 nodes" in out
    code, out, _ = run("inspect", "net.onnx", "--output-name", "map", "--json")
    content = json.loads(out)
    assert (code, content["outputs"]) == (0, {"map": "map"})
    assert len(content["nodes"]) == 3
    explain = ("explain", "net.onnx", "left.png", *OWN, "--classes", "names.txt", "--force")
    code, _, err = run(*explain)
    assert (code, "which are scores, boxes, map" in " ".join(err.split())) == (2, True)
    code, out, _ = run(*explain, "--output-name", "scores", "-t", "dog", "--json")
    assert (code, json.loads(out)["images"][0]["target"]["name"]) == (0, "dog")
    code, out, _ = run(*explain, "--output-name", "boxes", "-t", "1", "--json")
    assert (code, json.loads(out)["images"][0]["target"]["name"]) == (0, "1")
    code, _, err = run(*explain, "--output-name", "map")
    assert code == 2
    assert "no vector of classes" in err
    assert run("save", "net.onnx", "-o", "net.relprop")[0] == 0
    code, out, _ = run("inspect", "net.relprop", "--json")
    assert list(json.loads(out)["outputs"]) == ["scores", "boxes", "map"]


def test_a_model_with_several_inputs_is_explained_in_python(run: Run, tmp_path: Path) -> None:
    write(build("s = Add(a, b)", "y = Flatten(s)", inputs=("a", "b")), tmp_path, "net.onnx")
    code, out, _ = run("inspect", "net.onnx")
    assert code == 0
    assert "a 3x8x8, b 3x8x8 in, y 192 out" in out
    code, _, err = run("explain", "net.onnx", "left.png")
    assert code == 2
    assert "has several inputs (a, b): explain it in Python" in " ".join(err.split())
    code, _, err = run("explain", "net.onnx", "left.png", *OWN)
    assert code == 3
    assert "a dictionary or a tuple of the 2 inputs a, b" in err
