"""Rendered scenes: noise, holes, and the reader."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from toy_prior import scenes
from toy_prior.scenes import holes, reader
from toy_prior.scenes.renderer import SLOTS, WINDOWS, _normal

TRUTH = scenes.sample_attributes(6, torch.Generator().manual_seed(11))
# All of one background: the reader renders its templates once.
TRUTH = replace(
    TRUTH, values=TRUTH.values | {name: torch.zeros(6, dtype=torch.long) for name in ("time", "wall", "ground")}
)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return scenes.render(TRUTH)


def test_a_picture_does_not_depend_on_its_batch(pictures: torch.Tensor) -> None:
    assert torch.equal(pictures, scenes.render(TRUTH))
    alone = torch.cat([scenes.render(TRUTH[row : row + 1]) for row in range(len(TRUTH))])
    assert torch.allclose(pictures, alone, atol=1e-6)
    other = scenes.render(replace(TRUTH, number=TRUTH.number + 1))
    assert 0.005 < float((other - pictures).std()) < 0.1


def test_noise_is_white_and_grows_with_the_signal(pictures: torch.Tensor) -> None:
    noise = _normal(torch.arange(4), 9, (3, 128, 128))
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    for moved in (noise.roll(1, -1), noise.roll(1, -2), noise.roll(1, 1), noise.roll(1, 0)):
        assert abs(float((noise * moved).mean())) < 0.01
    # Differences of diagonal neighbours have no slope: their size is the sensor's noise, beside edges.
    rough = (
        pictures[..., 1:, 1:] + pictures[..., :-1, :-1] - pictures[..., 1:, :-1] - pictures[..., :-1, 1:]
    ).abs() / 2
    dark, bright = (
        rough[pictures[..., 1:, 1:].ge(low) & pictures[..., 1:, 1:].lt(high)].median()
        for low, high in ((0, 0.3), (0.6, 1))
    )
    assert bright > 1.15 * dark


@pytest.mark.parametrize("slot", SLOTS)
def test_a_solid_and_its_shadow_stay_in_their_window(slot: str) -> None:
    top, left, bottom, right = WINDOWS[slot]
    shapes = {"left": "left_shape", "right": "right_shape", "front": "front"}
    clean = scenes.render(TRUTH, grain=False)
    without = replace(TRUTH, values=TRUTH.values | {shapes[slot]: torch.full((len(TRUTH),), -1)})
    changed = (scenes.render(without, grain=False) - clean).abs()
    changed[..., top:bottom, left:right] = 0
    assert changed.max() < holes.INVISIBLE
    # A window alone is the whole picture's, where no other solid reaches.
    window = scenes.render(TRUTH, slot=slot)
    same = (window - clean[..., top:bottom, left:right]).abs().amax((0, 1)) < 1e-5
    assert same.float().mean() > 0.75


def test_attributes_and_the_lamp_are_read(pictures: torch.Tensor) -> None:
    found = reader.read(pictures)
    for name, values in TRUTH.values.items():
        assert torch.equal(found.attributes.values[name], values), name
    assert (found.attributes.azimuth - TRUTH.azimuth).abs().max() < 3
    assert found.valid.all()
    # A picture of which one half is lit from another side is none of this world.
    turned = scenes.render(replace(TRUTH, azimuth=TRUTH.azimuth.sign() * -25))
    mixed = torch.cat([pictures[..., :128], turned[..., 128:]], -1)
    assert not reader.read(mixed).valid[(TRUTH.azimuth.sign() * -25 - TRUTH.azimuth).abs() > 35].any()
    assert not reader.read(pictures.roll(20, -1)).valid.any()
    with pytest.raises(ValueError, match=r"expected pictures of shape \(N, 3, 256, 256\)"):
        reader.read(pictures[..., :128])


def test_tolerance_is_measured_on_pictures(pictures: torch.Tensor) -> None:
    tolerance = reader.measured_tolerance(pictures)
    assert set(tolerance) == set(reader.PARTS)
    error = reader.read(pictures).error
    assert all(error[part].amax() <= tolerance[part] * 1.001 for part in reader.PARTS)


@pytest.mark.parametrize("name", holes.HOLES)
def test_what_is_visible_is_plain_or_not_there(name: str) -> None:
    """No attribute is told by half, but for the lamp's direction."""
    truth = TRUTH[:3]
    found = holes.evidence(truth, holes.hole(name))
    hidden = {name for name, flags in found.hidden.items() if flags.any()} - {"azimuth"}
    determined = {name for name, flags in found.determined.items() if flags.all()}
    assert hidden.isdisjoint(determined)
    assert hidden | determined >= set(scenes.ATTRIBUTES)
    assert "time" in determined
    expected = {
        "right": {"right_shape", "right_colour", "right_material"},
        "centre": {"front"},
        "strip": set(scenes.ATTRIBUTES) - {"time", "ground"},
    }
    assert hidden == expected.get(name, hidden)
    if name in ("bottom", "strip"):
        assert found.hidden["azimuth"].all()


def test_unknown_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of right, left"):
        holes.hole("middle")
