from __future__ import annotations

from benchmarks.speed import KSAMPLER, Speed, table


def test_the_table_compares_with_the_host_s_sampler_on_the_same_network() -> None:
    speeds = [
        Speed("A", 8, KSAMPLER, 2.0, 2**29),
        Speed("A", 8, "other", 3.0, 2**30),
        Speed("B", 16, KSAMPLER, 4.0, 0),
        Speed("B", 16, "other", 2.0, 0),
    ]
    rows = [line.strip("| ").split(" | ") for line in table(speeds).splitlines()[2:]]
    assert [row[-2].strip() for row in rows] == ["1.0", "1.5", "1.0", "0.5"]
    assert [row[-1].strip() for row in rows] == ["0.50", "1.00", "0.00", "0.00"]
