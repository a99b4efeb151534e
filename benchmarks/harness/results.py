"""Rows of results as CSV files, and what they were made with."""

from __future__ import annotations

import csv
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import torch

from tools.in_process import ROOT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Where results go, those of quick runs, and what makes an interrupted run resumable.
RESULTS, QUICK, CACHE = ROOT / "benchmarks" / "results", ROOT / "output" / "benchmark", ROOT / ".cache" / "benchmarks"

R = TypeVar("R", bound="DataclassInstance")


@cache
def commit() -> str:
    """The commit that runs, and whether its code was changed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    head = git("rev-parse", "--short", "HEAD") or "unknown"
    code = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return head + (" with changes" if code else "")


def device() -> str:
    """What computes: a GPU's name, or the number of the processor's threads; no names of machines."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"


def provenance() -> str:
    """Commit, versions and device of this run in one line."""
    return f"commit {commit()}, torch {torch.__version__}, Python {platform.python_version()}, {device()}"


def write_rows(file: Path, kind: type[R], rows: Sequence[R]) -> None:
    """A line per row of the dataclass `kind`; an empty field where a value is None. An interrupt leaves the old file."""
    part = file.with_suffix(".part")
    with open(part, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, [field.name for field in fields(kind)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    part.replace(file)


def read_rows(file: Path, kind: type[R]) -> list[R]:
    """The rows that `write_rows` has written, none without a file. Raises ValueError for other columns."""
    if not file.is_file():
        return []
    kinds = get_type_hints(kind)
    with open(file, encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if reader.fieldnames != list(kinds):
            expected, found = ", ".join(kinds), ", ".join(reader.fieldnames or ())
            raise ValueError(
                f"{file}: expected columns {expected}, found {found}. Remove the file, or name another --out."
            )
        return [kind(**{name: _parsed(text, kinds[name]) for name, text in row.items()}) for row in reader]


def _parsed(text: str, kind: Any) -> Any:
    """A field of a CSV file as a str, int, float, or None where the type allows it."""
    options = get_args(kind) or (kind,)
    if not text and type(None) in options:
        return None
    (present,) = (option for option in options if option is not type(None))
    return present(text)
