"""Keys of results are the same in every run, and others where anything differs that decides a result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.harness.keys import described, digest, files_digest, preset_settings
from vipaint_core import PRESETS


@dataclass(frozen=True)
class Inner:
    level: float


@dataclass(frozen=True)
class Settings:
    steps: int
    inner: Inner
    levels: tuple[float, ...] = (1.0, 2.0)


@dataclass(frozen=True)
class Renamed:
    levels: tuple[float, ...]
    inner: Inner
    steps: int


def test_settings_are_described_by_their_fields() -> None:
    assert described(Settings(3, Inner(0.5))) == {"steps": 3, "inner": {"level": 0.5}, "levels": [1.0, 2.0]}
    with pytest.raises(TypeError, match="found object"):
        described({"a": [object()]})


def test_a_digest_is_fixed() -> None:
    """Results that are committed are found by it."""
    assert digest(settings=Settings(3, Inner(0.5)), hole="right", limit=None) == "2a83694086ea746d"


def test_names_of_classes_and_order_do_not_count() -> None:
    first = digest(settings=Settings(3, Inner(0.5)), hole="right")
    assert first == digest(hole="right", settings=Renamed((1.0, 2.0), Inner(0.5), 3))


def test_every_value_counts() -> None:
    settings = Settings(3, Inner(0.5))
    changed = [replace(settings, steps=4), replace(settings, inner=Inner(0.25)), replace(settings, levels=(1.0,))]
    keys = {digest(settings=one, hole=hole) for one in (settings, *changed) for hole in ("right", "top")}
    assert len(keys) == 8


def test_of_a_preset_all_but_its_words_counts() -> None:
    preset = PRESETS["balanced"]
    assert digest(s=preset_settings(preset)) == digest(s=preset_settings(replace(preset, name="a", description="b")))
    assert digest(s=preset_settings(preset)) != digest(s=preset_settings(preset.with_changes(schedule={"steps": 12})))


def test_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"ab")
    other.write_bytes(b"c")
    first = files_digest([one, other])
    one.write_bytes(b"a")
    other.write_bytes(b"bc")
    assert files_digest([one, other]) != first
