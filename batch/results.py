"""The folders of results: written so that one is whole or absent, and found again by what it was made of."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batch.errors import BatchError

Record = dict[str, Any]
RECORD, STRIP, LINES = "record.json", "strip.jpg", "batch.jsonl"


class Results:
    """out: the output folder. state: the command's own folder in it. lines: file of the list."""

    def __init__(self, out: Path, state: Path, lines: Path | None = None) -> None:
        self.out, self._scratch, self.lines = out, state / "part", lines or out / LINES
        shutil.rmtree(self._scratch, ignore_errors=True)  # of a command that was killed
        self._scratch.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def folder(self, name: str) -> Path:
        """A result's folder. Raises BatchError where links lead out of the output folder."""
        folder = self.out / name
        if not folder.resolve().is_relative_to(self.out.resolve()):
            raise BatchError(
                f"expected a folder inside {self.out}, found that {folder} leads elsewhere. Remove the link"
            )
        return folder

    def record(self, name: str) -> Record | None:
        """The record of a result whose files are all there, in full size."""
        folder = self.out / name
        try:
            found = json.loads((folder / RECORD).read_text("utf-8"))
            whole = all((folder / file["name"]).stat().st_size == file["bytes"] for file in found["files"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return dict(found) if whole else None

    def write(self, name: str, files: Mapping[str, bytes], record: Record) -> None:
        """Writes a result; the record comes last. Raises OSError, and then nothing of it counts as done."""
        folder = self.folder(name)
        part = self._scratch / uuid.uuid4().hex
        part.mkdir()
        try:
            sizes = [{"name": file, "bytes": len(data)} for file, data in files.items()]
            text = json.dumps({**record, "files": sizes}, indent=1, ensure_ascii=False)
            for file, data in [*files.items(), (RECORD, text.encode())]:
                _write(part / file, data)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not folder.exists():
                part.replace(folder)
                return
            # Results of subfolders with this name stay: file by file. Without a record nothing here is done.
            self._remove(folder)
            for file in [*files, RECORD]:
                (part / file).replace(folder / file)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @staticmethod
    def _remove(folder: Path) -> None:
        """Deletes a former result: what its record names, and nothing else."""
        record, names = folder / RECORD, []
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            names = [str(file["name"]) for file in json.loads(record.read_text("utf-8"))["files"]]
        record.unlink(missing_ok=True)
        for name in (name for name in names if name == Path(name).name):
            (folder / name).unlink(missing_ok=True)

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Appends to the list of what this command did."""
        with open(self.lines, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def write_lines(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the list: one line for each picture."""
        part = self._scratch / f"{uuid.uuid4().hex}.jsonl"
        with open(part, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        part.replace(self.lines)


def _write(path: Path, data: bytes) -> None:
    """Writes a file to the disk itself: a rename may overtake data that is only in the cache."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_lines(file: Path) -> Iterator[Record]:
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
