"""Which picture has which mask: by names in two folders, by transparency, or by a table."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from batch import catalogue, pictures
from batch.catalogue import Catalogue, Item, file_digest
from batch.errors import BatchError

SUFFIX = "_mask"
# Entries of the output folder that are no results.
RESERVED = {"_index", ".batch", "index.html", "batch.jsonl"}
TABLE_COLUMNS = ("picture", "mask", "name", "prompt", "negative", "seed")


@dataclass(frozen=True)
class Source:
    """pictures: the folder. masks: theirs, where another. table: a CSV file of pictures, or None for the whole folder.
    out: the results' folder, not searched. masked: whether the workflow needs masks. shard: (index, count), the part of
    the pictures that is this command's."""

    pictures: Path
    masks: Path | None
    table: Path | None
    out: Path
    masked: bool = True
    shard: tuple[int, int] | None = None

    def is_mine(self, name: str) -> bool:
        """Whether a result belongs to this shard, whatever other pictures there are."""
        return self.shard is None or zlib.crc32(name.encode()) % self.shard[1] == self.shard[0]


def walk(folder: Path, leave: set[Path]) -> Iterator[tuple[str, list[str]]]:
    """Subfolders, as relative posix paths, with the sorted names of their pictures. Hidden ones are passed over."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        folders[:] = sorted(name for name in folders if name[0] != "." and here / name not in leave)
        relative = here.relative_to(folder).as_posix()
        found = (name for name in files if name[0] != "." and Path(name).suffix.lower() in pictures.SUFFIXES)
        yield "" if relative == "." else relative, sorted(found)


def collect(source: Source, base: Catalogue) -> None:
    """Fills the catalogue with pairs. Files are not opened yet."""
    for folder in (source.pictures, source.masks):
        if folder is not None and not folder.is_dir():
            raise BatchError(f"expected a folder, found none at {folder}. Check its name")
    if source.masks is not None:
        for relative, names in walk(source.masks, {source.out, source.pictures}):
            for name in names:
                base.add_mask(f"masks/{relative}", Path(name).stem, source.masks / relative / name)
    if source.table is not None:
        _read_table(source, base)
        return
    leave = {source.out} | ({source.masks} if source.masks and source.masks != source.pictures else set())
    for relative, names in walk(source.pictures, leave):
        stems = {Path(name).stem for name in names}
        for name in names:
            stem, path = Path(name).stem, source.pictures / relative / name
            # `cat_mask.png` beside `cat.png` is a mask; alone it is a picture with an odd name.
            if stem.endswith(SUFFIX) and stem[: -len(SUFFIX)] in stems:
                base.add_mask(f"pictures/{relative}", stem, path)
        for name in names:
            stem = Path(name).stem
            if stem.endswith(SUFFIX) and stem[: -len(SUFFIX)] in stems:
                continue
            result = (PurePosixPath(relative) / stem).as_posix()
            if source.is_mine(result):
                _add(source, base, result, source.pictures / relative / name, relative, {})


def _add(source: Source, base: Catalogue, name: str, picture: Path, relative: str, options: dict[str, str]) -> None:
    mask, problem = _find_mask(source, base, picture, relative) if source.masked else (None, None)
    if name.split("/")[0].casefold() in RESERVED:
        problem = f"expected another name: {name.split('/')[0]} in the output folder is the command's own. Rename it"
    base.add(name, picture, mask, options, problem)


def _find_mask(source: Source, base: Catalogue, picture: Path, relative: str) -> tuple[Path | None, str | None]:
    """A picture's mask file, or why there is no telling; (None, None) where its transparency has to serve."""
    stem = picture.stem
    tries = [(f"masks/{relative}", stem), (f"masks/{relative}", stem + SUFFIX), (f"pictures/{relative}", stem + SUFFIX)]
    for folder, wanted in tries:
        found = [path for path in base.masks(folder, wanted) if path != picture]
        same = [path for path in found if path.name == picture.name]
        if len(same or found) > 1:
            return None, f"expected one mask, found {' and '.join(path.name for path in found)}. Remove all but one"
        if found:
            return (same or found)[0], None
    return None, None


def _inside(folder: Path, name: str, column: str) -> Path:
    """A file that the table names. Raises ValueError where it lies elsewhere."""
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"expected in column `{column}` a file below {folder.name}/, found {name!r}")
    return folder / name


def _result_name(name: str) -> str:
    """A result's name from the table. Raises ValueError where it would leave the output folder."""
    parts = name.replace("\\", "/").split("/")
    strange = any(not part.strip(" .") or part[0] == "." or ":" in part or not part.isprintable() for part in parts)
    if strange:
        raise ValueError(f"expected in column `name` a folder below the output folder, found {name!r}")
    return "/".join(parts)


