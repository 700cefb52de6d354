"""The line that says how far a run is."""

from __future__ import annotations

import pytest

from relprop.cli_summary import plain_console
from relprop.runs import progress
from relprop.runs.progress import RunProgress


def test_items_rate_and_rejected_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    made = progress._bar()
    made.live.console = console = plain_console()
    monkeypatch.setattr(progress, "_bar", lambda: made)
    bar = RunProgress(total=100, done=40, rejected=2, shown=True)
    bar.advance(10, 1)
    with console.capture() as captured:
        console.print(made.get_renderable())
    shown = " ".join(captured.get().split())
    assert shown.startswith("50/100")
    assert "a second" in shown
    assert shown.endswith("3 rejected")


@pytest.mark.parametrize("total", [None, 10])
def test_nothing_is_shown_where_nobody_looks(
    total: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunProgress(total, 0, 0, shown=False) as bar:
        bar.advance(3, 1)
    assert capsys.readouterr() == ("", "")
