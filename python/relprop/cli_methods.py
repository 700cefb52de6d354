"""The option that names several methods to compare, each a preset with parameters of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from relprop.cli_rules import preset_parameters

OPTION = "--methods"

THE_PAPERS = "alpha2_beta1,sensitivity,deconvnet"
"""What Samek et al. 2017 compare."""

Methods = Annotated[
    list[str] | None,
    typer.Option(
        OPTION,
        "-c",
        metavar="METHOD,...",
        help="Presets, see [bold]relprop presets[/bold], with parameters of their own behind "
        "colons: sensitivity:norm=max,epsilon:epsilon=100; repeat or separate by commas.",
        show_default=THE_PAPERS,
    ),
]


def listed(texts: Sequence[str]) -> list[str]:
    """Return what an option lists that may be repeated and holds words between commas."""
    return [word for text in texts for part in text.split(",") if (word := part.strip())]


def methods_of(
    texts: Sequence[str], params: Sequence[str]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Read methods: for each word its preset and that one's parameters.

    ``params`` are KEY=VALUE for all presets that know the key; a word's own come before them.
    """
    words = _words(texts)
    if not words:
        raise typer.BadParameter("must name at least one.", param_hint=OPTION)
    if twice := [word for word in words if words.count(word) > 1]:
        raise typer.BadParameter(f"{twice[0]!r} is there twice.", param_hint=OPTION)
    presets = [word.partition(":")[0] for word in words]
    for_all = preset_parameters(presets, params, OPTION)
    found = {}
    for word, preset in zip(words, presets):
        own = preset_parameters([preset], word.split(":")[1:], OPTION)[preset]
        found[word] = (preset, for_all[preset] | own)
    return found


def _words(texts: Sequence[str]) -> list[str]:
    """Split at commas, but for those between the numbers of one parameter."""
    words: list[str] = []
    for part in listed(texts):
        if words and "=" in words[-1] and _is_number(part.partition(":")[0]):
            words[-1] += f",{part}"
        else:
            words.append(part)
    return words


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
