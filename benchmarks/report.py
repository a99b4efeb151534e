"""Tables for people (Markdown) and for programs (CSV), and what a result was made with."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tools.in_process import ROOT

RESULTS, QUICK = ROOT / "benchmarks" / "results", ROOT / "output" / "benchmark"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: first column left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(("-" * (w + 2)) if i == 0 else ("-" * (w + 1) + ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *(line(row) for row in rows)]) + "\n"


@cache
def commit() -> str:
    """The commit that runs, and whether its code was changed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    head = git("rev-parse", "--short", "HEAD") or "unknown"
    code = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return head + (" with changes" if code else "")


def provenance() -> str:
    """Commit, versions and device of this run in one line, without names of machines."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return f"commit {commit()}, torch {torch.__version__}, Python {platform.python_version()}, {device}"


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line per row, columns as in the first; an empty field where a value is None. See `read_csv`."""
    with open(file, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(file: Path, words: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that `write_csv` has written, none without a file. words: columns that are no numbers."""
    if not file.is_file():
        return []

    def value(column: str, text: str) -> Any:
        if column in words:
            return text
        return (int(text) if text.isdigit() else float(text)) if text else None

    with open(file, encoding="utf-8", newline="") as lines:
        return [{column: value(column, text) for column, text in row.items()} for row in csv.DictReader(lines)]
