"""VIPaint Choose Fill as the host calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image


@pytest.fixture
def temporary(pack, tmp_path, monkeypatch) -> Path:
    """The host's folder of temporary files."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return tmp_path


@pytest.fixture
def choose(pack, temporary):
    return pack.choose.VIPaintChoose.execute


def fills_of(pictures: int, each: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures (B, 24, 32, 3), masks of their left parts, and their fills."""
    generator = torch.Generator().manual_seed(1)
    original = torch.rand(pictures, 24, 32, 3, generator=generator)
    mask = torch.zeros(pictures, 24, 32)
    mask[:, :, :12] = 1
    fills = original.repeat_interleave(each, 0)
    fills[:, :, :12] = torch.rand(pictures * each, 24, 12, 3, generator=generator)
    return original, mask, fills


def files(temporary: Path, named: list[dict[str, str]]) -> list[np.ndarray]:
    assert all(entry["type"] == "temp" for entry in named)
    return [np.asarray(Image.open(temporary / entry["subfolder"] / entry["filename"])) for entry in named]


@pytest.mark.parametrize(
    ("chosen", "pictures", "rows"),
    [
        ("1", 1, [0]),
        ("3", 1, [2]),
        ("4, 2", 1, [3, 1]),
        ("2", 2, [1, 5]),
        ("2; 1, 3", 2, [1, 4, 6]),
        (";3", 2, [6]),
    ],
)
def test_hands_on_what_is_chosen(choose, chosen, pictures, rows):
    original, mask, fills = fills_of(pictures, 4)
    samples = torch.rand(4 * pictures, 4, 3, 4)
    latent = {"samples": samples, "noise_mask": torch.rand(4 * pictures, 24, 32), "batch_index": [*range(4 * pictures)]}
    found, image = choose(fills, chosen, latent, original, mask).result
    assert torch.equal(image, fills[rows]) and torch.equal(found["samples"], samples[rows])
    assert torch.equal(found["noise_mask"], latent["noise_mask"][rows]) and found["batch_index"] == rows
    assert latent["batch_index"] == [*range(4 * pictures)]
    # Without a latent and without an original: pictures are told apart by what their fills share.
    nothing, alone = choose(fills, chosen).result
    assert nothing is None and torch.equal(alone, image)


def test_nothing_chosen_makes_what_follows_wait(choose):
    answer = choose(fills_of(1, 4)[2], "")
    assert all(isinstance(output, ExecutionBlocker) for output in answer.result)
    assert "nothing is chosen" in answer.ui["text"][0] and answer.ui["vipaint_each"] == [4]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ("5", "numbers from 1 to 4, found 5"),
        ("0", "numbers from 1 to 4, found 0"),
        ("best", "numbers of fills such as .*, found 'best'"),
        ("1;2;3", "fills of 1 pictures.*found those of 3"),
        (2, "numbers of fills such as .*, found 2"),
    ],
)
def test_wrong_numbers(choose, chosen, found):
    with pytest.raises(ValueError, match=rf"^VIPaint Choose Fill, input `chosen`: expected {found}"):
        choose(fills_of(1, 4)[2], chosen)


def test_a_latent_of_another_run(choose):
    with pytest.raises(ValueError, match="input `latent`: expected the 4 latents of the fills, found 3"):
        choose(fills_of(1, 4)[2], "1", {"samples": torch.rand(3, 4, 3, 4)})


def test_what_the_editor_shows(choose, temporary):
    original, mask, fills = fills_of(2, 4)
    shown = choose(fills, "1", None, original, mask).ui
    assert shown["vipaint_each"] == [4]
    (first, *_), given = files(temporary, shown["vipaint_fills"]), files(temporary, shown["vipaint_original"])
    assert len(shown["vipaint_fills"]) == 8 and len(given) == 2
    assert np.abs(first / 255 - fills[0].numpy()).max() <= 0.5 / 255 + 1e-6
    outlines = files(temporary, shown["vipaint_outline"])
    assert len(outlines) == 2 and not outlines[0][:, :12, 3].any() and outlines[0][:, 12:, 3].any()
    spreads = files(temporary, shown["vipaint_spread"])
    assert len(spreads) == 2 and not spreads[0][:, 12:, 3].any() and spreads[0][:, :12, 3].mean() > 100


@pytest.mark.parametrize("each", [1, 64])
def test_one_fill_and_many(choose, each):
    original, mask, fills = fills_of(1, each)
    answer = choose(fills, str(each), None, original, mask)
    assert torch.equal(answer.result[1], fills[-1:])
    assert len(answer.ui["vipaint_fills"]) == each and len(answer.ui["vipaint_spread"]) == (each > 1)


def test_pictures_are_written_once(choose, temporary):
    """Choosing another of the same fills writes no file again."""
    original, mask, fills = fills_of(1, 4)
    choose(fills, "1", None, original, mask)
    written = {file: file.stat().st_mtime_ns for file in temporary.rglob("*.png")}
    choose(fills, "2", None, original, mask)
    assert written and written == {file: file.stat().st_mtime_ns for file in temporary.rglob("*.png")}