def _read_table(source: Source, base: Catalogue) -> None:
    assert source.table is not None
    try:
        with open(source.table, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if "picture" not in (rows.fieldnames or ()):
                raise BatchError(
                    f"expected a column `picture` in the first line of {source.table}, found "
                    f"{', '.join(rows.fieldnames or ()) or 'nothing'}. Known columns: {', '.join(TABLE_COLUMNS)}, "
                    "and any setting"
                )
            if not source.masks:
                # Masks beside the pictures are found by name here, too.
                for relative, names in walk(source.pictures, {source.out}):
                    for name in (name for name in names if Path(name).stem.endswith(SUFFIX)):
                        base.add_mask(f"pictures/{relative}", Path(name).stem, source.pictures / relative / name)
            for row in rows:
                where = f"{source.table.name}, line {rows.line_num}"
                if None in row:
                    raise BatchError(
                        f"expected {len(rows.fieldnames or ())} fields in {where}, found more. Quote commas"
                    )
                _add_row(source, base, {key: (value or "").strip() for key, value in row.items()}, where)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BatchError(
            f"expected a table in UTF-8 with commas, found that {source.table} is none: {error}"
        ) from error


def _add_row(source: Source, base: Catalogue, row: dict[str, str], where: str) -> None:
    options = {key: value for key, value in row.items() if value and key not in ("picture", "mask", "name")}
    try:
        picture = _inside(source.pictures, row["picture"], "picture")
        mask = _inside(source.masks or source.pictures, row["mask"], "mask") if row.get("mask") else None
        default = picture.relative_to(source.pictures).with_suffix("").as_posix()
        name = _result_name(row.get("name") or default)
    except ValueError as error:
        raise BatchError(f"{where}: {error}") from error
    if not source.is_mine(name):
        return
    if mask is None:
        relative = picture.relative_to(source.pictures).parent.as_posix()
        _add(source, base, name, picture, "" if relative == "." else relative, options)
    elif name.split("/")[0].casefold() in RESERVED:
        raise BatchError(f"{where}: expected another `name`, found {name!r}, which is the command's own")
    else:
        base.add(name, picture, mask if source.masked else None, options)


# --- what the files hold ---

Facts = dict[str, Any]


def _study(path: Path, role: str) -> Facts:
    """Facts of a file and the digest of its bytes."""
    facts = pictures.examine(path, role)
    if "problem" not in facts:
        facts["digest"] = file_digest(path)
    return facts


def study(
    base: Catalogue, masked: bool, workers: int, again: bool = False
) -> Iterator[tuple[Item, Facts | None, Facts | None]]:
    """Every new item with the facts of picture and mask, read by threads where not known; again: reads all files.

    An item that cannot be painted comes with None for the facts, and its state tells why.
    """

    def facts(path: Path, role: str, pool: ThreadPoolExecutor) -> tuple[str, Facts | Future[Facts]]:
        found = catalogue.stamp(path)
        known = None if again else base.known(path, role, found)
        return found, known if known is not None else pool.submit(_study, path, role)

    def begin(item: Item, pool: ThreadPoolExecutor) -> list[tuple[Path, str, str, Facts | Future[Facts]]] | str:
        files = [(item.picture, "picture")] + ([(item.mask, "mask")] if item.mask else [])
        begun = []
        for path, role in files:
            try:
                begun.append((path, role, *facts(path, role, pool)))
            except OSError as error:
                return f"expected the {role} {path.name}, found no such file ({error.strerror})"
        return begun

    items = base.items(catalogue.NEW)
    with ThreadPoolExecutor(workers) as pool:
        # A window: what is read ahead is bounded, whatever the number of pictures.
        window = [(item, begin(item, pool)) for item in islice(items, 4 * workers)]
        try:
            while window:
                item, begun = window.pop(0)
                yield _finish(base, item, begun, masked)
                window += [(item, begin(item, pool)) for item in islice(items, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _finish(base: Catalogue, item: Item, begun: Any, masked: bool) -> tuple[Item, Facts | None, Facts | None]:
    problem, found = begun if isinstance(begun, str) else None, []
    for path, role, mark, facts in [] if problem else begun:
        if isinstance(facts, Future):
            facts = facts.result()
            base.learn(path, role, mark, facts)
        problem = problem or (f"{role} {path.name}: {facts['problem']}" if "problem" in facts else None)
        found.append(facts)
    problem = problem or (_mask_problem(item, found) if masked else None)
    if problem:
        return base.update(item, state=catalogue.PROBLEM, reason=problem), None, None
    return item, found[0], found[1] if len(found) > 1 else None


def _mask_problem(item: Item, found: list[Facts]) -> str | None:
    picture = found[0]
    if item.mask is None:
        if picture["hole"] is None or picture["hole"] == 0:
            extra = ", and its transparency hides nothing" if picture["hole"] == 0 else ""
            stem, suffix = item.picture.stem, item.picture.suffix
            return f"no mask: expected {stem}{suffix} or {stem}{SUFFIX}{suffix}, or transparency, found none{extra}"
        return None
    mask = found[1]
    if (mask["width"], mask["height"]) != (picture["width"], picture["height"]):
        return (
            f"mask {item.mask.name}: expected the picture's size, {picture['width']} x {picture['height']} pixels, found "
            f"{mask['width']} x {mask['height']}"
        )
    if mask["hole"] <= pictures.BLACK:
        return f"mask {item.mask.name}: empty: expected white where the picture is painted, found black everywhere"
    return None


Progress = Callable[[int], None]
