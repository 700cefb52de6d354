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


def test_a_share_of_an_item_counts_where_items_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    made = progress._bar()
    made.live.console = console = plain_console()
    monkeypatch.setattr(progress, "_bar", lambda: made)
    bar = RunProgress(total=10, done=4, rejected=0, shown=True)
    bar.advance(1, 0)
    bar.within(0.5)
    assert made.tasks[0].completed == 5.5
    made.tasks[0].start_time = made.get_time() - 15.0
    bar.within(0.5)
    with console.capture() as captured:
        console.print(made.get_renderable())
    shown = " ".join(captured.get().split())
    assert shown.startswith("5/10")
    assert "10.0 seconds each" in shown
    bar.advance(1, 1)
    assert made.tasks[0].completed == 6


@pytest.mark.parametrize("total", [None, 10])
def test_nothing_is_shown_where_nobody_looks(
    total: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = RunProgress(total, 0, 0, shown=False)
    with bar.live():
        bar.advance(3, 1)
    assert capsys.readouterr() == ("", "")
