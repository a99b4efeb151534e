"""Memory is measured for every gradient mode."""

from __future__ import annotations

from benchmarks.memory import Row, tables


def test_the_table_has_a_row_per_size() -> None:
    rows = [
        Row("SDXL", size, mode, "sampling", 2**30, 2**31, 2**29, "abc", "a card")
        for size in (512, 1024)
        for mode in ("KSampler", "full")
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables(rows).splitlines()]
    assert lines[0] == ["family", "pixels", "KSampler", "full, sampling", "in all", "host"]
    assert lines[2:] == [["SDXL", size, "1.00", "1.00", "2.00", "0.50"] for size in ("512", "1024")]
