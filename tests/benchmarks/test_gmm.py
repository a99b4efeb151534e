"""Smoke runs of the mixture benchmark, as the command runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import gmm
from benchmarks.harness import parts
from benchmarks.mixtures import methods


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(methods, "code", lambda: "same")


def run(folder: Path, *arguments: str) -> list[dict[str, str]]:
    """The rows that a command leaves."""
    assert gmm.BENCHMARK.main("", ["--out", str(folder), *arguments]) == 0
    with open(folder / "gmm.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_quick_run_writes_a_table_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = ["--quick", "--methods", "exact", "fast", "--variants", "apart"]
    assert {row["method"] for row in run(tmp_path, *choice)} == {"exact", "fast"}
    assert (tmp_path / "gmm.svg").is_file()
    table = (tmp_path / "gmm.md").read_text("utf-8")
    assert "| fast " in table and "## apart" in table and "commit " in table
    monkeypatch.setitem(gmm.METHODS, "fast", None)
    run(tmp_path, *choice)
    assert (tmp_path / "gmm.md").read_text("utf-8") == table


def test_fresh_keeps_what_is_not_asked_for(tmp_path: Path) -> None:
    for variant in ("apart", "mask"):
        rows = run(tmp_path, "--quick", "--fresh", "--methods", "exact", "--variants", variant)
    assert {row["variant"] for row in rows} == {"apart", "mask"}


def test_more_problems_are_computed_and_fewer_kept(tmp_path: Path) -> None:
    choice = ["--samples", "50", "--methods", "exact", "--variants", "mask", "--dimensions", "8"]
    found = [{row["problems"] for row in run(tmp_path, *choice, "--problems", count)} for count in ("2", "3", "1")]
    assert found == [{"2"}, {"3"}, {"3"}]
    assert "problems in d 8 |" in (tmp_path / "gmm.md").read_text("utf-8")
