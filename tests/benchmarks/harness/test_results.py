"""Tables that programs read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.harness.results import read_rows, write_rows


@dataclass(frozen=True)
class Row:
    name: str
    count: int
    share: float
    missing: float | None = None


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [Row("1", 3, 0.1), Row("a, b", 0, math.inf, -2.5e-7), Row("", 1, 3.0)]
    write_rows(tmp_path / "rows.csv", Row, rows)
    found = read_rows(tmp_path / "rows.csv", Row)
    assert found == rows
    assert isinstance(found[2].share, float)


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.csv", Row) == []


def test_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("name,number\na,1\n", "utf-8")
    with pytest.raises(ValueError, match=r"rows\.csv: expected columns name, count, .* found name, number\."):
        read_rows(tmp_path / "rows.csv", Row)


def test_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", Row, [Row("a", 1, 1.0)])
    with pytest.raises(TypeError):
        write_rows(tmp_path / "rows.csv", Row, [Row("b", 1, 1.0), "no row"])
    assert read_rows(tmp_path / "rows.csv", Row) == [Row("a", 1, 1.0)]
