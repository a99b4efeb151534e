"""The benchmark of the command in small, and what it complains about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import batch


def test_a_run_paints_all_and_is_watched(tmp_path: Path) -> None:
    batch.make_inputs(tmp_path, 24)
    found = batch.run(tmp_path, tmp_path / "out", 2, 0.05)
    assert found.painted == 24 and [server["kept"] for server in found.servers] == [0, 0]
    assert 24 * 0.05 / 2 <= found.painting < found.whole
    counts = [count for count, _ in found.memory]
    assert counts == sorted(counts) and counts[-1] <= 24 and all(memory > 0 for _, memory in found.memory)


def test_growth_is_the_slope_over_the_pictures() -> None:
    flat = [(count, 60.0) for count in range(0, 10_000, 100)]
    assert batch.growth(flat, 10_000) == pytest.approx(0, abs=1e-9)
    assert batch.growth([(count, 60 + count / 500) for count, _ in flat], 10_000) == pytest.approx(2)
    # What is taken at the beginning does not count.
    assert batch.growth([(count, 60 - 40 * (count < 2000)) for count, _ in flat], 10_000) == pytest.approx(0, abs=1e-9)
    assert batch.at([(0, 10.0), (90, 20.0), (100, 30.0)], 99) == 30.0


def test_complaints_name_what_is_not_as_asked_for() -> None:
    good = batch.Throughput(4, 10_000, 250.0, 255.0, 0.02, 39.0, 3.9, 7.0, 60.0, 60.0, 61.0, 0.3, 2, 0)
    again = [batch.Resumed("all but 10 done", 10_000, 10, 3.0), batch.Resumed("all done, --reread", 10_000, 0, 300.0)]
    assert not batch.complaints([good], again)
    for change in ({"times_one_server": 3.7}, {"overhead": 0.06}, {"growth_mb_per_1000": 1.5}):
        assert len(batch.complaints([replace(good, **change)], again)) == 1
    assert not batch.complaints([replace(good, pictures=400, growth_mb_per_1000=8.0)], again)
    late = [batch.Resumed("all but 10 done", 10_000, 10, 21.0)]
    assert batch.complaints([good], late) == ["all but 10 done: 21.0 s"]
