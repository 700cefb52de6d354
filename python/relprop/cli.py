"""The command line, ``relprop COMMAND``; each command lives in a file of its own."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relprop import (
    cli_aggregate,
    cli_bench,
    cli_evaluate,
    cli_explain,
    cli_inspect,
    cli_presets,
    cli_save,
)
from relprop.cli_run import INTERRUPTED
from relprop.cli_summary import plain_console, show_error

NOTHING_DONE = 3
"""Exit code where a model cannot be used, nothing can be read or nothing can be written."""


class _Commands(TyperGroup):
    """Say that a command was interrupted, where it does not say more itself; typer would not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            plain_console(stderr=True).print("interrupted.")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="relprop",
    cls=_Commands,
    help="Explain the predictions of neural networks by layer-wise relevance propagation.\n\n"
    "To begin: [bold]relprop explain efficientnet-lite0 photo.jpg[/bold]",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("explain", no_args_is_help=True)(cli_explain.explain)
app.command("aggregate", no_args_is_help=True)(cli_aggregate.aggregate)
app.command("evaluate", no_args_is_help=True)(cli_evaluate.evaluate)
app.command("inspect", no_args_is_help=True)(cli_inspect.inspect)
app.command("save", no_args_is_help=True)(cli_save.save)
app.command("presets")(cli_presets.presets)
app.command("bench")(cli_bench.bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        from relprop import __version__

        typer.echo(f"relprop {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; what goes wrong is said in words, without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names hold any bytes
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        show_error(error, plain_console(stderr=True))
        sys.exit(NOTHING_DONE)
