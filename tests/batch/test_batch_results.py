"""Results are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch import results
from batch.errors import BatchError
from batch.results import Results

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = {"fill_1.png": b"one", "fill_2.png": b"two"}


@pytest.fixture
def kept(tmp_path: Path) -> Results:
    return Results(tmp_path / "out", tmp_path / "out" / ".batch" / "all")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_a_result_is_found_again_only_while_it_is_whole(kept: Results) -> None:
    assert kept.record("a/b") is None
    kept.write("a/b", FILES, {"key": "1"})
    record = kept.record("a/b")
    assert record is not None and record["key"] == "1"
    (kept.out / "a/b/fill_2.png").write_bytes(b"tw")
    assert kept.record("a/b") is None
    kept.write("a/b", FILES, {"key": "1"})
    assert kept.record("a/b") == record
    for broken in (b"", b"{", b"[]", b'{"files": 3}', b'{"files": [{"name": "fill_1.png"}]}'):
        (kept.out / "a/b/record.json").write_bytes(broken)
        assert kept.record("a/b") is None


def test_a_new_result_takes_the_old_one_s_place_and_leaves_the_rest(kept: Results) -> None:
    kept.write("a", FILES, {"key": "1"})
    kept.write("a/b", FILES, {"key": "2"})
    (kept.out / "a" / "notes.txt").write_text("mine")
    kept.write("a", {"fill_1.png": b"new"}, {"key": "3"})
    assert names(kept.out / "a") == {"fill_1.png", "record.json", "notes.txt"}
    assert kept.record("a/b") is not None and (kept.out / "a/fill_1.png").read_bytes() == b"new"


def test_a_record_s_names_delete_nothing_elsewhere(kept: Results, tmp_path: Path) -> None:
    """A record that someone else wrote cannot make the command delete other files."""
    victim = tmp_path / "victim"
    victim.write_text("here")
    kept.write("a", FILES, {"key": "1"})
    (kept.out / "a/record.json").write_text(json.dumps({"files": [{"name": "../../victim", "bytes": 4}]}))
    kept.write("a", FILES, {"key": "2"})
    assert victim.exists()


def test_links_do_not_lead_out_of_the_output_folder(kept: Results, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (kept.out / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BatchError, match=r"leads elsewhere\. Remove the link"):
        kept.write("a/b", FILES, {"key": "1"})
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("at", range(6))
def test_an_error_at_any_file_leaves_no_result(kept: Results, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Also where another result was there: then neither counts as done."""
    if at % 2:
        kept.write("a", {"fill_1.png": b"old"}, {"key": "0"})
    written = []
    write = results._write

    def fails(path: Path, data: bytes) -> None:
        if len(written) == at // 2:
            write(path, data[:1])
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, data)

    monkeypatch.setattr(results, "_write", fails)
    with pytest.raises(OSError, match="No space"):
        kept.write("a", FILES, {"key": "1"})
    record = kept.record("a")
    assert record is None or record["key"] == "0"
    assert not list((kept.out / ".batch/all/part").iterdir())
    if record is None:
        assert not (kept.out / "a").exists()


def test_a_killed_writer_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Killed at random moments: every result that counts is whole, and the next start clears the rest."""
    code = (
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from pathlib import Path; from batch.results import Results\n"
        f"kept = Results(Path({str(tmp_path / 'out')!r}), Path({str(tmp_path / 'out/.batch/all')!r}))\n"
        "print('begin', flush=True)\n"
        "for i in range(10**6):\n"
        "    kept.write(f'r{i % 7}', {f'fill_{k}.png': bytes([i % 251]) * 50_000 for k in range(3)}, {'key': str(i)})\n"
    )
    for turn in range(4):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        try:
            child.wait(0.13 + 0.037 * turn)
        except subprocess.TimeoutExpired:
            child.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        child.wait()
        child.stdout.close()
        kept = Results(tmp_path / "out", tmp_path / "out/.batch/all")
        assert not list((tmp_path / "out/.batch/all/part").iterdir())
        whole = [record for index in range(7) if (record := kept.record(f"r{index}")) is not None]
        assert len(whole) >= 6, "one at most was being replaced"
        for record in whole:
            folder = kept.out / f"r{int(record['key']) % 7}"
            contents = {(folder / file["name"]).read_bytes() for file in record["files"]}
            assert contents == {bytes([int(record["key"]) % 251]) * 50_000}


def test_the_list_is_replaced_as_a_whole(kept: Results) -> None:
    kept.add_line({"name": "ä"})
    kept.add_line({"name": "b"})
    assert [line["name"] for line in results.read_lines(kept.lines)] == ["ä", "b"]

    def lines():
        yield {"name": "c"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.write_lines(lines())
    assert [line["name"] for line in results.read_lines(kept.lines)] == ["ä", "b"]
    kept.write_lines([{"name": "c"}])
    assert [line["name"] for line in results.read_lines(kept.lines)] == ["c"]
    kept.close()
    assert os.listdir(kept.out / ".batch/all") == []
