"""The performance page is what its raw files say."""

from __future__ import annotations

from pathlib import Path

from bench.performance import write

ROOT = Path(__file__).resolve().parent.parent


def test_the_committed_page_is_that_of_the_committed_files(tmp_path: Path) -> None:
    written = write(ROOT / "docs" / "results" / "performance", tmp_path).read_text("utf-8")
    assert written == (ROOT / "docs" / "PERFORMANCE.md").read_text("utf-8"), "run python -m bench.performance"
    assert "## The model" in written
