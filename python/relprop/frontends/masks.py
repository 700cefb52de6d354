"""What a mask that comes in is in a Graph, for every front end: ids that become numbers.

What an id means is a table of one number for each id, an :class:`Embedding` with one feature: of
truths 0 for no and 1 for yes. Numbers below :data:`MASKED` stand for it.
"""

from __future__ import annotations

import numpy as np

from relprop.frontends.attention import MASKED, Builder, repeated
from relprop.graph import Add, Array, Embedding, Mul, Reshape, Shape


def of_ids(call: Builder, name: str, meaning: Array) -> str:
    """What each of a node's ids means."""
    looked_up = call.emit(Embedding(meaning[:, None]), name)
    return call.emit(Reshape(call.graph[name].shape), looked_up)


def inverse(call: Builder, truth: str) -> str:
    """Whether something is not so."""
    minus = call.emit(Mul(), truth, call.constant("minus", -1.0))
    return call.emit(Add(), minus, call.constant("one", 1.0))


def both(call: Builder, first: str, second: str) -> str:
    """Whether two things are so."""
    return call.emit(Mul(), first, second)


def either(call: Builder, first: str, second: str) -> str:
    """Whether one of two things is so, or both."""
    return inverse(call, both(call, inverse(call, first), inverse(call, second)))


def hiding(call: Builder, truth: str) -> str:
    """What a mask adds to what a softmax reads: 0 where it holds, else what hides."""
    return call.emit(Mul(), inverse(call, truth), call.constant("hidden", MASKED))


def select(call: Builder, truth: str, yes: str | Array, no: str | Array, shape: Shape) -> str:
    """``yes`` where a mask holds, else ``no``: nodes, or constants that broadcast to ``shape``."""
    parts = []
    if isinstance(yes, str) and not isinstance(no, str) and (no <= MASKED).all():
        parts.append(yes)  # beside what hides it, it need not be taken out
    elif isinstance(yes, str) or yes.any():
        parts.append(_times(call, "yes", yes, truth))
    if isinstance(no, str) or no.any():
        parts.append(_times(call, "no", no, inverse(call, truth)))
    if not parts:
        parts.append(call.emit(Mul(), truth, call.constant("zero", 0.0)))
    return repeated(call, call.emit(Add(), *parts) if len(parts) > 1 else parts[0], shape)


def _times(call: Builder, name: str, value: str | Array, truth: str) -> str:
    if not isinstance(value, str):
        value = call.constant(name, np.maximum(value, np.float32(MASKED)))
    return call.emit(Mul(), value, truth)
