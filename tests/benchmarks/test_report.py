"""Tables that programs read."""

from __future__ import annotations

import math

from benchmarks.report import read_csv, write_csv


def test_rows_come_back_as_they_were_written(tmp_path) -> None:
    rows = [
        {"name": "1", "count": 3, "share": 0.1, "missing": None},
        {"name": "a, b", "count": 0, "share": math.inf, "missing": -2.5e-7},
    ]
    write_csv(tmp_path / "rows.csv", rows)
    assert read_csv(tmp_path / "rows.csv", words=("name",)) == rows


def test_no_file_has_no_rows(tmp_path) -> None:
    assert read_csv(tmp_path / "none.csv", words=()) == []
