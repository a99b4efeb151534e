"""What is to be painted, in SQLite, so that the memory of the command does not grow with the number of pictures.

What a file holds is kept from run to run beside its size and times, as git's index does: a file that was not touched
is not read again. The pairs of a run live in temporary tables. Nothing here tells what is done: that the folders of
the results tell, and the database can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

# A file changed so recently may change again within one tick of its clock.
FRESH_SECONDS = 2.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (path TEXT, role TEXT, stamp TEXT, facts TEXT, PRIMARY KEY (path, role)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (name TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID;
CREATE TEMP TABLE mask (folder TEXT, stem TEXT, path TEXT);
CREATE INDEX temp.mask_stem ON mask (folder, stem);
CREATE TEMP TABLE item (
    id INTEGER PRIMARY KEY, name TEXT, folded TEXT UNIQUE, picture TEXT, mask TEXT, options TEXT,
    state TEXT, reason TEXT, key TEXT, digests TEXT, pixels INTEGER DEFAULT 0, attempts INTEGER DEFAULT 0, late INTEGER DEFAULT 0,
    server TEXT DEFAULT ''
);
CREATE INDEX temp.item_state ON item (state, late, id);
"""

# States of an item.
NEW, PROBLEM, WAITING, BUSY, DONE, FAILED = "new", "problem", "waiting", "busy", "done", "failed"


@dataclass(frozen=True)
class Item:
    """One picture to paint.

    name: of the result's folder, with / between subfolders. mask: None where the picture's transparency is the mask,
    or none is needed. options: further columns of the table of prompts. key: digest of inputs and settings.
    digests: of picture and mask, with a space between. server: the one that last failed.
    """

    id: int
    name: str
    picture: Path
    mask: Path | None
    options: Mapping[str, str] = field(default_factory=dict)
    state: str = NEW
    reason: str = ""
    key: str = ""
    digests: str = ""
    pixels: int = 0
    attempts: int = 0
    server: str = ""


_COLUMNS = "id, name, picture, mask, options, state, reason, key, digests, pixels, attempts, server"


def _item(row: tuple[Any, ...]) -> Item:
    number, name, picture, mask, options, state, *words = row
    reason, key, digests = (word or "" for word in words[:3])
    path = Path(mask) if mask else None
    return Item(number, name, Path(picture), path, json.loads(options), state, reason, key, digests, *words[3:])


def stamp(path: Path) -> str:
    """Size, times and number of a file: another content has another stamp. Raises OSError."""
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


