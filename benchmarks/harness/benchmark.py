"""The skeleton of every benchmark: a command line, rows that are computed once, and files that show them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from benchmarks.harness.parts import MissingPartError
from benchmarks.harness.results import QUICK, RESULTS, provenance, read_rows, write_rows
from benchmarks.harness.tables import write_between_markers
from tools.in_process import ROOT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")
Options = argparse.Namespace
# is_needed(*values of the axes): whether that row is to be computed.
IsNeeded = Callable[..., bool]

DOCUMENT = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Axis:
    """A field by which rows are told apart.

    values: all that it may be, in the order of the tables.
    option: the command line option that chooses among them, none where empty.
    usual, quick: what is chosen without that option, in a usual and in a quick run; None: all values, as usual.
    """

    field: str
    values: Sequence[Any]
    option: str = ""
    usual: Sequence[Any] | None = None
    quick: Sequence[Any] | None = None

    def chosen(self, quick: bool) -> list[Any]:
        """What is chosen without the option."""
        usual = self.values if self.usual is None else self.usual
        return list(self.quick if quick and self.quick is not None else usual)


@dataclass(frozen=True)
class Count:
    """A number on the command line: its value in a usual and in a quick run, and its limits."""

    option: str
    usual: int
    quick: int
    least: int = 1
    most: float = math.inf


@dataclass(frozen=True)
class Summary(Generic[R]):
    """A table of all rows between the markers `name` of docs/benchmarks.md."""

    name: str
    table: Callable[[list[R]], str]


@dataclass(frozen=True)
class Benchmark(Generic[R]):
    """What is a benchmark's own; `main` does the rest.

    name: as on the command line; stem of the result files.
    title: heading of its table file.
    row: dataclass of a result, a line of the CSV file.
    measure(options, is_needed): computes those of the chosen rows that are needed, one after the other.
    tables(rows): Markdown.
    axes: what tells rows apart. Rows of earlier runs stay where a run computes others; without axes all are replaced.
    counts: numbers that a run depends on.
    explanation: how to read the tables, Markdown.
    facts(options): what a run was made with, beside its provenance.
    is_done(row, options): whether a row of an earlier run is what this run would compute.
    add_options(parser): further command line options.
    illustrate(rows, stem): writes pictures beside the table; stem: path of the files without their suffix.
    summary: the table in docs/benchmarks.md.
    failure(rows): why the command fails, None where it does not.
    """

    name: str
    title: str
    row: type[R]
    measure: Callable[[Options, IsNeeded], Iterator[R]]
    tables: Callable[[list[R]], str]
    axes: tuple[Axis, ...] = ()
    counts: tuple[Count, ...] = ()
    explanation: str = ""
    facts: Callable[[Options], str] | None = None
    is_done: Callable[[R, Options], bool] | None = None
    add_options: Callable[[argparse.ArgumentParser], None] | None = None
    illustrate: Callable[[list[R], Path], None] | None = None
    summary: Summary[R] | None = None
    failure: Callable[[list[R]], str | None] | None = None

    def main(self, description: str | None, arguments: Sequence[str] | None = None) -> int:
        """Runs the command and returns its exit code.

        description: what `--help` says first.
        arguments: those of the process where None.
        """
        options = self.parse(description, arguments)
        file: Path = options.out / f"{self.name}.csv"
        rows, is_new = read_rows(file, self.row), False
        if not options.tables:
            options.out.mkdir(parents=True, exist_ok=True)
            rows, is_new = self._compute(options, rows, file)
        if not rows:
            print(f"error: no rows in {file}", file=sys.stderr)
            return 1
        self._show(options, rows, is_new)
        failure = self.failure(rows) if self.failure is not None else None
        if failure is not None:
            print(f"error: {failure}", file=sys.stderr)
        return 0 if failure is None else 1

    def parse(self, description: str | None, arguments: Sequence[str] | None) -> Options:
        """The command line, with the defaults of a usual or a quick run."""
        parser = argparse.ArgumentParser(
            prog=f"run.py benchmark {self.name}",
            description=f"{description or ''}\n{self.explanation}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        choices = [axis for axis in self.axes if axis.option]
        for axis in choices:
            parser.add_argument(
                f"--{axis.option}",
                nargs="+",
                type=type(axis.values[0]),
                choices=list(axis.values),
                metavar=axis.field.upper(),
                help="; ".join(map(str, axis.values)),
            )
        for count in self.counts:
            words = f"default: {count.usual}, quick: {count.quick}"
            parser.add_argument(f"--{count.option}", type=int, help=words)
        parser.add_argument("--out", type=Path, help="folder of the results; default: benchmarks/results")
        parser.add_argument("--quick", action="store_true", help="a small run in minutes, into output/benchmark")
        parser.add_argument("--fresh", action="store_true", help="compute what is chosen again")
        parser.add_argument("--tables", action="store_true", help="compute nothing: write the tables of the CSV file")
        if self.add_options is not None:
            self.add_options(parser)
        options = parser.parse_args(arguments)
        for axis in choices:
            if getattr(options, axis.option) is None:
                setattr(options, axis.option, axis.chosen(options.quick))
        for count in self.counts:
            if getattr(options, count.option) is None:
                setattr(options, count.option, count.quick if options.quick else count.usual)
            if not count.least <= getattr(options, count.option) <= count.most:
                parser.error(f"--{count.option}: expected {count.least} to {count.most}")
        options.out = options.out or (QUICK if options.quick else RESULTS)
        return options

    def _place(self, row: R) -> tuple[Any, ...]:
        return tuple(getattr(row, axis.field) for axis in self.axes)

    def _order(self, row: R) -> list[int]:
        return [list(axis.values).index(value) for axis, value in zip(self.axes, self._place(row), strict=True)]

    def _compute(self, options: Options, earlier: list[R], file: Path) -> tuple[list[R], bool]:
        """All rows in the order of the tables, and whether any is new. The file holds them after every new one."""
        # Methods and problems that there are no longer leave the table.
        known = {
            self._place(row): row
            for row in earlier
            if self.axes and all(value in axis.values for axis, value in zip(self.axes, self._place(row), strict=True))
        }
        rows, is_new = list(known.values()), False

        def is_needed(*place: Any) -> bool:
            row = known.get(place)
            return options.fresh or row is None or self.is_done is None or not self.is_done(row, options)

        for row in self.measure(options, is_needed):
            others = [other for other in rows if not self.axes or self._place(other) != self._place(row)]
            rows, is_new = sorted([*others, row], key=self._order), True
            write_rows(file, self.row, rows)
            print(brief(row), file=sys.stderr, flush=True)
        return rows, is_new

    def _show(self, options: Options, rows: list[R], is_new: bool) -> None:
        """Writes what people read."""
        stem: Path = options.out / self.name
        file = stem.with_suffix(".md")
        facts = [] if self.facts is None else [self.facts(options)]
        origin = ", ".join([f"`python3 run.py benchmark {self.name}`", *facts, f"{provenance()}."])
        if not is_new and file.is_file():
            # The results are those of an earlier run.
            origin = file.read_text("utf-8").split("\n\n")[1]
        paragraphs = (f"# {self.title}", origin, self.explanation.strip(), self.tables(rows))
        file.write_text("\n\n".join(filter(None, paragraphs)), "utf-8")
        if self.illustrate is not None:
            try:
                self.illustrate(rows, stem)
            except MissingPartError as error:
                print(f"a picture of {self.name} is left as it is: {error}", file=sys.stderr)
        if self.summary is not None and options.out == RESULTS:
            write_between_markers(DOCUMENT, self.summary.name, self.summary.table(rows))
        print(self.tables(rows))


def brief(row: DataclassInstance) -> str:
    """A row on one line: words that are not about its origin, then numbers by name."""
    named = {name: value for name, value in asdict(row).items() if name not in ("commit", "device", "key", "distances")}
    words = [value for value in named.values() if isinstance(value, str)]
    numbers = [f"{name} {value:.4g}" for name, value in named.items() if isinstance(value, (int, float))]
    return f"{' | '.join(words)}: {', '.join(numbers)}"
