"""Markdown tables: columns that show and explain themselves, and tables that stand inside other documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Column(Generic[R]):
    """A column of a table of rows R.

    value: what is shown of a row.
    form: how, a format string.
    meaning: what the reader of the table is told of it.
    missing: the cell where the value is None.
    """

    label: str
    value: Callable[[R], Any]
    form: str = "{}"
    meaning: str = ""
    missing: str = "-"

    def cell(self, row: R) -> str:
        value = self.value(row)
        return self.missing if value is None else self.form.format(value)


def table(rows: Iterable[R], columns: Sequence[Column[R]]) -> str:
    """A line per row."""
    return markdown([column.label for column in columns], [[column.cell(row) for column in columns] for row in rows])


def sections(
    rows: Sequence[R],
    heading: Callable[[R], str],
    columns: Sequence[Column[R]],
    note: Callable[[Sequence[R]], str] | None = None,
) -> str:
    """A table for the rows of each heading; note(rows): a line above their table."""
    parts = []
    for title in dict.fromkeys(map(heading, rows)):
        own = [row for row in rows if heading(row) == title]
        words = f"{note(own)}\n\n" if note is not None else ""
        parts.append(f"## {title}\n\n{words}{table(own, columns)}")
    return "\n".join(parts)


def legend(columns: Sequence[Column[Any]]) -> str:
    """What the columns mean, a list entry each."""
    return "\n".join(f"- {column.label}: {column.meaning}" for column in columns if column.meaning)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + ":" if i else "-" * (w + 2) for i, w in enumerate(widths))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)]) + "\n"


def write_between_markers(file: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->` of a document.

    Raises ValueError where it has not both markers.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = file.read_text("utf-8").partition(first)
    _, closed, after = rest.partition(last)
    if not found or not closed:
        raise ValueError(f"expected the lines {first.strip()} and {last} in {file.name}, found not both")
    file.write_text(f"{before}{first}{text}{last}{after}", "utf-8")
