"""Committed results: the tables that people read are those of the files that programs read."""

from __future__ import annotations

import pytest

from benchmarks import ablation, gmm, memory, restoration, sizes, speed, toy
from benchmarks.harness.benchmark import DOCUMENT
from benchmarks.harness.results import RESULTS, read_rows

BENCHMARKS = [module.BENCHMARK for module in (ablation, gmm, memory, restoration, sizes, speed, toy)]


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_tables_are_those_of_their_rows(benchmark) -> None:
    rows = read_rows(RESULTS / f"{benchmark.name}.csv", benchmark.row)
    text = (RESULTS / f"{benchmark.name}.md").read_text("utf-8")
    assert text.endswith(benchmark.tables(rows))
    if benchmark.summary is not None:
        assert benchmark.summary.table(rows) in DOCUMENT.read_text("utf-8")
