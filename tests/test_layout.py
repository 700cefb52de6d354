"""The rules of style and layout that a test can hold."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest

import relprop
from relprop.rules import Rule

ROOT = Path(__file__).parent.parent
CPP = sorted([*ROOT.glob("cpp/**/*.?pp"), *ROOT.glob("python/bindings/*.?pp")])
CUDA = sorted(ROOT.glob("cuda/*.*"))
PYTHON = sorted(ROOT.glob("python/relprop/**/*.py"))
TESTS = [path for path in ROOT.glob("tests/**/*.*") if "__pycache__" not in path.parts]
SOURCES = [*CPP, *CUDA, *PYTHON, *TESTS, *ROOT.glob("benchmarks/**/*.py")]
RULES = [rule.__name__ for rule in get_args(Rule)]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def slots() -> list[str]:
    """The slots of the struct that every backend fills."""
    kernels = (ROOT / "cpp/kernels.hpp").read_text().partition("struct Kernels {")[2]
    return re.findall(r"\(\*(\w+)\)\(", kernels.partition("\n};")[0])


@pytest.mark.parametrize("backend", ["cpp/kernels/backend.cpp", "cuda/backend.cu"])
def test_every_backend_names_every_slot(backend: str) -> None:
    named = re.findall(r"^ +\.(\w+) =", (ROOT / backend).read_text(), re.M)
    assert named == ["name", "device", "device_index", *slots()]


def test_cuda_mirrors_the_files_of_the_cpu() -> None:
    """A product has a file for each precision, and one for its slot of depthwise layers."""
    stems = {path.stem for path in ROOT.glob("cpp/kernels/*.cpp")} | {"device", "depthwise"}
    mirrors = {path.stem for path in CUDA if path.suffix == ".cu"} - stems
    assert {stem.partition("_")[0] for stem in mirrors} <= stems


@pytest.mark.parametrize("path", [p for p in CPP if p.parts[-2] != "bindings"] + CUDA, ids=relative)
def test_the_core_knows_no_python(path: Path) -> None:
    known = r"pybind11|Python\.h|torch/|ATen/" + ("" if path in CUDA else r"|cuda_runtime|\.cuh")
    assert not re.search(rf"#include .*({known})", path.read_text())


def test_instruction_sets_share_no_code() -> None:
    """Of two copies of an inline function the linker keeps one, and it might be AVX-512's."""
    objects = sorted(ROOT.glob("build/cp*/CMakeFiles/relprop_kernels_*.dir/cpp/kernels/*.o"))
    if not objects or shutil.which("nm") is None:
        pytest.skip("needs nm and the objects of `make test`")
    for path in objects:
        listed = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True)
        merged = re.findall(r"^\S+ [VWu] (?!DW\.ref)(.*)$", listed.stdout, re.M)
        assert not merged, f"{relative(path)}: {merged}"


@pytest.mark.parametrize("path", CPP + CUDA, ids=relative)
def test_a_source_says_first_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("// ")


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_named_for_its_concept(path: Path) -> None:
    assert not re.search(r"util|helper|common|misc|base|manager", path.stem)


def imported_at_once(module: ast.Module) -> Iterator[str]:
    """Modules that are imported as soon as this one is."""
    for node in module.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_frameworks_are_imported_late(path: Path) -> None:
    asked_for = {"frontends", "benchmark"} & set(path.parts)
    if asked_for or path.name == "torch.py":  # by users of the framework alone
        return
    roots = {name.partition(".")[0] for name in imported_at_once(ast.parse(path.read_text()))}
    late = {"torch", "onnx", "google", "cupy", "ray", "zarr", "h5py", "fsspec"}
    late |= {"cv2", "matplotlib", "pyarrow", "scipy", "skimage"}
    assert not roots & late


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            yield node


def said_by_protocols(module: ast.Module) -> set[str]:
    """Methods that a protocol describes once for all classes of the module."""
    return {
        method.name
        for node in public(module.body)
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)
        for method in public(node.body)
        if ast.get_docstring(method)
    }


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module)
    # as in every operator, module or state
    described = said_by_protocols(module) | {"infer_shape", "forward", "update", "read", "write"}
    for node in public(module.body):
        assert ast.get_docstring(node), node.name
        for method in public(node.body) if isinstance(node, ast.ClassDef) else ():
            known = method.name in described
            assert known or ast.get_docstring(method), f"{node.name}.{method.name}"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_described_and_derived_twice(rule: str) -> None:
    assert f"`{rule}" in (ROOT / "docs/rules.md").read_text()
    derived = [ROOT / "tests/reference.py", ROOT / "tests/test_reference.py"]
    assert any(f"rules.{rule}" in path.read_text() for path in derived)


def test_versions_agree() -> None:
    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert declared
    assert declared[1] == relprop.__version__ == version("relprop")
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
