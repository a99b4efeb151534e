from __future__ import annotations

from benchmarks.speed import KSAMPLER, Row, tables


def test_the_table_compares_with_the_host_s_sampler_on_the_same_network() -> None:
    rows = [
        Row("A", 8, 1, KSAMPLER, 2.0, 2**29, "abc", "a card"),
        Row("A", 8, 1, "other", 3.0, 2**30, "abc", "a card"),
        Row("B", 16, 1, KSAMPLER, 4.0, 0, "abc", "a card"),
        Row("B", 16, 1, "other", 2.0, 0, "abc", "a card"),
        Row("B", 16, 4, KSAMPLER, 8.0, 0, "abc", "a card"),
        Row("B", 16, 4, "other", 2.0, 0, "abc", "a card"),
        Row("C", 16, 1, "other", 2.0, 0, "abc", "a card"),
    ]
    lines = [line.strip("| ").split(" | ") for line in tables(rows).splitlines()[2:]]
    assert [line[-2].strip() for line in lines] == ["1.0", "1.5", "1.0", "0.5", "1.0", "0.2", "-"]
    assert [line[-1].strip() for line in lines] == ["0.50", "1.00", "0.00", "0.00", "0.00", "0.00", "0.00"]