class Catalogue:
    """Context manager. folder: holds the database."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "cache.sqlite"
        try:
            self._base = self._open(file)
        except sqlite3.DatabaseError:
            # Damaged, by a crash of the machine for example: it is only a cache.
            file.unlink()
            self._base = self._open(file)

    @staticmethod
    def _open(file: Path) -> sqlite3.Connection:
        base = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            base.execute("PRAGMA locking_mode = EXCLUSIVE")
            base.execute("PRAGMA synchronous = NORMAL")
            base.execute("PRAGMA temp_store = FILE")
            base.executescript(_SCHEMA)
            base.execute("SELECT * FROM file LIMIT 1").fetchall()
        except sqlite3.DatabaseError:
            base.close()
            raise
        return base

    def __enter__(self) -> Catalogue:
        self.begin()
        return self

    def __exit__(self, *reason: object) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk: files are read again next time
            self._base.execute("COMMIT")
        self._base.close()

    def begin(self) -> None:
        self._base.execute("BEGIN")

    def save(self) -> None:
        """Writes what was learnt of files to disk."""
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk; the transaction stays open
            self._base.execute("COMMIT")
            self.begin()

    # --- files ---

    def known(self, path: Path, role: str, found: str) -> dict[str, Any] | None:
        """Facts of a file whose stamp is still this."""
        query = "SELECT stamp, facts FROM file WHERE path = ? AND role = ?"
        row = self._base.execute(query, (str(path), role)).fetchone()
        return json.loads(row[1]) if row and row[0] == found else None

    def learn(self, path: Path, role: str, found: str, facts: Mapping[str, Any]) -> None:
        newest = max(int(part) for part in found.split()[1:3]) / 1e9
        if time.time() - newest > FRESH_SECONDS:
            values = (str(path), role, found, json.dumps(facts))
            self._base.execute("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", values)

    # --- masks, by folder and name without suffix ---

    def add_mask(self, folder: str, stem: str, path: Path) -> None:
        self._base.execute("INSERT INTO mask VALUES (?, ?, ?)", (folder, stem, str(path)))

    def masks(self, folder: str, stem: str) -> list[Path]:
        query = "SELECT path FROM mask WHERE folder = ? AND stem = ? ORDER BY path"
        return [Path(row[0]) for row in self._base.execute(query, (folder, stem))]

    def unused_masks(self) -> Iterator[Path]:
        query = "SELECT path FROM mask WHERE path NOT IN (SELECT mask FROM item WHERE mask IS NOT NULL) ORDER BY path"
        return (Path(row[0]) for row in self._base.execute(query))

    # --- items ---

    def add(
        self, name: str, picture: Path, mask: Path | None, options: Mapping[str, str], problem: str | None = None
    ) -> None:
        """Adds a pair. Of two results in one folder (on some systems, names that differ in case) one is a problem."""
        values = (
            name,
            name.casefold(),
            str(picture),
            str(mask) if mask else None,
            json.dumps(options),
            PROBLEM if problem else NEW,
            problem,
        )
        columns = "name, folded, picture, mask, options, state, reason"
        try:
            self._base.execute(f"INSERT INTO item ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.IntegrityError:
            query = "SELECT picture FROM item WHERE folded = ?"
            (other,) = self._base.execute(query, (name.casefold(),)).fetchone()
            reason = (
                f"expected a result's folder of its own, found that {Path(other).name} has {name}/ too. Rename one, "
                "or give it another `name` in the table"
            )
            # A name that no result can have keeps the row apart.
            values = (name, f"{name.casefold()}\0{picture}\0{self.count()}", *values[2:5], PROBLEM, reason)
            self._base.execute(f"INSERT INTO item ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def update(self, item: Item, **values: Any) -> Item:
        """Changes columns of an item; returns it as it is now."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._base.execute(f"UPDATE item SET {names} WHERE id = ?", (*values.values(), item.id))
        known = {name: value for name, value in values.items() if name != "late"}
        return replace(item, **known)

    def items(self, state: str | None = None) -> Iterator[Item]:
        """All items, or those in a state, in order. Rows may be changed meanwhile."""
        last = 0
        where = "id > ?" + (" AND state = ?" if state else "")
        while True:
            values = (last, state) if state else (last,)
            rows = self._base.execute(f"SELECT {_COLUMNS} FROM item WHERE {where} ORDER BY id LIMIT 500", values)
            found = [_item(row) for row in rows]
            if not found:
                return
            yield from found
            last = found[-1].id

    def take(self, server: str, below: int | None) -> Item | None:
        """The next waiting item, now busy: one that failed here comes last.

        below: pixels that a picture for this server must not reach.
        """
        query = f"SELECT {_COLUMNS} FROM item WHERE state = ? AND pixels < ? ORDER BY late, id LIMIT 20"
        rows = self._base.execute(query, (WAITING, below if below is not None else 2**62)).fetchall()
        if not rows:
            return None
        found = [_item(row) for row in rows]
        item = next((item for item in found if item.server != server), found[0])
        return self.update(item, state=BUSY)

    def count(self, *states: str) -> int:
        if not states:
            return int(self._base.execute("SELECT COUNT(*) FROM item").fetchone()[0])
        query = f"SELECT COUNT(*) FROM item WHERE state IN ({', '.join('?' * len(states))})"
        return int(self._base.execute(query, states).fetchone()[0])

    def waiting(self, most: int) -> int:
        """How many items wait, counted up to a number."""
        query = "SELECT COUNT(*) FROM (SELECT 1 FROM item WHERE state = ? LIMIT ?)"
        return int(self._base.execute(query, (WAITING, most)).fetchone()[0])

    # --- pictures that failed in earlier runs ---

    def failed_before(self, item: Item) -> bool:
        row = self._base.execute("SELECT key FROM failure WHERE name = ?", (item.name,)).fetchone()
        return row is not None and row[0] == item.key

    def remember_failure(self, item: Item) -> None:
        self._base.execute("INSERT OR REPLACE INTO failure VALUES (?, ?)", (item.name, item.key))


def digest(value: Any) -> str:
    """SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        total = hashlib.sha256()
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
