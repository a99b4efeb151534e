"""Which picture has which mask, what is wrong with the others, and what is read again."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from batch import catalogue, pairing, pictures
from batch.catalogue import Catalogue
from batch.errors import BatchError
from batch.pairing import Source, collect, study

Draw = Callable[..., Image.Image]


def pair(folder: SimpleNamespace, tmp_path: Path, **options: object) -> tuple[dict[str, str | None], dict[str, str]]:
    """Masks by result, as paths below the test's folder (None: transparency), and problems by result."""
    masks = folder.masks if options.pop("masks", True) else None
    source = Source(folder.pictures, masks, options.pop("table", None), folder.out, **options)
    with Catalogue(folder.out / ".batch" / "all") as base:
        collect(source, base)
        list(study(base, source.masked, 2))
        good = {
            item.name: item.mask.relative_to(tmp_path).as_posix() if item.mask else None
            for item in base.items(catalogue.NEW)
        }
        return good, {item.name: item.reason for item in base.items(catalogue.PROBLEM)}


def test_masks_are_found_by_name(folder: SimpleNamespace, tmp_path: Path, picture: Draw, right_half: Draw) -> None:
    for name in ("a.png", "b.jpg", "sub/c.webp", "d.e.png", "f.png", "g.PNG"):
        (folder.pictures / name).parent.mkdir(exist_ok=True)
        picture(1).save(folder.pictures / name)
    (folder.masks / "sub").mkdir()
    for path in (
        "masks/a.png",
        "masks/b.png",
        "masks/sub/c_mask.png",
        "masks/d.e.png",
        "pictures/f_mask.png",
        "masks/g.tif",
    ):
        right_half().save(tmp_path / path)
    good, problems = pair(folder, tmp_path)
    assert good == {
        "a": "masks/a.png",
        "b": "masks/b.png",
        "d.e": "masks/d.e.png",
        "f": "pictures/f_mask.png",
        "g": "masks/g.tif",
        "sub/c": "masks/sub/c_mask.png",
    }
    assert not problems


def test_transparency_serves_where_no_mask_is_and_a_file_counts_first(
    folder: SimpleNamespace, tmp_path: Path, picture: Draw, right_half: Draw
) -> None:
    for name, alpha in (("hole", 0), ("opaque", 255), ("both", 0)):
        image = picture(1)
        image.putalpha(Image.new("L", image.size, alpha))
        image.save(folder.pictures / f"{name}.png")
    right_half().save(folder.pictures / "both_mask.png")
    # Of a name like a mask's, and no picture that it could belong to.
    picture(2).save(folder.pictures / "venetian_mask.png")
    good, problems = pair(folder, tmp_path, masks=False)
    assert good == {"hole": None, "both": "pictures/both_mask.png"}
    assert "its transparency hides nothing" in problems["opaque"]
    assert "expected venetian_mask.png or venetian_mask_mask.png" in problems["venetian_mask"]


def test_pictures_and_masks_may_share_a_folder(
    folder: SimpleNamespace, tmp_path: Path, picture: Draw, right_half: Draw
) -> None:
    picture(1).save(folder.pictures / "a.png")
    right_half().save(folder.pictures / "a_mask.png")
    folder.masks = folder.pictures
    assert pair(folder, tmp_path)[0] == {"a": "pictures/a_mask.png"}


