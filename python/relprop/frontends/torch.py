"""torch modules to Graph, through ``torch.export``.

The module is traced once with a batch of symbolic size and never changed; ``aten_trace.py`` walks
the trace.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from relprop.errors import UnsupportedOperatorError
from relprop.frontends.aten_in_place import without_changes, without_dropout
from relprop.frontends.aten_trace import Conversion
from relprop.graph import Graph

_MODE_DEPENDENT = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
)
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)

Example: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
_Arguments: TypeAlias = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]

_FIXED_BATCH = ("specialized it to be a constant", "Constraints violated")
"""What torch.export says of a module that computes with the batch size itself."""

# While torch.export traces, it patches torch itself and the module holds fake parameters.
_TRACING = threading.Lock()


def convert(module: nn.Module, example: Example) -> Graph:
    """Turn a torch module in eval mode into a Graph; the module is left as it is.

    Parameters
    ----------
    module
        Takes tensors whose first axis is the batch, and returns one or several: as a tuple, list,
        dictionary, named tuple or dataclass, one in another as well. Its outputs are named by
        keys and fields, "output_0" and so on by position, a single tensor "output".
    example
        An input with its batch axis; a tuple of them, or a dictionary of keyword arguments,
        whose keys name the inputs. Only their shapes matter, and whether they are of int32 or
        int64: then they hold ids for an embedding, or a mask of zeros and ones, as those of bool.

    Raises
    ------
    UnsupportedOperatorError
        If the Graph cannot represent some operators; the message lists all of them.
    ValueError
        If the module is in train mode or on the meta device, cannot be traced, or returns what
        depends on no input.

    Notes
    -----
    Conversions wait for each other. Another thread must not run the module meanwhile. A module
    that treats a batch of one otherwise (``if len(x) > 1``) is read as for larger batches; any
    other condition on the batch size is refused.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    while isinstance(module, _WRAPPERS):
        module = module.module
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError("a scripted module cannot be traced; give the module it was made of.")
    _refuse_train_mode(module)
    with _TRACING:
        _refuse_what_has_no_values(module)
        args, kwargs = _arguments(module, example)
        program = _trace(module, (args, kwargs))
        names = ("input",) if isinstance(example, torch.Tensor) else tuple(kwargs)
        return _read(module, program, names)


def _refuse_train_mode(module: nn.Module) -> None:
    training = [
        f"{name or 'the module itself'} ({type(part).__name__})"
        for name, part in module.named_modules()
        if part.training and (part is module or isinstance(part, _MODE_DEPENDENT))
    ]
    if training:
        raise ValueError(
            "module must be in eval mode, where dropout is off and batch norm uses its stored "
            f"statistics; call module.eval() first. In train mode: {', '.join(training)}."
        )


