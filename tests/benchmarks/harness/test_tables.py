"""Tables that people read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.tables import Column, legend, sections, table, write_between_markers

COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("method", lambda row: row["method"]),
    Column("TV", lambda row: row["tv"], "{:.3f}", "total variation"),
)
ROWS = [
    {"hole": "right", "method": "fast", "tv": 0.25},
    {"hole": "top", "method": "fast", "tv": None},
    {"hole": "right", "method": "balanced", "tv": 1.0},
]


def test_a_table_has_a_line_per_row() -> None:
    assert table(ROWS, COLUMNS).splitlines() == [
        "| method   |    TV |",
        "|----------|------:|",
        "| fast     | 0.250 |",
        "| fast     |     - |",
        "| balanced | 1.000 |",
    ]


def test_sections_have_their_own_tables() -> None:
    text = sections(ROWS, lambda row: row["hole"], COLUMNS, note=lambda rows: f"{len(rows)} methods")
    first, second = text.split("\n## top\n")
    assert first.startswith("## right\n\n2 methods\n\n| method   |") and first.count("\n|") == 4
    assert second.startswith("\n1 methods\n\n| method |")


def test_the_legend_explains_what_is_explained() -> None:
    assert legend(COLUMNS) == "- TV: total variation"


def test_markers_keep_what_is_around_them(tmp_path: Path) -> None:
    file = tmp_path / "document.md"
    file.write_text("# A\n\n<!-- one -->\nold\n<!-- /one -->\n\n<!-- two -->\n<!-- /two -->\nend\n", "utf-8")
    write_between_markers(file, "two", "new\n")
    assert (
        file.read_text("utf-8") == "# A\n\n<!-- one -->\nold\n<!-- /one -->\n\n<!-- two -->\nnew\n<!-- /two -->\nend\n"
    )
    with pytest.raises(ValueError, match=r"expected the lines <!-- three --> and <!-- /three --> in document\.md"):
        write_between_markers(file, "three", "new\n")
