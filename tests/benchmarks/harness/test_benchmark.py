"""The skeleton: what is computed, what is kept, and what is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.harness import benchmark as module
from benchmarks.harness.benchmark import Axis, Benchmark, Count, IsNeeded, Options, Summary, brief
from benchmarks.harness.parts import MissingPartError
from benchmarks.harness.results import read_rows
from benchmarks.harness.tables import Column, table


@dataclass(frozen=True)
class Row:
    letter: str
    number: int
    size: int
    note: str | None
    commit: str = "abc"


COMPUTED: list[tuple[str, int]] = []
COLUMNS = (Column("letter", lambda row: row.letter), Column("size", lambda row: row.size))


def measure(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
    for letter in options.letters:
        for number in (1, 2):
            if is_needed(letter, number):
                COMPUTED.append((letter, number))
                yield Row(letter, number, options.size, None)


EXAMPLE = Benchmark(
    name="example",
    title="An example",
    row=Row,
    measure=measure,
    tables=lambda rows: table(rows, COLUMNS),
    axes=(Axis("letter", ("b", "a"), "letters", quick=("a",)), Axis("number", (1, 2))),
    counts=(Count("size", usual=30, quick=3, most=100),),
    explanation="How to read it.",
    facts=lambda options: f"size {options.size}",
    is_done=lambda row, options: row.size == options.size,
)


@pytest.fixture(autouse=True)
def _nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    COMPUTED.clear()
    monkeypatch.setattr(module, "provenance", lambda: "commit 1")


def run(folder: Path, *arguments: str, of: Benchmark[Row] = EXAMPLE) -> list[tuple[str, int]]:
    """What a command computes."""
    COMPUTED.clear()
    assert of.main("Words.", ["--out", str(folder), *arguments]) == 0
    return list(COMPUTED)


def test_finished_rows_stay_and_others_are_computed(tmp_path: Path) -> None:
    assert run(tmp_path, "--letters", "a") == [("a", 1), ("a", 2)]
    assert run(tmp_path) == [("b", 1), ("b", 2)]
    assert run(tmp_path) == []
    assert run(tmp_path, "--letters", "a", "--fresh") == [("a", 1), ("a", 2)]
    # Rows with another size are computed again, those of other letters are not touched.
    assert run(tmp_path, "--letters", "b", "--size", "7") == [("b", 1), ("b", 2)]
    rows = read_rows(tmp_path / "example.csv", Row)
    assert [(row.letter, row.number, row.size) for row in rows] == [
        ("b", 1, 7),
        ("b", 2, 7),
        ("a", 1, 30),
        ("a", 2, 30),
    ]


def test_the_tables_keep_the_origin_of_results_that_are_not_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    text = (tmp_path / "example.md").read_text("utf-8")
    assert text.startswith(
        "# An example\n\n`python3 run.py benchmark example`, size 30, commit 1.\n\nHow to read it.\n\n|"
    )
    monkeypatch.setattr(module, "provenance", lambda: "commit 2")
    for arguments in ([], ["--tables"], ["--tables", "--size", "9"]):
        assert run(tmp_path, *arguments) == []
        assert (tmp_path / "example.md").read_text("utf-8") == text
    run(tmp_path, "--size", "9")
    assert "size 9, commit 2" in (tmp_path / "example.md").read_text("utf-8")


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    def interrupted(options: Options, is_needed: IsNeeded) -> Iterator[Row]:
        rows = measure(options, is_needed)
        yield next(rows)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, of=replace(EXAMPLE, measure=interrupted))
    assert run(tmp_path) == [("b", 2), ("a", 1), ("a", 2)]


def test_without_axes_all_rows_are_replaced(tmp_path: Path) -> None:
    course = replace(EXAMPLE, axes=(), measure=lambda options, _: (Row("a", n, 1, None) for n in range(options.size)))
    run(tmp_path, "--size", "5", of=course)
    run(tmp_path, "--size", "3", of=course)
    assert [row.number for row in read_rows(tmp_path / "example.csv", Row)] == [0, 1, 2]


def test_quick_runs_are_small_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = EXAMPLE.parse("", ["--quick"])
    assert (options.letters, options.size, options.out) == (["a"], 3, module.QUICK)
    options = EXAMPLE.parse("", ["--quick", "--size", "4", "--letters", "b"])
    assert (options.letters, options.size) == (["b"], 4)
    usual = EXAMPLE.parse("", [])
    assert (usual.letters, usual.size, usual.out) == (["b", "a"], 30, module.RESULTS)


@pytest.mark.parametrize("arguments", [["--size", "0"], ["--size", "101"], ["--letters", "c"]])
def test_what_is_not_there_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        EXAMPLE.parse("", arguments)
    assert arguments[0] in capsys.readouterr().err


def test_results_go_into_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("Before.\n<!-- example -->\nold\n<!-- /example -->\nAfter.\n", "utf-8")
    monkeypatch.setattr(module, "DOCUMENT", document)
    summarised = replace(EXAMPLE, summary=Summary("example", lambda rows: f"{len(rows)} rows\n"))
    run(tmp_path, of=summarised)
    assert "old" in document.read_text("utf-8")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    run(tmp_path, of=summarised)
    assert document.read_text("utf-8") == "Before.\n<!-- example -->\n4 rows\n<!-- /example -->\nAfter.\n"


def test_failures_and_missing_parts_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def illustrate(_rows: list[Row], _stem: Path) -> None:
        raise MissingPartError("no fills.safetensors")

    failing = replace(EXAMPLE, illustrate=illustrate, failure=lambda rows: f"{len(rows)} rows are too many")
    assert failing.main("", ["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "error: 4 rows are too many" in said and "no fills.safetensors" in said
    assert (tmp_path / "example.md").is_file()
    assert EXAMPLE.main("", ["--tables", "--out", str(tmp_path / "nothing")]) == 1


def test_a_row_on_one_line() -> None:
    assert brief(Row("a", 1, 12345, None)) == "a: number 1, size 1.234e+04"
