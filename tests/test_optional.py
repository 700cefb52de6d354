"""Packages that need not be installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from relprop.optional import import_optional


def test_a_missing_package_is_named_with_its_extra() -> None:
    assert import_optional("json", "json", "reading") is __import__("json")
    with pytest.raises(ImportError, match=r"reading needs no_such: pip install 'relprop\[none\]'"):
        import_optional("no_such", "none", "reading")


def test_what_a_package_itself_misses_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import no_such")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such'"):
        import_optional("half_installed", "none", "reading")
