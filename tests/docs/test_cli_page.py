"""The generated page is the one that the commands would generate now."""

from __future__ import annotations

from pathlib import Path

from engram_transformers.cli.document import document


def test_the_page_is_current():
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text(encoding="utf-8") == document(), "run: make docs"