def _refuse_what_has_no_values(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise ValueError(
                f"module must have values, but {name} is on the meta device; load its weights "
                "first, as by module.to_empty(device='cpu') and load_state_dict."
            )


def _arguments(module: nn.Module, example: Example) -> _Arguments:
    """Positional and keyword arguments of the module, made of its example."""
    if isinstance(example, Mapping):
        known = inspect.signature(module.forward).parameters
        opened = [p for p in known.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
        unknown = [name for name in example if name not in known]
        if opened and unknown:
            raise ValueError(
                f"example must be of arguments that forward names, not of **{opened[0].name} (as "
                f"{', '.join(map(str, unknown))}), which torch.export cannot trace; wrap it."
            )
        named = {
            name: _example_like(module, one, f"example[{name!r}]") for name, one in example.items()
        }
        return (), named
    if isinstance(example, tuple):
        return tuple(
            _example_like(module, one, f"example[{i}]") for i, one in enumerate(example)
        ), {}
    return (_example_like(module, example, "example"),), {}


def _example_like(module: nn.Module, example: torch.Tensor, name: str) -> torch.Tensor:
    """Two samples of the example's shape, of zeros, on the module's device and in its precision.

    A batch of 1 would be taken for a constant; a batch of 2 can be marked dynamic.
    """
    if not isinstance(example, torch.Tensor):
        raise TypeError(
            f"{name} must be a tensor, not {type(example).__name__}; for several inputs example "
            "is a tuple or a dictionary of tensors."
        )
    layout = "nested" if example.is_nested else example.layout
    if layout != torch.strided or example.is_complex() or example.is_quantized:
        raise ValueError(
            f"{name} must be dense and of a real floating type, not {layout}, {example.dtype}."
        )
    ids = example.dtype in (torch.int32, torch.int64, torch.bool)
    if example.ndim < (1 if ids else 2) or 0 in example.shape:
        raise ValueError(
            f"{name} must have shape (batch, ...) without an empty axis, "
            f"not {tuple(example.shape)}."
        )
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
    kind = example.dtype if ids else parameter.dtype
    return torch.zeros((2, *example.shape[1:]), dtype=kind, device=parameter.device)


def _trace(module: nn.Module, arguments: _Arguments) -> ExportedProgram:
    left_out: list[str] = []
    program = _exported(module, arguments, left_out)
    for kind in dict.fromkeys(left_out):
        warnings.warn(
            f"the module returns a {kind}, which torch.export cannot: it is none of the outputs.",
            stacklevel=3,
        )
    return program


def _exported(module: nn.Module, arguments: _Arguments, left_out: list[str]) -> ExportedProgram:
    with _tracing(module), _as_it_was(module):
        args, kwargs = pytree.tree_map(torch.clone, arguments)
        shapes = ShapesCollection()
        for tensor in (*args, *kwargs.values()):
            shapes[tensor] = {0: Dim.DYNAMIC}
        hook = module.register_forward_hook(
            lambda module, args, result: _returnable(result, left_out)
        )
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        finally:
            hook.remove()


def _read(module: nn.Module, program: ExportedProgram, names: Sequence[str]) -> Graph:
    """The Graph of a trace as it is, else of what torch makes of it: simpler, but as slow again."""
    _refuse_changed_buffers(program)
    without_dropout(program.graph_module)
    traced = copy.deepcopy(program.graph)
    if without_changes(traced):
        try:
            return Conversion(program, traced, names).run()
        except UnsupportedOperatorError:
            pass  # of operators that are composed of others
    with _tracing(module):
        program = program.run_decompositions({})
    _refuse_changed_buffers(program)
    return Conversion(program, program.graph, names).run()


def _refuse_changed_buffers(program: ExportedProgram) -> None:
    kept = (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION)
    changed = [s.target for s in program.graph_signature.output_specs if s.kind not in kept]
    if changed:
        raise ValueError(
            f"the module changes its buffers when it runs: {', '.join(map(str, changed))}."
        )


@contextmanager
def _tracing(module: nn.Module) -> Iterator[None]:
    """What torch's tracing needs around it, and its errors as ours."""
    # Parameters made in inference mode can be traced only there, all others only outside of it.
    tensors = (*module.parameters(), *module.buffers())
    mode = torch.inference_mode(any(tensor.is_inference() for tensor in tensors))
    with mode, torch.no_grad(), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            if any(text in str(error) for text in _FIXED_BATCH):
                raise UnsupportedOperatorError(
                    "the module fixes or mixes the batch axis, samples must be independent; "
                    f"torch.export says: {error}"
                ) from error
            raise ValueError(f"torch.export cannot trace the module: {error}") from error


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Take out again what the module puts into itself when it runs: it would stay a fake."""
    kept: list[tuple[Any, Any]] = []
    for part in module.modules():
        for held in (vars(part), *vars(part).values()):
            if isinstance(held, (dict, list, set)):
                kept.append((held, copy.copy(held)))
    try:
        yield
    finally:
        for held, before in kept:
            held.clear()
            (held.extend if isinstance(held, list) else held.update)(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging and printing what failed, which is raised as well."""
    names = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        with redirect_stderr(io.StringIO()) as printed:
            yield
        print(printed.getvalue(), end="", file=sys.stderr)  # the module's own, if nothing failed
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


_RETURNABLE = (
    *(torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool),
    *(int, float, complex, str, type(None)),
)


def _returnable(result: Any, left_out: list[str]) -> Any:
    """What torch.export can return: a dictionary for a dataclass, and None for other objects.

    A cache of keys and values, say. ``left_out`` gets the names of their classes.
    """
    if dataclasses.is_dataclass(result):
        fields = (field.name for field in dataclasses.fields(result))
        return {name: _returnable(getattr(result, name), left_out) for name in fields}

    def kept(value: Any) -> Any:
        if isinstance(value, _RETURNABLE):
            return value
        left_out.append(type(value).__name__)
        return None

    return pytree.tree_map(kept, result)