def test_every_problem_is_named(folder: SimpleNamespace, tmp_path: Path, picture: Draw, right_half: Draw) -> None:
    folder.fill(1)
    for name in ("missing", "empty", "jpeg", "small", "corrupt", "badmask", "two"):
        folder.add(f"{name}.png")
    (folder.masks / "missing.png").unlink()
    Image.new("L", (16, 12)).save(folder.masks / "empty.png")
    (folder.masks / "jpeg.png").unlink()
    Image.new("L", (16, 12), 3).save(folder.masks / "jpeg.jpg")
    right_half(8, 12).save(folder.masks / "small.png")
    data = (folder.pictures / "corrupt.png").read_bytes()
    (folder.pictures / "corrupt.png").write_bytes(data[: len(data) // 2])
    (folder.masks / "badmask.png").write_bytes(b"no picture")
    (folder.masks / "two.png").rename(folder.masks / "two.bmp")
    right_half().save(folder.masks / "two.gif")
    picture(3).save(folder.pictures / "P0.jpg")
    picture(3).save(folder.pictures / "index.html.png")
    good, problems = pair(folder, tmp_path)
    assert not good
    words = {
        "missing": "no mask: expected missing.png or missing_mask.png",
        "empty": "mask empty.png: empty: expected white where the picture is painted",
        "jpeg": "mask jpeg.jpg: empty",
        "small": "mask small.png: expected the picture's size, 16 x 12 pixels, found 8 x 12",
        "corrupt": "picture corrupt.png: expected a picture, found that corrupt.png cannot be read",
        "badmask": "mask badmask.png: expected a picture",
        "two": "expected one mask, found two.bmp and two.gif",
        "P0": "no mask: expected P0.jpg or P0_mask.jpg",
        "p0": "expected a result's folder of its own, found that P0.jpg has p0/ too",
        "index.html": "is the command's own",
    }
    assert set(problems) == set(words)
    for name, expected in words.items():
        assert expected in problems[name], problems[name]


def test_workflows_without_a_mask_need_none(folder: SimpleNamespace, tmp_path: Path, picture: Draw) -> None:
    picture(1).save(folder.pictures / "a.png")
    assert pair(folder, tmp_path, masks=False, masked=False) == ({"a": None}, {})


def test_other_files_and_folders_are_passed_over(folder: SimpleNamespace, tmp_path: Path, picture: Draw) -> None:
    folder.fill(1)
    (folder.pictures / "notes.txt").write_text("x")
    (folder.pictures / "run.eps").write_text("%!PS")
    (folder.pictures / ".hidden").mkdir()
    picture(1).save(folder.pictures / ".hidden" / "a.png")
    picture(1).save(folder.pictures / "._a.png")
    folder.out = folder.pictures / "fills"
    (folder.out / "p9").mkdir(parents=True)
    picture(1).save(folder.out / "p9" / "fill_1.png")
    assert pair(folder, tmp_path) == ({"p0": "masks/p0.png"}, {})


def test_a_table_chooses_pairs_and_settings(folder: SimpleNamespace, tmp_path: Path, right_half: Draw) -> None:
    folder.fill(3)
    right_half().save(folder.masks / "other.png")
    table = tmp_path / "t.csv"
    table.write_text(
        '\ufeffpicture,mask,name,prompt,seed,preset\np0.png,,,"a cat, asleep",5,\np1.png,other.png,twice/first,dog,,fast\n'
        "p1.png,other.png,twice/second,bird,,\n",
        "utf-8",
    )
    source = Source(folder.pictures, folder.masks, table, folder.out)
    with Catalogue(tmp_path / "state") as base:
        collect(source, base)
        found = [(item.name, item.mask.name if item.mask else None, dict(item.options)) for item in base.items()]
    assert found == [
        ("p0", "p0.png", {"prompt": "a cat, asleep", "seed": "5"}),
        ("twice/first", "other.png", {"prompt": "dog", "preset": "fast"}),
        ("twice/second", "other.png", {"prompt": "bird"}),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../secret.png,,,", "expected in column `picture` a file below pictures/, found '../secret.png'"),
        ("/etc/passwd,,,", "expected in column `picture` a file below pictures/"),
        ("p0.png,../pictures/p0.png,,", "expected in column `mask` a file below masks/"),
        ("p0.png,,../out,", "expected in column `name` a folder below the output folder, found '../out'"),
        ("p0.png,,a/../../b,", "expected in column `name`"),
        ("p0.png,,/tmp/x,", "expected in column `name`"),
        ("p0.png,,..\\x,", "expected in column `name`"),
        ("p0.png,,C:/x,", "expected in column `name`"),
        ("p0.png,p0.png,.batch/all,", "expected in column `name`"),
        ("p0.png,p0.png,_index,", "which is the command's own"),
        ("p0.png,,,1,2", "expected 4 fields in t.csv, line 2, found more"),
    ],
)
def test_names_of_a_table_never_lead_elsewhere(folder: SimpleNamespace, tmp_path: Path, row: str, words: str) -> None:
    folder.fill(1)
    (tmp_path / "t.csv").write_text(f"picture,mask,name,seed\n{row}\n")
    with pytest.raises(BatchError) as caught:
        pair(folder, tmp_path, table=tmp_path / "t.csv")
    assert words in str(caught.value)


def test_a_table_s_missing_files_and_columns(folder: SimpleNamespace, tmp_path: Path) -> None:
    folder.fill(1)
    table = tmp_path / "t.csv"
    table.write_text("picture\nnowhere.png\n")
    assert "expected the picture nowhere.png, found no such file" in pair(folder, tmp_path, table=table)[1]["nowhere"]
    table.write_text("file,mask\np0.png,p0.png\n")
    with pytest.raises(BatchError, match=r"expected a column `picture`.*found file, mask"):
        pair(folder, tmp_path, table=table)


def test_shards_are_a_partition_that_does_not_change(folder: SimpleNamespace, tmp_path: Path) -> None:
    folder.fill(30)
    parts = [set(pair(folder, tmp_path, shard=(index, 4))[0]) for index in range(4)]
    assert set.union(*parts) == {f"p{number}" for number in range(30)} and sum(map(len, parts)) == 30
    assert all(parts)
    folder.add("more.png", 99)
    assert all(part <= set(pair(folder, tmp_path, shard=(index, 4))[0]) for index, part in enumerate(parts))


def test_a_link_to_a_folder_is_not_followed(folder: SimpleNamespace, tmp_path: Path, picture: Draw) -> None:
    folder.fill(1)
    (tmp_path / "elsewhere").mkdir()
    picture(1).save(tmp_path / "elsewhere" / "a.png")
    (folder.pictures / "link").symlink_to(tmp_path / "elsewhere")
    assert set(pair(folder, tmp_path)[0]) == {"p0"}


# --- what is read again ---


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are examined."""
    found: list[str] = []

    def examine(path: Path, role: str) -> dict[str, object]:
        found.append(path.name)
        return pictures_examine(path, role)

    pictures_examine = pictures.examine
    monkeypatch.setattr(pairing.pictures, "examine", examine)
    return found


def test_files_that_were_not_touched_are_not_read_again(
    folder: SimpleNamespace, tmp_path: Path, reads: list[str], picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill(3)
    pair(folder, tmp_path)
    assert len(reads) == 6
    # So soon after the files were written they may change within a tick of the clock: they are read again.
    pair(folder, tmp_path)
    assert len(reads) == 12
    monkeypatch.setattr(catalogue, "FRESH_SECONDS", -1.0)
    pair(folder, tmp_path)
    reads.clear()
    pair(folder, tmp_path)
    assert not reads
    old = (folder.pictures / "p1.png").stat()
    time.sleep(0.02)
    picture(9).save(folder.pictures / "p1.png")
    # Even with the old time of change: the system notes another.
    os.utime(folder.pictures / "p1.png", ns=(old.st_atime_ns, old.st_mtime_ns))
    pair(folder, tmp_path)
    assert reads == ["p1.png"]
    # Another file under the name.
    reads.clear()
    shutil.copy2(folder.masks / "p0.png", folder.masks / "new.png")
    os.replace(folder.masks / "new.png", folder.masks / "p0.png")
    pair(folder, tmp_path)
    assert reads == ["p0.png"]


def test_a_damaged_database_is_made_anew(folder: SimpleNamespace, tmp_path: Path) -> None:
    folder.fill(2)
    pair(folder, tmp_path)
    file = folder.out / ".batch" / "all" / "cache.sqlite"
    assert sqlite3.connect(file).execute("SELECT 1").fetchone()
    file.write_bytes(b"SQLite format 3\0" + b"broken" * 1000)
    assert set(pair(folder, tmp_path)[0]) == {"p0", "p1"}
    file.write_bytes(b"something else entirely" * 100)
    assert set(pair(folder, tmp_path)[0]) == {"p0", "p1"}
